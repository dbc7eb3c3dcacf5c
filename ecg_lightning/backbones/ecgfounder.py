"""ECGFounder: Net1D, a grouped residual network with squeeze-excite, for 12 leads and for lead I.

Source: PKUDigitalHealth/ECGFounder, net1d.py, commit 04edac702b61c91face519774ddcc0cd712fef23 (MIT); written anew.
Differs: stochastic depth around each residual branch, before the shortcut is added (the published network has none);
norms that are switched off, or never called, are not built; tokens are (batch, time, channel).
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Backbone, Card, Figures, register
from ecg_lightning.backbones.conv1d import SameConv1d, halved, squeeze_excite, widened
from ecg_lightning.chains import Bandpass, Chain, Crop, Notch, SubtractMedian, ZScore
from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import LEADS_12, SignalSpec
from ecg_lightning.stochastic_depth import StochasticDepth

CHAIN: Chain = (Notch(50.0), Bandpass(0.67, 40.0, 4), SubtractMedian(0.4), Crop(), ZScore("record", 1e-8))
"""As dataset.py and util.py; the repository's ptbxl_eval.py does not filter, its readme says that one has to."""

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")
_BENCHMARK = "ecg-fm-benchmarking, Confidence_Interval.xlsx (not measured here)"
_PROTOCOL = "PTB-XL, folds 1-8 / 9 / 10, windows of 2.5 s at 500 Hz, one model per task"


class Net1DBlock(nn.Module):
    """1x1, grouped and 1x1 convolution behind swish, squeeze-excite; the first block of a stage halves the time."""

    def __init__(
        self,
        index: int,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        kernel: int,
        groups_width: int,
        norm: bool,
        dropout: float,
    ) -> None:
        """``index``: place of the block over all stages, 0 first."""
        super().__init__()
        self.index, self.channels, self.stride = index, channels, stride
        self.bn1 = nn.BatchNorm1d(in_channels) if norm and index > 0 else nn.Identity()
        self.conv1 = SameConv1d(in_channels, channels, 1)
        self.bn2 = nn.BatchNorm1d(channels) if norm else nn.Identity()
        self.conv2 = SameConv1d(channels, channels, kernel, stride, groups=channels // groups_width)
        self.bn3 = nn.BatchNorm1d(channels) if norm else nn.Identity()
        self.conv3 = SameConv1d(channels, channels, 1)
        self.se_fc1 = nn.Linear(channels, channels // 2)
        self.se_fc2 = nn.Linear(channels // 2, channels)
        self.dropout = nn.Dropout(dropout)
        self.drop = StochasticDepth(index)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> (batch, channels, ceil(time / stride)); no activation behind the sum."""
        return self.shortcut(x) + self.drop(x, self.branch)  # type: ignore[no-any-return]

    def shortcut(self, x: Tensor) -> Tensor:
        """What the branch is added to: ``x``, max-pooled where the time is halved, with zero channels around it."""
        return widened(halved(x) if self.stride == 2 else x, self.channels)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch; the very first block comes straight behind the stem's swish and has none of its own."""
        x = self.conv1(x if self.index == 0 else self.dropout(F.silu(self.bn1(x))))
        x = self.conv2(self.dropout(F.silu(self.bn2(x))))
        x = self.conv3(self.dropout(F.silu(self.bn3(x))))
        return squeeze_excite(x, self.se_fc1, self.se_fc2)


class Stage(nn.Module):
    """Blocks of one width; the first halves the time."""

    def __init__(
        self, first: int, count: int, in_channels: int, channels: int, block: Callable[..., Net1DBlock]
    ) -> None:
        """``first``: index of the first of ``count`` blocks over all stages."""
        super().__init__()
        others = [block(first + place, channels, channels, stride=1) for place in range(1, count)]
        self.block_list = nn.ModuleList([block(first, in_channels, channels, stride=2), *others])

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> (batch, channels, ceil(time / 2))."""
        for block in self.block_list:
            x = block(x)
        return x


@register(
    Card(
        name="ecgfounder",
        summary="ECGFounder, 12 leads: Net1D of 7 stages, 500 Hz, 10 s, supervised pre-training on 150 labels",
        repository="github.com/PKUDigitalHealth/ECGFounder",
        commit="04edac702b61c91face519774ddcc0cd712fef23",
        code_licence="MIT",
        weights="huggingface.co PKUDigitalHealth/ECGFounder: 12_lead_ECGFounder.pth (sha256 according to third parties "
        "ee199f3781f4ae1f732973267f003da0a759ea12bddb0dd28a77faa60aca7997)",
        weights_licence="MIT according to third parties; the model card was not read",
        pretraining_data="HEEDB (Harvard-Emory), 7,519,035 ECGs for training, 150 labels (secondary)",
        ptbxl_in_pretraining=False,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.934, 0.950, 0.943, 0.935, 0.875, 0.965), strict=True)),
                protocol=f"fine-tuned; {_PROTOCOL}",
                source=_BENCHMARK,
            ),
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.931, 0.947, 0.945, 0.924, 0.874, 0.961), strict=True)),
                protocol=f"linear probe; {_PROTOCOL}",
                source=f"{_BENCHMARK}, sheet Linear",
            ),
        ),
    )
)
class ECGFounder(Backbone):
    """Net1D with ECGFounder's sizes (30.6 million parameters); other lengths of input run as well."""

    leads: ClassVar[tuple[str, ...]] = LEADS_12
    published_key = "state_dict"
    unused_prefixes: ClassVar[tuple[str, ...]] = ("dense.",)

    def __init__(
        self,
        *,
        base_filters: int = 64,
        filters: Sequence[int] = (64, 160, 160, 400, 400, 1024, 1024),
        blocks: Sequence[int] = (2, 2, 2, 3, 3, 4, 4),
        kernel: int = 16,
        groups_width: int = 16,
        norm: bool = False,
        dropout: float = 0.0,
        num_time_points: int = 5000,
    ) -> None:
        """Sizes of the network; the defaults are those of the published weights.

        Args:
            base_filters: channels of the stem.
            filters: channels of each stage, multiples of ``groups_width`` that never fall.
            blocks: residual blocks of each stage.
            kernel: time points of the stem's and of the grouped convolutions.
            groups_width: channels of one group.
            norm: batch normalisation, off in every published script (``use_bn``).
            dropout: before each convolution of a block, off in every published script (``use_do`` is 0.5).
            num_time_points: length of the windows at 500 Hz.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        _check_sizes(base_filters, filters, blocks, groups_width, kernel=kernel, num_time_points=num_time_points)
        self.signal = SignalSpec(500, num_time_points, leads=self.leads, chain=CHAIN)
        self.feature_dim, self.num_layers = filters[-1], sum(blocks)
        self.first_conv = SameConv1d(len(self.leads), base_filters, kernel, stride=2)
        self.first_bn = nn.BatchNorm1d(base_filters) if norm else nn.Identity()
        self._first_of_stage = [0, *accumulate(blocks)][:-1]
        block = partial(Net1DBlock, kernel=kernel, groups_width=groups_width, norm=norm, dropout=dropout)
        in_channels = [base_filters, *filters[:-1]]
        self.stage_list = nn.ModuleList(
            Stage(*sizes, block) for sizes in zip(self._first_of_stage, blocks, in_channels, filters, strict=True)
        )

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, time step, channel), un-normed; 20 steps from 5000 time points.

        Raises:
            InputError: when the leads are not those of ``signal``.
        """
        self.check_input(ecg, any_length=True)
        x = F.silu(self.first_bn(self.first_conv(ecg)))
        for stage in self.stage_list:
            x = stage(x)
        return x.transpose(1, 2)

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over the time steps, (batch, channel)."""
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """0 for the stem, ``i + 1`` for block ``i`` over all stages."""
        if name.startswith(("first_conv.", "first_bn.")):
            return 0
        _, stage, _, block, _ = name.split(".", maxsplit=4)
        return self._first_of_stage[int(stage)] + int(block) + 1

    def shortcut(self, block: int, x: Tensor) -> Tensor:
        """The block's own shortcut: it halves the time and widens."""
        blocks = [block for stage in self.stage_list for block in stage.block_list]  # type: ignore[union-attr]
        return blocks[block].shortcut(x)  # type: ignore[no-any-return]

    def own_name(self, published: str) -> str | None:
        """Nothing is renamed; norms that are not built (the file holds them even when off) have no place here."""
        unbuilt_norms = [name for name, module in self.named_modules() if isinstance(module, nn.Identity)]
        return None if published.rpartition(".")[0] in unbuilt_norms else super().own_name(published)


@register(
    Card(
        name="ecgfounder_1lead",
        summary="ECGFounder, lead I: Net1D of 7 stages, 500 Hz, 10 s, supervised pre-training on 150 labels",
        repository="github.com/PKUDigitalHealth/ECGFounder",
        commit="04edac702b61c91face519774ddcc0cd712fef23",
        code_licence="MIT",
        weights="huggingface.co PKUDigitalHealth/ECGFounder: 1_lead_ECGFounder.pth",
        weights_licence="MIT according to third parties; the model card was not read",
        pretraining_data="HEEDB (Harvard-Emory), 150 labels (secondary)",
        ptbxl_in_pretraining=False,
    )
)
class ECGFounder1Lead(ECGFounder):
    """`ECGFounder` for lead I alone; the z-score is then of that lead."""

    leads = ("I",)


def _check_sizes(
    base_filters: int, filters: Sequence[int], blocks: Sequence[int], groups_width: int, **others: int
) -> None:
    problems = [f"{name} is {size}, it must be 1 or more" for name, size in others.items() if size < 1]
    if len(filters) != len(blocks) or not filters:
        problems.append(f"filters names {len(filters)} stages and blocks {len(blocks)}, they must be equally long")
    if min([1, *blocks]) < 1:
        problems.append(f"blocks is {list(blocks)}, each stage needs 1 or more")
    if groups_width < 1 or any(channels < 1 or channels % groups_width for channels in filters):
        problems.append(f"filters is {list(filters)}, each must be a multiple of groups_width, {groups_width}")
    widths = [base_filters, *filters]
    if widths != sorted(widths):
        problems.append(f"base_filters and filters are {widths}, no stage may be narrower than the one before")
    if problems:
        raise InputError(f"sizes do not fit: {joined(problems)}")

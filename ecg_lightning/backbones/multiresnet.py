"""MULTIRESNET: sequence layers that read the ECG through one pair of filters at all resolutions, as wavelets do.

Source: thjashin/multires-conv, classification.py and layers/multireslayer.py, commit
828089f21aaaaee81319a18c8213afa824d91b82 (MIT); paper Shi, Wang, Fox 2023 (ICML). Written anew from a description,
equal to its outputs on the same weights.
Differs: the tree of filters is run on an impulse, and the records pass through its response (`convolved`); stochastic
depth around each residual branch, before the sum (the published network has none); one fixed mean and deviation
normalise, where the authors fit theirs to the training folds; no weight decay on norms and biases.
"""

import math
import re
from collections.abc import Collection
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Backbone, Card, Figures, register
from ecg_lightning.backbones.transformer import check_sizes, layer_of_block
from ecg_lightning.chains import Chain, Crop, Standardise
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12, SignalSpec
from ecg_lightning.stochastic_depth import StochasticDepth

CHAIN: Chain = (Crop(), Standardise(mean=-0.00077717, deviation=0.23895642))
"""One mean and one deviation (mV) over all leads, times and records of the training folds, as dataloaders/ptbxl.py.

The authors publish no fitted scaler. These numbers, of the PTB-XL benchmark's exp0, stand in: the same kind of number,
though fitted to 500 Hz records (17441 x 5000 x 12 values) and not to each task's own.
"""

_PARTS = {
    "seq_layers": {"h0": "layer.low", "h1": "layer.high", "w": "layer.weights"},
    "mixing_layers": {"0.weight": "mix.weight", "0.bias": "mix.bias"},
    "norms": {"weight": "norm.weight", "bias": "norm.bias"},
}
_PUBLISHED_BLOCK = re.compile(rf"({'|'.join(_PARTS)})\.(\d+)\.(.+)")

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")


def filtered(x: Tensor, filters: Tensor, dilation: int) -> Tensor:
    """Each channel of ``x`` (batch, channel, time) by its own of ``filters`` (channel, 1, kernel), causally."""
    past = dilation * (filters.shape[-1] - 1)
    return F.conv1d(F.pad(x, (past, 0)), filters, dilation=dilation, groups=len(filters))


def convolved(x: Tensor, response: Tensor) -> Tensor:
    """``x`` (batch, channel, time), causally, with each channel's ``response`` (1, channel, time), by FFT in float64.

    A float32 transform spreads the rounding of a channel's largest value over all of its time points, which moves the
    published outputs by 2e-5 instead of 1e-6. The response goes through as one record more, because MKL refuses to
    transform none, which is what is left of a batch when stochastic depth drops them all.
    """
    length = x.shape[-1]
    precise = torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    spectra = torch.fft.rfft(torch.cat([x, response]).to(precise), 2 * length)  # twice: no end runs into a start
    y: Tensor = torch.fft.irfft(spectra * spectra[-1:], 2 * length)
    return y[:-1, :, :length].to(x.dtype)


class MultiResolution(nn.Module):
    """A tree of causal filters, each level reading twice as far as the one before; one pair of filters for all levels.

    Every channel has its own filters and its own weights of what the levels give. All of it is linear in the input,
    so it equals one convolution with the tree's response to an impulse, whatever the kernel and the number of levels.
    """

    def __init__(self, dim: int, kernel: int, levels: int) -> None:
        super().__init__()
        self.low = _uniform(dim, 1, kernel, bound=math.sqrt(1 / kernel))
        self.high = _uniform(dim, 1, kernel, bound=math.sqrt(1 / kernel))
        # Columns: the last low-pass, the details from coarse to fine, the input itself.
        self.weights = _uniform(dim, levels + 2, bound=math.sqrt(1 / (levels + 2)))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> the same shape; what autocast would have in less is float32 inside."""
        with torch.autocast(x.device.type, enabled=False):
            precise = x.to(torch.promote_types(x.dtype, torch.float32))
            impulse = F.pad(precise.new_ones(1, x.shape[1], 1), (0, x.shape[2] - 1))
            return convolved(precise, self.tree(impulse)).to(x.dtype)

    def tree(self, x: Tensor) -> Tensor:
        """The layer as it is published, level by level: ``x`` (batch, channel, time) -> the same shape."""
        low, high, weights = (tensor.to(x.dtype) for tensor in (self.low, self.high, self.weights))
        coarse_first = weights.unsqueeze(-1).unbind(1)  # each (channel, 1)
        y = coarse_first[-1] * x
        for level, weight in enumerate(reversed(coarse_first[1:-1])):
            y = y + weight * filtered(x, high, 2**level)
            x = filtered(x, low, 2**level)
        return y + coarse_first[0] * x


class Block(nn.Module):
    """norm(x + mix(layer(x))), the branch dropped per record; the norm is over the channels."""

    def __init__(self, index: int, dim: int, kernel: int, levels: int, dropout: float) -> None:
        """``index``: place of the block in the network, 0 first."""
        super().__init__()
        self.layer = MultiResolution(dim, kernel, levels)
        self.act = nn.GELU()
        self.mix = nn.Conv1d(dim, 2 * dim, 1)
        self.dropout = nn.Dropout1d(dropout)
        self.drop = StochasticDepth(index)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> the same shape."""
        return self.shortcut(x + self.drop(x, self.branch))

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch: all resolutions, then the channels mixed through a gate; whole channels drop out."""
        x = self.dropout(self.act(self.layer(x)))
        return self.dropout(F.glu(self.mix(x), dim=1))  # type: ignore[no-any-return]

    def shortcut(self, x: Tensor) -> Tensor:
        """The norm of ``x`` (batch, channel, time): what is left when the branch is dropped."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


@register(
    Card(
        name="multiresnet",
        summary="MULTIRESNET (ICML 2023): 6 multiresolution convolution layers, 128 wide, 100 Hz, 10 s, from scratch",
        repository="github.com/thjashin/multires-conv",
        commit="828089f21aaaaee81319a18c8213afa824d91b82",
        code_licence="MIT (Copyright 2023 Jiaxin Shi)",
        weights="none published",
        weights_licence="none published",
        pretraining_data="none: trained from its initialisation",
        ptbxl_in_pretraining=False,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, (0.938, 0.939, 0.934, 0.934, 0.897, 0.975), strict=True)),
                protocol="trained from scratch; PTB-XL, folds 1-8 / 9 / 10, whole 10 s at 100 Hz, weights of the best "
                "validation macro AUROC",
                source="recalled from the ICML 2023 paper's table, not read: check before quoting (not measured here)",
            ),
        ),
    )
)
class MultiResNet(Backbone):
    """MULTIRESNET with the sizes of its PTB-XL runs (0.21 million parameters): the paper's task-specific rival."""

    published_key = "model"
    unused_prefixes: ClassVar[tuple[str, ...]] = ("output_mapping.",)

    def __init__(
        self,
        *,
        depth: int = 6,
        dim: int = 128,
        kernel: int = 2,
        dropout: float = 0.2,
        num_time_points: int = 1000,
    ) -> None:
        """Sizes of the network; the defaults are those of the published PTB-XL script.

        Args:
            depth: number of blocks.
            dim: channels.
            kernel: time points of the filters, 2 or more; with ``num_time_points`` it says how many levels (10) it
                takes until the coarsest filter reaches over the whole window.
            dropout: of whole channels, behind each layer's GELU and behind each gate.
            num_time_points: length of the windows at 100 Hz.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        check_sizes({"depth": depth, "dim": dim, "num_time_points": num_time_points}, [])
        if kernel < 2:
            raise InputError(f"kernel is {kernel}, it must be 2 or more: a filter of one time point sees no other")
        self.signal = SignalSpec(100, num_time_points, chain=CHAIN)
        self.feature_dim, self.num_layers = dim, depth
        levels = num_levels(num_time_points, kernel)
        self.stem = nn.Conv1d(len(LEADS_12), dim, 1)
        self.blocks = nn.ModuleList(Block(index, dim, kernel, levels, dropout) for index in range(depth))

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, time, dim), one token a time point, normed by the last block.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        x = self.stem(ecg)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)  # type: ignore[no-any-return]

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> mean over the time points, (batch, dim)."""
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        """0 for the stem, ``i + 1`` for block ``i`` with its norm."""
        return layer_of_block(name, self.num_layers)

    def shortcut(self, block: int, x: Tensor) -> Tensor:
        """The norm of the block, of its input: the sum is inside it."""
        return self.blocks[block].shortcut(x)  # type: ignore[no-any-return, operator]

    def wrappers(self, names: Collection[str]) -> tuple[str, ...]:
        """That of data-parallel training, in which the published script saves."""
        return ("module.",)

    def own_name(self, published: str) -> str | None:
        """Published layers, mixing layers and norms become parts of one block each."""
        if published.startswith("encoder."):
            return published.replace("encoder.", "stem.", 1)
        found = _PUBLISHED_BLOCK.fullmatch(published)
        if found is None or found[3] not in _PARTS[found[1]]:
            return super().own_name(published)
        return f"blocks.{found[2]}.{_PARTS[found[1]][found[3]]}"


def _uniform(*shape: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def num_levels(num_time_points: int, kernel: int) -> int:
    """Levels until a filter of ``kernel`` points, its steps doubled at each, reaches over the whole window.

    The smallest whole number above or at log2((num_time_points - 1) / (kernel - 1) + 1), in whole numbers.
    """
    return (-(-(num_time_points - 1) // (kernel - 1))).bit_length()

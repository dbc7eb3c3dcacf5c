"""xresnet1d101 of the PTB-XL benchmark: a residual network of 33 bottleneck blocks, all of one width.

Source: helme/ecg_ptbxl_benchmarking, code/models/xresnet1d.py, commit cdbf4e66d7e57d9b6a2657b6024716212b8d0afa
(GPL-3.0: none of it is used here); written anew from a description.
Differs: see `ptbxl_benchmark`; a block's convolutions have one name each (published files hold every tensor twice).
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Renames, register
from ecg_lightning.backbones.ptbxl_benchmark import (
    BenchmarkNetwork,
    ResidualBlock,
    benchmark_card,
    benchmark_signal,
    conv_norm,
)
from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import LEADS_12

EXPANSION = 4
"""Channels that a block puts out, times its width: the same in all stages, unlike in networks for images."""
STEM, STAGES = 3, 4
"""Convolutions and stages, which published files number together: 0-2, a pool without weights, 4-7."""


class Bottleneck(ResidualBlock):
    """1x1 convolution, one of ``kernel`` that may halve the time, and 1x1; each behind its own norm."""

    def __init__(self, index: int, in_channels: int, width: int, *, kernel: int, stride: int) -> None:
        """``index``: place of the block over all stages, 0 first."""
        super().__init__(index)
        channels = EXPANSION * width
        self.stride = stride
        self.convs = nn.ModuleList(
            [conv_norm(in_channels, width), conv_norm(width, width, kernel, stride), conv_norm(width, channels)]
        )
        self.projection = conv_norm(in_channels, channels) if in_channels != channels else nn.Identity()

    def shortcut(self, x: Tensor) -> Tensor:
        """``x``, means of pairs where the time is halved, and only then as many channels as the branch has."""
        if self.stride == 2:
            x = F.avg_pool1d(x, 2, ceil_mode=True)  # an odd last time point is a mean of itself alone
        return self.projection(x)  # type: ignore[no-any-return]

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions, ReLU between them."""
        narrow, middle, widen = self.convs
        return widen(F.relu(middle(F.relu(narrow(x)))))  # type: ignore[no-any-return]


@register(
    benchmark_card(
        "xresnet1d101",
        "xresnet1d101: 33 residual bottleneck blocks, 1.8 million parameters without head",
        auroc=(0.925, 0.937, 0.929, 0.928, 0.896, 0.957),
    )
)
class XResNet1d101(BenchmarkNetwork):
    """xresnet1d101 (1.8 million parameters); other lengths of input run as well."""

    unused_prefixes: ClassVar[tuple[str, ...]] = (f"{STEM + 1 + STAGES}.",)
    renames: ClassVar[Renames] = (
        (r"([0-2])\.", r"stem.\1."),
        *(
            (rf"{STEM + 1 + stage}\.(\d+)\.{theirs}\.", rf"stages.{stage}.\1.{own}.")
            for stage in range(STAGES)
            for theirs, own in ((r"(?:convs|convpath\.0)", "convs"), (r"idpath\.0", "projection"))
        ),
    )

    def __init__(
        self,
        *,
        stem: Sequence[int] = (32, 32, 64),
        blocks: Sequence[int] = (3, 4, 23, 3),
        width: int = 64,
        kernel: int = 5,
        num_time_points: int = 250,
    ) -> None:
        """Sizes of the network; the defaults are the published ones.

        Args:
            stem: channels of the three convolutions in front of the blocks.
            blocks: residual blocks of each of the four stages; all but the first stage halve the time.
            width: channels inside the blocks; they put out four times as many.
            kernel: time points of the convolutions, odd.
            num_time_points: length of the windows at 100 Hz.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        _check_sizes(stem, blocks, width=width, kernel=kernel, num_time_points=num_time_points)
        self.signal = benchmark_signal(num_time_points)
        channels = EXPANSION * width
        self.feature_dim, self.num_layers = 2 * channels, sum(blocks)
        widths = [len(LEADS_12), *stem]
        self.stem = nn.ModuleList(
            conv_norm(*sizes, kernel, stride=1 if place else 2) for place, sizes in enumerate(pairwise(widths))
        )
        self._first_of_stage = [0, *accumulate(blocks)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Bottleneck(
                        index,
                        channels if index else stem[-1],
                        width,
                        kernel=kernel,
                        stride=2 if index == first and stage else 1,
                    )
                    for index in range(first, behind)
                )
            )
            for stage, (first, behind) in enumerate(pairwise(self._first_of_stage))
        )
        self.initialise()

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, time step, channel); 8 steps from 250 time points.

        Raises:
            InputError: when the leads are not those of ``signal``.
        """
        self.check_input(ecg, any_length=True)
        x = ecg
        for conv in self.stem:
            x = F.relu(conv(x))
        x = F.max_pool1d(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x.transpose(1, 2)

    def layer_of(self, name: str) -> int:
        """0 for the stem, ``i + 1`` for block ``i`` over all stages."""
        if name.startswith("stem."):
            return 0
        _, stage, block, _ = name.split(".", maxsplit=3)
        return self._first_of_stage[int(stage)] + int(block) + 1


def _check_sizes(stem: Sequence[int], blocks: Sequence[int], **others: int) -> None:
    problems = [f"{name} is {size}, it must be 1 or more" for name, size in others.items() if size < 1]
    for name, sizes, count in (("stem", stem, STEM), ("blocks", blocks, STAGES)):
        if len(sizes) != count or min(sizes) < 1:
            problems.append(f"{name} is {list(sizes)}, it must be {count} numbers of 1 or more")
    if others["kernel"] % 2 == 0:
        problems.append(f"kernel is {others['kernel']}, it must be odd")
    if problems:
        raise InputError(f"sizes do not fit: {joined(problems)}")

"""inception1d of the PTB-XL benchmark: InceptionTime (Fawaz et al. 2020, arXiv 1909.04939) on 12 leads.

Source: helme/ecg_ptbxl_benchmarking, code/models/inception1d.py, commit cdbf4e66d7e57d9b6a2657b6024716212b8d0afa
(GPL-3.0: none of it is used here); written anew from a description.
Differs: see `ptbxl_benchmark`; three modules and the shortcut around them are one block here.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import register
from ecg_lightning.backbones.ptbxl_benchmark import (
    BenchmarkNetwork,
    ResidualBlock,
    benchmark_card,
    benchmark_signal,
    conv_norm,
)
from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import LEADS_12

MODULES = 3
"""Inception modules of one residual block."""

_MODULE_PARTS = {"bottleneck": "bottleneck", "convs": "convs", "conv_bottle.1": "pooled_conv", "bn_relu.0": "norm"}
_SHORTCUT_PARTS = {"conv": "0", "bn": "1"}
_PUBLISHED_MODULE = re.compile(r"layers\.0\.im\.(\d+)\.(bottleneck|convs|conv_bottle\.1|bn_relu\.0)\.")
_PUBLISHED_SHORTCUT = re.compile(r"layers\.0\.sk\.(\d+)\.(conv|bn)\.")


class InceptionModule(nn.Module):
    """Convolutions of several lengths side by side, and one on a max pool."""

    def __init__(self, in_channels: int, *, bottleneck: int, filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(in_channels, bottleneck, 1, bias=False)
        self.convs = nn.ModuleList(
            nn.Conv1d(bottleneck, filters, kernel, padding=(kernel - 1) // 2, bias=False) for kernel in kernels
        )
        self.pooled_conv = nn.Conv1d(in_channels, filters, 1, bias=False)
        self.norm = nn.BatchNorm1d((len(kernels) + 1) * filters)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> (batch, (kernels + 1) x filters, time), the pooled path's channels last."""
        narrow = self.bottleneck(x)
        pooled = F.max_pool1d(x, 3, stride=1, padding=1)
        paths = [*(conv(narrow) for conv in self.convs), self.pooled_conv(pooled)]
        return F.relu(self.norm(torch.cat(paths, dim=1)))


class InceptionBlock(ResidualBlock):
    """Three modules, a 1x1 convolution around them."""

    def __init__(self, index: int, in_channels: int, *, bottleneck: int, filters: int, kernels: Sequence[int]) -> None:
        """``index``: place of the block, 0 first."""
        super().__init__(index)
        channels = (len(kernels) + 1) * filters
        self.inceptions = nn.Sequential(
            *(
                InceptionModule(width, bottleneck=bottleneck, filters=filters, kernels=kernels)
                for width in (in_channels, *[channels] * (MODULES - 1))
            )
        )
        self.projection = conv_norm(in_channels, channels)

    def shortcut(self, x: Tensor) -> Tensor:
        """A 1x1 convolution and a norm, in every block."""
        return self.projection(x)  # type: ignore[no-any-return]

    def branch(self, x: Tensor) -> Tensor:
        """The modules, which do not change the time."""
        return self.inceptions(x)  # type: ignore[no-any-return]


@register(
    benchmark_card(
        "inception1d",
        "inception1d: InceptionTime of 6 modules, 0.5 million parameters",
        auroc=(0.925, 0.931, 0.930, 0.921, 0.899, 0.953),
    )
)
class Inception1d(BenchmarkNetwork):
    """inception1d (0.5 million parameters); other lengths of input run as well."""

    unused_prefixes: ClassVar[tuple[str, ...]] = ("layers.1.",)

    def __init__(
        self,
        *,
        depth: int = 6,
        bottleneck: int = 32,
        filters: int = 32,
        kernels: Sequence[int] = (39, 19, 9),
        num_time_points: int = 250,
    ) -> None:
        """Sizes of the network; the defaults are the published ones.

        Args:
            depth: inception modules, a multiple of 3.
            bottleneck: channels that the convolutions of a module read.
            filters: channels that each convolution of a module puts out.
            kernels: time points of a module's convolutions, odd.
            num_time_points: length of the windows at 100 Hz.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        _check_sizes(depth, kernels, bottleneck=bottleneck, filters=filters, num_time_points=num_time_points)
        self.signal = benchmark_signal(num_time_points)
        channels = (len(kernels) + 1) * filters
        self.feature_dim, self.num_layers = 2 * channels, depth - 1
        self.blocks = nn.ModuleList(
            InceptionBlock(
                index,
                channels if index else len(LEADS_12),
                bottleneck=bottleneck,
                filters=filters,
                kernels=kernels,
            )
            for index in range(depth // MODULES)
        )
        self.initialise()

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, time step, channel), as many steps as time points.

        Raises:
            InputError: when the leads are not those of ``signal``.
        """
        self.check_input(ecg, any_length=True)
        x = ecg
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)

    def layer_of(self, name: str) -> int:
        """``i`` for module ``i`` over all blocks; a block's shortcut lies in the layer of its last module."""
        _, block, part, module, _ = name.split(".", maxsplit=4)
        place = int(module) if part == "inceptions" else MODULES - 1
        return MODULES * int(block) + place

    def own_name(self, published: str) -> str | None:
        """Modules are counted over the whole network in published files, and within their block here."""
        if match := _PUBLISHED_MODULE.match(published):
            block, module = divmod(int(match[1]), MODULES)
            return f"blocks.{block}.inceptions.{module}.{_MODULE_PARTS[match[2]]}.{published[match.end() :]}"
        if match := _PUBLISHED_SHORTCUT.match(published):
            return f"blocks.{match[1]}.projection.{_SHORTCUT_PARTS[match[2]]}.{published[match.end() :]}"
        return super().own_name(published)


def _check_sizes(depth: int, kernels: Sequence[int], **others: int) -> None:
    problems = [f"{name} is {size}, it must be 1 or more" for name, size in others.items() if size < 1]
    if depth < 1 or depth % MODULES:
        problems.append(f"depth is {depth}, it must be a multiple of {MODULES}")
    if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
        problems.append(f"kernels is {list(kernels)}, it must be one or more odd numbers")
    if problems:
        raise InputError(f"sizes do not fit: {joined(problems)}")

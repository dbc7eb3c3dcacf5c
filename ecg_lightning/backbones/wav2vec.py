"""The network that HuBERT-ECG and ECG-FM share: wav2vec 2.0's convolutions, positions and post-norm transformer.

Source: Baevski et al. 2020 (arXiv 2006.11477); layers as in the two published networks, written anew from their
equations and equal to their outputs on the same weights.
Differs: stochastic depth on each residual branch, before the sum inside the norm; attention's probabilities are never
dropped; nothing is masked, and no whole block is skipped (the published layerdrop), because stochastic depth is.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Backbone
from ecg_lightning.backbones.transformer import Mlp
from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import SignalSpec
from ecg_lightning.stochastic_depth import StochasticDepth


class ConvFrontEnd(nn.Module):
    """Convolutions without bias or padding, each behind an exact GELU; the first is normed over time, per channel."""

    def __init__(self, in_channels: int, channels: int, kernels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * len(kernels)]
        self.convs = nn.ModuleList(
            nn.Conv1d(*sizes, bias=False) for sizes in zip(widths[:-1], widths[1:], kernels, strides, strict=True)
        )
        self.norm = nn.GroupNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> (batch, token, channels)."""
        first, *others = self.convs
        x = F.gelu(self.norm(first(x)))
        for conv in others:
            x = F.gelu(conv(x))
        return x.transpose(1, 2)


class ConvPositions(nn.Module):
    """What a token gets to know of its place: one grouped convolution over its neighbours, weight-normed per tap."""

    def __init__(self, dim: int, kernel: int = 128, groups: int = 16) -> None:
        super().__init__()
        self.groups = groups
        deviation = math.sqrt(4 / (kernel * dim))
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel).normal_(std=deviation))
        self.magnitude = nn.Parameter(self._norm().detach())
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape; of the one token too many of an even kernel, the last goes."""
        weight = self.direction * (self.magnitude / self._norm())
        placed = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=weight.shape[-1] // 2, groups=self.groups)
        return F.gelu(placed[..., : x.shape[1]]).transpose(1, 2)

    def _norm(self) -> Tensor:
        """Of the direction, one number per tap, (1, 1, kernel)."""
        norm: Tensor = torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)
        return norm


class SelfAttention(nn.Module):
    """Multi-head self-attention with a linear layer each for queries, keys and values, all with bias."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape."""
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (batch, head, token, dim / heads)
        return self.dropout(self.out(mixed.transpose(1, 2).flatten(-2)))  # type: ignore[no-any-return]


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + MLP(x)); each sum drops its branch per record."""

    def __init__(self, index: int, dim: int, heads: int, *, dropout: float, activation_dropout: float) -> None:
        """``index``: place of the block in the network, 0 first."""
        super().__init__()
        self.attn = SelfAttention(dim, heads, dropout)
        self.drop1 = StochasticDepth(index)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim, dropout, activation_dropout)
        self.drop2 = StochasticDepth(index)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape."""
        x = self.norm1(x + self.drop1(x, self.attn))
        return self.norm2(x + self.drop2(x, self.mlp))  # type: ignore[no-any-return]


class Wav2Vec(Backbone):
    """Front end, convolutional positions, one norm, post-norm blocks; no norm behind the last.

    A subclass says which channels the front end reads, how tokens are pooled, what its checkpoints call things and
    which parts its authors kept frozen in fine-tuning: these make layer 0, the rest of the stem layer 1.
    """

    no_weight_decay = frozenset({"magnitude"})
    layer_0: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        signal: SignalSpec,
        front_end: ConvFrontEnd,
        *,
        dim: int,
        depth: int,
        heads: int,
        dropout: float,
        activation_dropout: float,
    ) -> None:
        """``dropout``: behind projection, norm, attention and MLP; ``activation_dropout``: inside the MLP.

        Raises:
            InputError: naming all sizes that do not fit.
        """
        super().__init__()
        _check_sizes(dim, depth, heads)
        self.signal, self.feature_dim, self.num_layers = signal, dim, depth + 1
        channels = front_end.norm.num_channels
        self.front_end = front_end
        self.projection_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, dim)
        self.positions = ConvPositions(dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(index, dim, heads, dropout=dropout, activation_dropout=activation_dropout)
            for index in range(depth)
        )
        self._initialise()

    @abstractmethod
    def channels(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> what the front end reads, (batch, channel, time)."""

    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, token, dim), out of the last block.

        Raises:
            InputError: when leads or time points are not those of ``signal``.
        """
        self.check_input(ecg)
        x = self.front_end(self.channels(ecg))
        x = self.dropout(self.projection(self.projection_norm(x)))
        x = self.dropout(self.norm(x + self.positions(x)))
        for block in self.blocks:
            x = block(x)
        return x  # type: ignore[no-any-return]

    def layer_of(self, name: str) -> int:
        """0 for what the authors froze, 1 for the rest of the stem, ``i + 2`` for block ``i``."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 2
        return 0 if part in self.layer_0 else 1

    def shortcut(self, block: int, x: Tensor) -> Tensor:
        """Both norms of the block, of its input: the sums are inside them."""
        norms = self.blocks[block]
        return norms.norm2(norms.norm1(x))  # type: ignore[no-any-return, operator]

    def _initialise(self) -> None:
        """As wav2vec 2.0: normal of deviation 0.02 for linear layers, He's for the convolutions of the front end."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)


def _check_sizes(dim: int, depth: int, heads: int) -> None:
    sizes = {"dim": dim, "depth": depth, "heads": heads}
    problems = [f"{name} is {size}, it must be 1 or more" for name, size in sizes.items() if size < 1]
    if not problems:
        groups = (("heads", heads), ("16, the groups of the positional convolution", 16))
        problems = [f"dim is {dim}, no multiple of {what}" for what, of in groups if dim % of]
    if problems:
        raise InputError(f"sizes do not fit: {joined(problems)}")

"""The pre-norm transformer block that the patch-token networks share, and the check of their sizes.

Source: the block of Dosovitskiy et al. 2021 (arXiv 2010.11929), with the parameter names of MTECG's published code.
Differs: every residual branch runs through its own `StochasticDepth`; there is no attention dropout.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.errors import InputError, joined
from ecg_lightning.stochastic_depth import StochasticDepth


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values from one linear layer, in that order."""

    def __init__(self, dim: int, heads: int, dropout: float, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape; ``mask`` (token, token): whom each token sees, None for all."""
        batch, token, dim = x.shape
        qkv = self.qkv(x).view(batch, token, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, head, token, dim / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(batch, token, dim)
        return self.dropout(self.proj(mixed))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int, dropout: float, activation_dropout: float | None = None) -> None:
        """``activation_dropout``: behind the GELU; None: as ``dropout``, which is behind the second layer."""
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.activation_dropout = nn.Dropout(dropout if activation_dropout is None else activation_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape."""
        return self.dropout(self.fc2(self.activation_dropout(self.act(self.fc1(x)))))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); each sum drops its branch per record."""

    def __init__(
        self, index: int, dim: int, heads: int, *, mlp_ratio: int, eps: float, dropout: float, qkv_bias: bool = True
    ) -> None:
        """``index``: place of the block in the network, 0 first; ``eps``: of both LayerNorms."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, dropout, qkv_bias=qkv_bias)
        self.drop1 = StochasticDepth(index)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim, dropout)
        self.drop2 = StochasticDepth(index)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape; ``mask`` as of `Attention`."""
        x = x + self.drop1(x, lambda x: self.attn(self.norm1(x), mask))
        return x + self.drop2(x, lambda x: self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


def layer_of_block(name: str, num_layers: int) -> int:
    """Layer of a parameter: ``i + 1`` for ``blocks.i``, ``num_layers`` for the last norm, 0 for what comes before."""
    part, _, rest = name.partition(".")
    if part == "blocks":
        return int(rest.partition(".")[0]) + 1
    return num_layers if part in ("norm", "fc_norm") else 0


def check_sizes(sizes: Mapping[str, int], multiples: Sequence[tuple[str, int, str, int]]) -> None:
    """Refuses sizes below 1 and, where there are none, those that do not divide.

    Args:
        sizes: by name, all of them 1 or more.
        multiples: name of a size, the size, name of what it must be a multiple of, and that number.

    Raises:
        InputError: naming all of them.
    """
    problems = [f"{name} is {size}, it must be 1 or more" for name, size in sizes.items() if size < 1]
    if not problems:
        problems = [f"{name} is {of}, no multiple of {what}, {by}" for name, of, what, by in multiples if of % by]
    if problems:
        raise InputError(f"sizes do not fit: {joined(problems)}: change one of each pair")

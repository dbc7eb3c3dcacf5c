"""The pre-norm transformer block that the patch-token networks share.

Source: the block of Dosovitskiy et al. 2021 (arXiv 2010.11929), with the parameter names of MTECG's published code.
Differs: every residual branch runs through its own `StochasticDepth`; there is no attention dropout.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.stochastic_depth import StochasticDepth


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values from one linear layer with bias, in that order."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape."""
        batch, token, dim = x.shape
        qkv = self.qkv(x).view(batch, token, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, head, token, dim / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, token, dim)
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

    def __init__(self, index: int, dim: int, heads: int, *, mlp_ratio: int, eps: float, dropout: float) -> None:
        """``index``: place of the block in the network, 0 first; ``eps``: of both LayerNorms."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, dropout)
        self.drop1 = StochasticDepth(index)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim, dropout)
        self.drop2 = StochasticDepth(index)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, token, dim) -> the same shape."""
        x = x + self.drop1(x, lambda x: self.attn(self.norm1(x)))
        return x + self.drop2(x, lambda x: self.mlp(self.norm2(x)))  # type: ignore[no-any-return]

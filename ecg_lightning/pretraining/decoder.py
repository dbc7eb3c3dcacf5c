"""The light decoder: from the tokens of what was seen to the values of every patch."""

import math

import torch
from torch import Tensor, nn

from ecg_lightning.backbones.transformer import Block, check_sizes

EPS = 1e-6


class Decoder(nn.Module):
    """A few narrow transformer blocks over all patches; masked ones begin as one learned token and their place.

    Source: He et al. 2021 (arXiv 2111.06377), section 3 and appendix A.1; places are fixed sines, as there.

    Args:
        encoder_dim: width of the encoder's tokens.
        grid: rows and columns of patches.
        num_values: of a patch.
        dim: width, a multiple of 4 and of ``heads``.
        depth: blocks.
        heads: attention heads.

    Raises:
        InputError: for sizes that do not fit.
    """

    places: Tensor

    def __init__(
        self, encoder_dim: int, grid: tuple[int, int], num_values: int, *, dim: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        check_sizes(
            {"decoder_dim": dim, "decoder_depth": depth, "decoder_heads": heads},
            [("decoder_dim", dim, "decoder_heads", heads), ("decoder_dim", dim, "the parts of a place", 4)],
        )
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.register_buffer("places", grid_places(grid, dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(index, dim, heads, mlp_ratio=4, eps=EPS, dropout=0.0) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.predict = nn.Linear(dim, num_values)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """``tokens`` (batch, kept, dim) of the patches at ``visible`` (batch, kept) -> (batch, patch, value)."""
        seen = self.embed(tokens)
        x = self.mask_token.to(seen.dtype).repeat(len(seen), len(self.places), 1)
        x = x.scatter(1, visible.unsqueeze(-1).expand_as(seen), seen) + self.places
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))  # type: ignore[no-any-return]


def grid_places(grid: tuple[int, int], dim: int) -> Tensor:
    """(row * column, dim): half of the numbers say the row, half the column, each by sines and cosines."""
    frequencies = torch.exp(torch.arange(dim // 4) * (-math.log(10_000) / (dim // 4)))

    def waves(count: int) -> Tensor:
        angles = torch.arange(count).unsqueeze(1) * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    rows, columns = (waves(count) for count in grid)
    return torch.cat([rows.repeat_interleave(grid[1], dim=0), columns.repeat(grid[0], 1)], dim=1)

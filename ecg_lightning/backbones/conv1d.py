"""Parts of 1-D convolutional networks, padded as Net1D's published code pads.

Source: PKUDigitalHealth/ECGFounder, net1d.py, commit 04edac7 (MIT); written anew from its description.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros (left, right) that make a convolution give ceil(length / stride) time points; the odd one goes right."""
    outputs = -(-length // stride)
    total = max(0, (outputs - 1) * stride + kernel - length)
    return total // 2, total - total // 2


class SameConv1d(nn.Module):
    """Convolution to ceil(time / stride) time points."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> (batch, out_channels, ceil(time / stride))."""
        padding = same_padding(x.shape[-1], self.conv.kernel_size[0], self.conv.stride[0])
        return self.conv(F.pad(x, padding) if any(padding) else x)  # type: ignore[no-any-return]


def halved(x: Tensor) -> Tensor:
    """Max pool over pairs of time points, (batch, channel, time) -> (batch, channel, ceil(time / 2)).

    One zero stands behind the last time point, so an odd length ends in max(x, 0): the published code pads with zero,
    not with minus infinity.
    """
    return F.max_pool1d(F.pad(x, (0, 1)), kernel_size=2, stride=2)


def widened(x: Tensor, channels: int) -> Tensor:
    """Zero channels around those of ``x``, (batch, channel, time) -> (batch, channels, time); the odd one behind."""
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, missing // 2, missing - missing // 2)) if missing else x


def squeeze_excite(x: Tensor, narrow: nn.Linear, widen: nn.Linear) -> Tensor:
    """Each channel of ``x`` (batch, channel, time) times a gate made from all channels' means over time."""
    gate = torch.sigmoid(widen(F.silu(narrow(x.mean(dim=-1)))))  # (batch, channel)
    return x * gate.unsqueeze(-1)

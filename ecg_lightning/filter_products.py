"""Zero-phase filters of a window as products of matrices: `sosfiltfilt` is linear in the window.

A window of n time points takes n * n multiplications by one matrix. In float32 on a CPU it takes a quarter of them: a
low-pass reaches a fraction of a second to either side, and what a high-pass takes away is slow enough to be told by
a hundred numbers a window, whatever its length. So the matrix is a band along its diagonal and a product of two thin
ones beside it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the workers of `prepare` start five times as fast without torch
    from torch import Tensor

    from ecg_lightning.batch_steps import WindowFilter

TOLERANCE = 1e-7
"""What the band and the thin matrices may miss of a window of amplitude 1: what float32 does not tell."""
RANKS = (0, 32, 64, 96, 128, 192, 256)
TILE = 125
"""Time points that one tile of the band makes; measured on a window of 2,250 between 64 and 250: flat around it."""


@lru_cache(maxsize=8)
def filter_matrix(steps: "tuple[WindowFilter, ...]", num_time_points: int) -> NDArray[np.float64]:
    """Row i (time, time) is what the filters, one after the other, make of an impulse at time point i."""
    return _filter_matrix(steps, num_time_points)


def _filter_matrix(steps: "tuple[WindowFilter, ...]", num_time_points: int) -> NDArray[np.float64]:
    from scipy.signal import butter, sosfiltfilt

    impulses = np.eye(num_time_points)
    for step in steps:
        sections = butter(step.order, step.cutoff, btype=step.kind, fs=step.sampling_rate, output="sos")
        impulses = sosfiltfilt(sections, impulses, axis=-1)
    return np.ascontiguousarray(impulses)


@dataclass(frozen=True, eq=False)
class ThinProduct:
    """The filters' matrix as a band and what is far from it.

    Attributes:
        tiles: (tile, reach + TILE + reach, TILE): what each stretch of a window, and what lies beside it, makes.
        reach: time points to either side that the band reaches.
        left: (time, rank), of what is far from it.
        right: (rank + 1, time), its last row what the filters make of a window of ones.
    """

    tiles: "Tensor"
    reach: int
    left: "Tensor"
    right: "Tensor"

    def __call__(self, ecg: "Tensor") -> "Tensor":
        """``ecg`` (..., time) float32 on the CPU -> filtered, the same shape."""
        from torch import cat
        from torch.nn.functional import pad

        num_tiles, width, tile = self.tiles.shape
        time = ecg.shape[-1]
        rows = ecg.reshape(-1, time)
        mean = rows.mean(dim=1, keepdim=True)  # an offset would drown the rest in the thin products' rounding
        rows = rows - mean
        stretches = pad(rows, (self.reach, num_tiles * tile - time + self.reach)).unfold(1, width, tile)
        near = stretches.transpose(0, 1).bmm(self.tiles).transpose(0, 1).reshape(-1, num_tiles * tile)[:, :time]
        return near.addmm(cat([rows @ self.left, mean], dim=1), self.right).reshape(ecg.shape)


@lru_cache(maxsize=8)
def thin_product(steps: "tuple[WindowFilter, ...]", num_time_points: int) -> ThinProduct | None:
    """The filters as `ThinProduct`; None where it would not halve the multiplications."""
    import torch

    whole = _filter_matrix(steps, num_time_points)  # 40 MB, and the band as many, that nobody asks for again
    band = _filter_matrix(tuple(step for step in steps if step.kind == "lowpass"), num_time_points)
    reach = _reach(band)
    thin = _thin(whole - band)
    if thin is None or 2 * reach + TILE + 2 * len(thin[1]) > num_time_points / 2:
        return None
    num_tiles = -(-num_time_points // TILE)
    padded = np.zeros((2 * reach + num_tiles * TILE, num_tiles * TILE))
    padded[reach : reach + num_time_points, :num_time_points] = band
    tiles = [padded[start : start + 2 * reach + TILE, start : start + TILE] for start in range(0, len(padded[0]), TILE)]
    left, right = thin
    arrays = np.stack(tiles), left, np.vstack([right, whole.sum(axis=0)])
    stacked, left_tensor, right_tensor = (torch.from_numpy(array).float().contiguous() for array in arrays)
    return ThinProduct(stacked, reach, left_tensor, right_tensor)


def _reach(band: NDArray[np.float64]) -> int:
    """How far from the diagonal what is left out adds up to less than the tolerance."""
    time = len(band)
    distance = np.abs(np.subtract.outer(np.arange(time), np.arange(time)))
    most = np.zeros(time)
    np.maximum.at(most, distance.ravel(), np.abs(band).ravel())
    beyond = 2 * (most[::-1].cumsum()[::-1] - most)
    return int(np.argmax(beyond < TOLERANCE))


def _thin(rest: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Two thin matrices (time, rank), (rank, time) whose product is ``rest``; None where it takes too many columns.

    Out of the span of random combinations of its columns (Halko, Martinsson, Tropp 2011, algorithm 4.1).
    """
    random = np.random.default_rng(0)
    for rank in RANKS:
        basis, _ = np.linalg.qr(rest @ random.standard_normal((len(rest), rank)))
        thin = basis, basis.T @ rest
        if np.abs(rest - thin[0] @ thin[1]).sum(axis=0).max() < TOLERANCE:
            return thin
    return None

"""Which patches the encoder sees: random for each record and step, always the same in evaluation."""

import numpy as np
import torch
from torch import Tensor


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Patches that stay visible; at least one does, and at least one is masked."""
    return min(num_patches - 1, max(1, round(num_patches * (1 - mask_ratio))))


def visible_of(noise: Tensor, mask_ratio: float) -> Tensor:
    """``noise`` (batch, patch) -> the places (batch, kept), ascending, of the patches with the least of it."""
    kept = num_visible(noise.shape[1], mask_ratio)
    return noise.argsort(dim=1)[:, :kept].sort(dim=1).values


def masked(visible: Tensor, num_patches: int) -> Tensor:
    """(batch, patch) bool: True where the encoder did not look."""
    everything = torch.ones(len(visible), num_patches, dtype=torch.bool, device=visible.device)
    return everything.scatter(1, visible, False)


def step_noise(num_global: int, rows: slice, num_patches: int, seed: int) -> Tensor:
    """Of one process's ``rows`` of a global batch, drawn for all of it: the same on any number of processes."""
    return torch.rand(num_global, num_patches, generator=torch.Generator().manual_seed(seed))[rows]


def record_noise(index: Tensor, num_patches: int, seed: int) -> Tensor:
    """(batch, patch) of each record's place in the data set: the same in every evaluation."""
    rows = [np.random.default_rng((seed, place)).random(num_patches) for place in index.tolist()]
    return torch.from_numpy(np.stack(rows)).float()

"""Stochastic depth (the method, 1 of 2): residual branches dropped per record, at rates that grow with depth.

Source: Huang et al., ECCV 2016 (arXiv 1603.09382); rate over depth as there, per record and scaled in training as in
DeiT and MAE.
Differs: the coins of a step can be drawn for the whole global batch at once (`draw_coins`), so that they depend on
(seed, step) and the record's place in the batch alone: the same on any number of processes, and after a resume.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

OverDepth = Literal["linear", "uniform"]
Mode = Literal["mask", "subset"]


class StochasticDepth(nn.Module):
    """Runs one residual branch, in training dropped for a record with probability ``drop_prob``.

    The caller adds the identity: ``x + drop(x, branch)``. Kept branches are divided by the keep probability, so the
    expectation is that of evaluation, where the branch runs untouched. ``mode="subset"`` computes the branch of the
    kept records only (same coins, same result for networks without batch statistics, less work).
    """

    drop_prob: float
    mode: Mode
    coins: Tensor | None
    kept: Tensor | None

    def __init__(self, block: int, drop_prob: float = 0.0, mode: Mode = "mask") -> None:
        """``block``: index of the residual block over the whole depth, 0 first; two branches of a block share it."""
        super().__init__()
        self.block = block
        self.drop_prob = checked_rate("drop_prob", drop_prob)
        self.mode = _checked_mode(mode)
        self.coins = None  # (batch,) bool, True where the branch is kept; None: drawn here
        self.kept = None  # (kept,) int64, where the coins are True, known without asking the device; None: asked

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` (batch, ...) -> what is added to the identity, shape of ``branch(x)``.

        Raises:
            ValueError: when the coins of this step were drawn for another number of records.
        """
        if not self.training or self.drop_prob == 0.0:
            return branch(x)
        keep = self.coins if self.coins is not None else torch.rand(len(x), device=x.device) >= self.drop_prob
        if len(keep) != len(x):
            raise ValueError(
                f"coins were drawn for {len(keep)} records, the batch holds {len(x)}: draw_coins per batch"
            )
        scale = 0.0 if self.drop_prob == 1.0 else 1.0 / (1.0 - self.drop_prob)
        if self.mode == "subset":
            return self._of_kept(x, branch, keep, scale)
        y = branch(x)
        factor = (keep * scale).to(y.dtype).view(-1, *[1] * (y.ndim - 1))
        return y * factor

    def _of_kept(self, x: Tensor, branch: Callable[[Tensor], Tensor], keep: Tensor, scale: float) -> Tensor:
        if self.kept is None or torch.compiler.is_compiling():  # traced, places leave their number open
            kept = keep.nonzero().squeeze(1)
        elif len(self.kept) == len(x):
            return branch(x) * scale
        else:
            kept = self.kept
        y = branch(x[kept])
        return y.new_zeros(len(x), *y.shape[1:]).index_copy_(0, kept, y * scale)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"block={self.block}, drop_prob={self.drop_prob:g}, mode={self.mode}"


def branches(model: nn.Module) -> list[StochasticDepth]:
    """All stochastic-depth modules of ``model``, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, StochasticDepth)]


def drop_path_rates(rate: float, num_blocks: int, over_depth: OverDepth = "linear") -> list[float]:
    """One drop probability per block: ``linear`` from 0 at the first to ``rate`` at the last block, or ``uniform``."""
    checked_rate("drop_path_rate", rate)
    if over_depth not in ("linear", "uniform"):
        raise ValueError(f"over_depth is {over_depth!r}, known are 'linear' and 'uniform'")
    if over_depth == "uniform" or num_blocks == 1:
        return [rate] * num_blocks
    return [rate * block / (num_blocks - 1) for block in range(num_blocks)]


def set_drop_path(model: nn.Module, rate: float, over_depth: OverDepth = "linear", mode: Mode = "mask") -> None:
    """Sets the drop probability of every branch of ``model``; ``rate=0`` turns stochastic depth off.

    Raises:
        ValueError: when the rate is outside 0..1, or above 0 while the model has no branch to drop.
    """
    drops = branches(model)
    rates = drop_path_rates(rate, 1 + max((drop.block for drop in drops), default=0), over_depth)
    if rate > 0 and not drops:
        raise ValueError(
            f"drop_path_rate is {rate:g}, but {type(model).__name__} has no StochasticDepth module: "
            "pass its residual branches through one, or set post_training.drop_path_rate=0"
        )
    for drop in drops:
        drop.drop_prob, drop.mode = rates[drop.block], _checked_mode(mode)


def draw_coins(
    model: nn.Module | Sequence[StochasticDepth],
    num_records: int,
    rows: slice,
    generator: torch.Generator,
    device: torch.device,
) -> None:
    """Draws the coins of one step for a global batch of ``num_records`` and keeps those of this process's ``rows``.

    ``model``, or its `branches` where they are known: to find them takes longer than to draw.
    """
    drops = branches(model) if isinstance(model, nn.Module) else model
    rates = torch.tensor([drop.drop_prob for drop in drops]).unsqueeze(1)
    coins = torch.rand(len(drops), num_records, generator=generator)[:, rows] >= rates
    for drop, own in zip(drops, _sent(coins, device).unbind(), strict=True):
        drop.coins = own
    if any(drop.mode == "subset" for drop in drops):
        places = _sent(coins.nonzero()[:, 1], device)
        for drop, kept in zip(drops, torch.split(places, coins.sum(dim=1).tolist()), strict=True):
            drop.kept = kept


def forget_coins(model: nn.Module | Sequence[StochasticDepth]) -> None:
    """Lets every branch draw its own coins again; ``model`` as in `draw_coins`."""
    for drop in branches(model) if isinstance(model, nn.Module) else model:
        drop.coins = None
        if drop.kept is not None:  # each assignment to a module costs microseconds
            drop.kept = None


def checked_rate(name: str, rate: float) -> float:
    """``rate`` as a float, refused outside 0..1."""
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name} is {rate}, it must lie in 0..1 (0 turns stochastic depth off)")
    return float(rate)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device that the host does not wait for: from pinned memory, which plain pages would not allow."""
    pinned = tensor.contiguous().pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def _checked_mode(mode: Mode) -> Mode:
    if mode not in ("mask", "subset"):
        raise ValueError(f"mode is {mode!r}, known are 'mask' and 'subset'")
    return mode

"""Where a training run stands: the epoch and batch that come next, and whether it moves at all."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Position(NamedTuple):
    """The batch that is trained next: ``epoch`` and ``batch`` count from 0."""

    epoch: int
    batch: int


def next_position(fit_loop_state: Mapping[str, Any]) -> Position:
    """Position behind a checkpoint, from ``checkpoint["loops"]["fit_loop"]`` or ``trainer.fit_loop.state_dict()``.

    An epoch counts as started when its first batch is about to be read, as processed when its last has been, or when
    a limit of the trainer (max_steps, max_time) cut it short.
    """
    epochs = fit_loop_state["epoch_progress"]["current"]
    batches = fit_loop_state["epoch_loop.batch_progress"]
    if epochs["processed"] == epochs["started"]:
        if batches["current"]["ready"] and not batches["is_last_batch"]:
            return Position(epochs["processed"] - 1, batches["current"]["ready"])
        return Position(epochs["processed"], 0)
    if batches["is_last_batch"]:
        return Position(epochs["processed"] + 1, 0)
    return Position(epochs["processed"], batches["current"]["ready"])


_passed = 0


def pass_point() -> None:
    """Called wherever the training moves on: what hangs passes no point."""
    global _passed
    _passed += 1


def passed() -> int:
    """Points passed by this process, in training and whatever takes long beside it."""
    return _passed

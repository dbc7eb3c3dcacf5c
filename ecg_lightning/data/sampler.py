"""Which records make up which batch: a function of (seed, epoch), the same on any number of processes."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """One process's part of a global batch, as it travels to a loader's worker."""

    rows: Rows
    """Places of the records in the store."""
    epoch: int
    first: int
    """Place of the part in the global batch."""
    num_global: int


class TrainingBatches:
    """Global batches of ``batch_size`` records in an order keyed by (seed, epoch), this process's part of each.

    Lightning calls `set_epoch` before it makes an epoch's iterator, except for the first one of a fit: that one starts
    at the position that the data module's state brought back. ``len`` counts the whole epoch's batches at all times.
    """

    def __init__(self, rows: Rows, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0
        rest = len(rows) % batch_size
        self.dropped = rest if rest < world_size else 0
        if self.dropped:
            log.warning(
                "the last batch of an epoch would hold %d record(s) for %d processes: left out", rest, world_size
            )

    @property
    def sampler(self) -> "TrainingBatches":
        """Lightning looks for ``batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch; to stay in the epoch that was resumed keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return -(-(len(self.rows) - self.dropped) // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        order = self.rows[np.random.default_rng((self.seed, self.epoch)).permutation(len(self.rows))]
        start, epoch = self.start, self.epoch
        for batch in range(start, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            first, end = (len(rows) * rank // self.world_size for rank in (self.rank, self.rank + 1))
            yield Request(rows[first:end], epoch, first, len(rows))


class EvaluationBatches:
    """Each record exactly once, in order, dealt out to the processes in turn: no padding, no record twice."""

    def __init__(self, rows: Rows, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.rows = rows[rank::world_size]
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        for start in range(0, len(self.rows), self.batch_size):
            rows = self.rows[start : start + self.batch_size]
            yield Request(rows, 0, 0, len(rows))


class FixedChunks:
    """Chunks of a fixed size in a fixed order, dealt out to the processes: a chunk is the same whoever computes it."""

    def __init__(self, rows: Rows, chunk_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        chunks = [rows[start : start + chunk_size] for start in range(0, len(rows), chunk_size)]
        self.chunks = chunks[rank::world_size]

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[Request]:
        for rows in self.chunks:
            yield Request(rows, 0, 0, len(rows))

"""Which records make up which batch: a function of (seed, epoch), the same on any number of processes.

Rows come in pieces, so that an epoch over millions of records is never held in memory as a whole: whole blocks of a
store are read in a random order, and the records of some blocks at a time are mixed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
SHUFFLE_RECORDS = 65_536


class RecordBlocks(Protocol):
    """Records in blocks: how many each holds, and which."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Records in each block."""
        ...

    def rows(self, numbers: Iterable[int]) -> Rows:
        """Places of the records in these blocks, in order."""
        ...


class Order(Protocol):
    """The records of an epoch in the order of training."""

    def __len__(self) -> int: ...

    def pieces(self, *key: int, skip: int = 0) -> Iterator[Rows]:
        """Stretch by stretch, the first ``skip`` records left out; keyed by (seed, epoch)."""
        ...


@dataclass(frozen=True)
class Request:
    """One process's part of a global batch, as a loader asks for it."""

    rows: Rows
    """Places of the records in the data set."""
    epoch: int
    first: int
    """Place of the part in the global batch."""
    num_global: int
    counts: bool = True
    """False where a short batch has no record for a process: it gets the first one, as one without a known label."""


class Shuffled:
    """Each record once: blocks in a random order, ``shuffle_records`` or a few more mixed at a time.

    Up to that many records in all, every order of them is as likely as any other.
    """

    def __init__(self, blocks: RecordBlocks, shuffle_records: int = SHUFFLE_RECORDS) -> None:
        self.blocks, self.shuffle_records = blocks, shuffle_records

    def __len__(self) -> int:
        return int(self.blocks.counts.sum())

    def pieces(self, *key: int, skip: int = 0) -> Iterator[Rows]:
        """The records, group of blocks by group of blocks."""
        if len(self) <= self.shuffle_records:
            rows = self.blocks.rows(np.flatnonzero(self.blocks.counts).tolist())
            yield rows[np.random.default_rng(key).permutation(len(rows))][skip:]
            return
        for group, numbers in enumerate(self._groups(*key)):
            size = int(self.blocks.counts[numbers].sum())
            if skip < size:  # what lies behind the checkpoint is not even read
                rows = self.blocks.rows(numbers.tolist())
                yield rows[np.random.default_rng((*key, 0, group + 1)).permutation(size)][skip:]
            skip = max(0, skip - size)

    def _groups(self, *key: int) -> list[NDArray[np.int64]]:
        """Numbers of the blocks that are mixed with one another."""
        counts = self.blocks.counts
        numbers = np.flatnonzero(counts)
        numbers = numbers[np.random.default_rng(key).permutation(len(numbers))]
        group = (np.cumsum(counts[numbers]) - counts[numbers]) // self.shuffle_records
        return [np.sort(part) for part in np.split(numbers, np.flatnonzero(np.diff(group)) + 1)]


class Weighted:
    """As many records as all orders hold together, each order's share given by its weight.

    An order with more than its share is used in part, another part in every epoch; one with less begins anew.
    """

    def __init__(
        self, orders: Sequence[Order], weights: Sequence[float], shuffle_records: int = SHUFFLE_RECORDS
    ) -> None:
        self.orders, self.shuffle_records = orders, shuffle_records
        self.shares = np.asarray(weights, float) / sum(weights)

    def __len__(self) -> int:
        return sum(map(len, self.orders))

    def pieces(self, *key: int, skip: int = 0) -> Iterator[Rows]:
        """Stretches of ``shuffle_records``, each with its sources in the given shares."""
        streams = [_Endless(order, *key, 2 + number) for number, order in enumerate(self.orders)]
        for stretch, start in enumerate(range(0, len(self), self.shuffle_records)):
            size = min(self.shuffle_records, len(self) - start)
            rows = np.concatenate([s.take(n) for s, n in zip(streams, self._quota(size), strict=True)])
            yield rows[np.random.default_rng((*key, 1, stretch + 1)).permutation(size)][skip:]
            skip = max(0, skip - size)

    def _quota(self, size: int) -> list[int]:
        """Whole numbers in the shares' proportion, the largest remainders rounded up."""
        exact = self.shares * size
        quota = np.floor(exact).astype(int)
        quota[np.argsort(quota - exact, kind="stable")[: size - quota.sum()]] += 1
        return [int(n) for n in quota]


class _Endless:
    """An order's records, begun anew in another order whenever they end."""

    def __init__(self, order: Order, *key: int) -> None:
        self.pieces = (piece for cycle in count(1) for piece in order.pieces(*key, cycle))
        self.rest: Rows = np.zeros(0, np.int64)

    def take(self, number: int) -> Rows:
        while len(self.rest) < number:
            self.rest = np.concatenate([self.rest, next(self.pieces)])
        taken, self.rest = self.rest[:number], self.rest[number:]
        return taken


class TrainingBatches:
    """Global batches of ``batch_size`` records in the order of (seed, epoch), this process's part of each.

    Lightning calls `set_epoch` before it makes an epoch's iterator, except for the first one of a fit: that one starts
    at the position that the data module's state brought back. ``len`` counts the whole epoch's batches at all times.
    """

    def __init__(self, order: Order, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.order, self.batch_size, self.seed = order, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0

    @property
    def sampler(self) -> "TrainingBatches":
        """Lightning looks for ``batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch; to stay in the epoch that was resumed keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        epoch, start = self.epoch, self.start
        pieces = self.order.pieces(self.seed, epoch, skip=start * self.batch_size)
        for rows in islice(_in_batches(pieces, self.batch_size), len(self) - start):
            first, end = (-(-len(rows) * rank // self.world_size) for rank in (self.rank, self.rank + 1))
            if first < end:
                yield Request(rows[first:end], epoch, first, len(rows))
            else:  # without a batch the others would wait for its gradients
                yield Request(rows[:1], epoch, 0, len(rows), counts=False)


class EvaluationBatches:
    """Each record exactly once, in order, dealt out to the processes in turn: no padding, no record twice."""

    def __init__(self, blocks: RecordBlocks, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.blocks, self.batch_size = blocks, batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        mine = -(-(int(self.blocks.counts.sum()) - self.rank) // self.world_size)
        return -(-mine // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        for rows in _in_batches(self._dealt(), self.batch_size):
            yield Request(rows, 0, 0, len(rows))

    def _dealt(self) -> Iterator[Rows]:
        before = 0
        for number in np.flatnonzero(self.blocks.counts).tolist():
            rows = self.blocks.rows([number])
            yield rows[(self.rank - before) % self.world_size :: self.world_size]
            before += len(rows)


class FixedChunks:
    """Chunks of a fixed size in a fixed order, dealt out to the processes: a chunk is the same whoever computes it.

    Each comes once for every epoch below ``epochs``, one behind the other, so that its records are read once.
    """

    def __init__(self, rows: Rows, chunk_size: int, *, epochs: int = 1, rank: int = 0, world_size: int = 1) -> None:
        chunks = [rows[start : start + chunk_size] for start in range(0, len(rows), chunk_size)]
        self.chunks, self.epochs = chunks[rank::world_size], epochs

    def __len__(self) -> int:
        return len(self.chunks) * self.epochs

    def __iter__(self) -> Iterator[Request]:
        for rows in self.chunks:
            for epoch in range(self.epochs):
                yield Request(rows, epoch, 0, len(rows))


def _in_batches(pieces: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same rows in batches of ``size``, the last one what is left."""
    rest: Rows = np.zeros(0, np.int64)
    for piece in pieces:
        rest = np.concatenate([rest, piece]) if len(rest) else piece
        whole = len(rest) // size * size
        yield from (rest[start : start + size] for start in range(0, whole, size))
        rest = rest[whole:]
    if len(rest):
        yield rest

"""Many stores as one data set: the records of all, in order, behind the reading that one store offers."""

import glob
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, joined
from ecg_lightning.signals import SignalSpec

Rows = NDArray[np.int64]
"""Places of records in the whole set."""


class BlockPlace(NamedTuple):
    """A block of records of one of the stores, and the place of its first record in the whole set."""

    store: int
    start: int
    stop: int
    first: int


class StoreSet:
    """One or more stores, read as one: a record's place counts through them in order.

    Args:
        store: a file, a glob (its files sorted by name), or a list of either. An entry of the list is a *source*: the
            unit that is weighed, and within which a patient is the same person.

    Attributes:
        stores: all of them, in order.
        source_of_store: which entry each one came from.
        num_sources: entries.
        num_records: of all together.

    Raises:
        InputError: where a glob matches nothing, a file is named twice, or stores differ in what they hold.
    """

    def __init__(self, store: str | Path | Sequence[str | Path]) -> None:
        entries = [store] if isinstance(store, (str, Path)) else list(store)
        paths = [_files(str(entry)) for entry in entries]
        flat = [path for found in paths for path in found]
        _refuse_twice(flat)
        self.stores = tuple(Store(path) for path in flat)
        self.source_of_store = tuple(source for source, found in enumerate(paths) for _ in found)
        self.num_sources = len(entries)
        _refuse_differing(self.stores)
        self._first = np.cumsum([0, *(one.num_records for one in self.stores)])
        self.num_records = int(self._first[-1])
        self.stored = self.stores[0].stored
        self.statements = self.stores[0].statements

    @cached_property
    def name(self) -> str:
        """The file, or the first of so many."""
        more = f" and {len(self.stores) - 1} more" if len(self.stores) > 1 else ""
        return f"{self.stores[0].path}{more}"

    @cached_property
    def sha256(self) -> str:
        """The hash of the one store, or one over the hashes of all in order."""
        hashes = [str(one.attributes["sha256"]) for one in self.stores]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    @property
    def paths(self) -> list[str]:
        """Of all stores, in order."""
        return [str(one.path) for one in self.stores]

    @property
    def folds(self) -> list[int]:
        """The values of strat_fold that occur in any store."""
        return sorted({fold for one in self.stores for fold in one.folds})

    @cached_property
    def blocks(self) -> tuple[BlockPlace, ...]:
        """All blocks of all stores, in order."""
        return tuple(
            BlockPlace(number, start, stop, int(self._first[number]) + start)
            for number, one in enumerate(self.stores)
            for start, stop in one.blocks
        )

    @cached_property
    def block_firsts(self) -> NDArray[np.int64]:
        """Place of the first record of each block."""
        return np.array([block.first for block in self.blocks])

    def store_of(self, rows: Rows) -> tuple[NDArray[np.int64], Rows]:
        """Which store each record lies in, and its place there."""
        if len(self.stores) == 1:
            return np.zeros(len(rows), np.int64), rows
        number = np.searchsorted(self._first, rows, side="right") - 1
        return number, rows - self._first[number]

    def take(self, name: str, rows: Rows) -> NDArray[Any]:
        """The values of a column at these places, read block by block."""
        block_of_row = np.searchsorted(self.block_firsts, rows, side="right") - 1
        parts, places = [], []
        for number in np.unique(block_of_row):
            block, here = self.blocks[number], np.flatnonzero(block_of_row == number)
            column = self.stores[block.store].column(name, block.start, block.stop)
            parts.append(column[rows[here] - block.first])
            places.append(here)
        values = np.concatenate(parts)
        taken = np.empty_like(values)
        taken[np.concatenate(places)] = values
        return taken

    def patients(self, block: BlockPlace) -> NDArray[np.int64]:
        """Patients of a block, told apart between sources: each numbers its own."""
        ids = self.stores[block.store].column("patient_id", block.start, block.stop).astype(np.int64)
        return ids + (self.source_of_store[block.store] << 40)

    def check_fits(self, signal: SignalSpec, backbone: str) -> None:
        """Refuses stores that cannot feed the network called ``backbone``, which takes ``signal``.

        Raises:
            InputError: with each reason once, and the `prepare` command that makes the right store.
        """
        misfits = [*dict.fromkeys(reason for one in self.stores for reason in signal.misfits(one.stored))]
        if misfits:
            raise InputError(
                f"{self.name} does not fit {backbone}: {'; '.join(misfits)}. Make the right one: "
                f"ecg-lightning prepare --source PTBXL_DIR --output STORE --backbone {backbone}"
                " (with --sizes, where its signal is not that of its defaults)"
            )


def _files(entry: str) -> list[Path]:
    if not glob.has_magic(entry) or Path(entry).exists():
        return [Path(entry)]
    found = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207 - absolute patterns too
    if not found:
        raise InputError(f"data.store {entry} matches no file: name stores that `ecg-lightning prepare` wrote")
    return [Path(path) for path in found]


def _refuse_twice(paths: Sequence[Path]) -> None:
    if not paths:
        raise InputError("data.store is an empty list: name one store or more")
    resolved = [path.resolve() for path in paths]
    if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
        raise InputError(f"data.store names {joined(twice)} more than once: take it out, or weigh it by data.weights")


def _refuse_differing(stores: Sequence[Store]) -> None:
    """A batch has one shape: one rate, chain and length."""
    first = stores[0]
    problems = []
    for one in stores[1:]:
        for what in ("record_rate", "num_time_points", "chain"):
            got, rule = getattr(one.stored, what), getattr(first.stored, what)
            if got != rule:
                problems.append(f"{one.path} has {what} {got or 'none'}, {first.path} {rule or 'none'}")
    if problems:
        raise InputError(
            f"stores of one data set hold one signal: {joined(problems)}; prepare them for the same backbone and length"
        )

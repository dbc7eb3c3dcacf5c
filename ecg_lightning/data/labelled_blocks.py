"""A task's labels, a block of records at a time: never all of them, unless all are asked for."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import class_names, labelled, task_labels
from ecg_lightning.data.store_set import BlockPlace, Rows, StoreSet
from ecg_lightning.errors import InputError

_BLOCKS_IN_MEMORY = 64
"""Of labels and ids: 262,144 records, 20 MB for 71 labels."""


@dataclass(frozen=True, eq=False)
class LabelledBlock:
    """Ids, folds and labels of the records of one block: (record,), (record,), (record, label)."""

    ecg_id: NDArray[np.int64]
    fold: NDArray[np.int64]
    labels: NDArray[np.uint8]
    labelled: NDArray[np.bool_]
    """Whether a record carries a label of the task."""


class TaskLabels:
    """The labels of one task for all records of a store set, derived when a block is first asked for, by any thread.

    Attributes:
        names: the labels in order.

    Raises:
        InputError: where the stores do not give the task the same labels.
    """

    def __init__(self, stores: StoreSet, task: str, min_likelihood: float = 0.0) -> None:
        self.stores, self.task, self.min_likelihood = stores, task, min_likelihood
        self.names = class_names(stores.statements, task)
        _refuse_other_labels(stores, task, self.names)
        self._forget()
        self[0]  # a min_likelihood that cannot be is told now

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, LabelledBlock] = OrderedDict()
        self._whole: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None
        if len(self.stores.blocks) <= _BLOCKS_IN_MEMORY:  # of which all are kept: side by side, to be looked up at once
            number = self.stores.num_records
            self._whole = np.empty(number, np.int64), np.empty((number, len(self.names)), np.uint8)

    def __getitem__(self, number: int) -> LabelledBlock:
        """One block; the last ones used stay in memory."""
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
            else:
                self._blocks[number] = self._read(self.stores.blocks[number])
                if len(self._blocks) > _BLOCKS_IN_MEMORY:
                    self._blocks.popitem(last=False)
            return self._blocks[number]

    def _read(self, place: BlockPlace) -> LabelledBlock:
        store = self.stores.stores[place.store]
        likelihood, ecg_id, fold = (
            store.column(name, place.start, place.stop) for name in ("likelihood", "ecg_id", "strat_fold")
        )
        ids = ecg_id.astype(np.int64)
        labels = task_labels(likelihood, store.statements, self.task, self.min_likelihood)
        if self._whole is not None:
            here = slice(place.first, place.first + len(ids))
            self._whole[0][here], self._whole[1][here] = ids, labels
            ids, labels = self._whole[0][here], self._whole[1][here]
        return LabelledBlock(ids, fold.astype(np.int64), labels, labelled(labels, store.statements, self.task))

    def of(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """ecg_id (record,) and labels (record, label) of the records at these places."""
        if self._whole is not None:
            if len(self._blocks) < len(self.stores.blocks):
                self._read_blocks_of(rows)
            return self._whole[0][rows], self._whole[1][rows]
        firsts = self.stores.block_firsts
        ecg_id, labels = np.empty(len(rows), np.int64), np.empty((len(rows), len(self.names)), np.uint8)
        numbers = np.searchsorted(firsts, rows, side="right") - 1
        for number in set(numbers.tolist()):
            block, here = self[number], numbers == number
            places = rows[here] - firsts[number]
            ecg_id[here], labels[here] = block.ecg_id[places], block.labels[places]
        return ecg_id, labels

    def _read_blocks_of(self, rows: Rows) -> None:
        for number in np.unique(np.searchsorted(self.stores.block_firsts, rows, side="right") - 1).tolist():
            self[number]

    def __getstate__(self) -> dict[str, object]:
        # Another process derives what it needs.
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_blocks", "_whole")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._forget()


class NoLabels:
    """In the place of a task's labels, where nobody asks for any: a store may have no task, or another one each."""

    task = None
    names = ()
    min_likelihood = 0.0

    def __init__(self, stores: StoreSet) -> None:
        self.stores = stores

    def of(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """ecg_id (record,) and labels (record, 0)."""
        return self.stores.take("ecg_id", rows).astype(np.int64), np.zeros((len(rows), 0), np.uint8)

    def __getitem__(self, number: int) -> LabelledBlock:
        """One block; none of its records is labelled."""
        place = self.stores.blocks[number]
        ecg_id, fold = (
            self.stores.stores[place.store].column(name, place.start, place.stop).astype(np.int64)
            for name in ("ecg_id", "strat_fold")
        )
        return LabelledBlock(ecg_id, fold, np.zeros((len(fold), 0), np.uint8), np.zeros(len(fold), np.bool_))


def _refuse_other_labels(stores: StoreSet, task: str, names: Sequence[str]) -> None:
    for store in stores.stores[1:]:
        theirs = class_names(store.statements, task)
        if tuple(theirs) != tuple(names):
            differing = sorted(set(theirs) ^ set(names))
            raise InputError(
                f"task {task} has other labels in {store.path} than in {stores.stores[0].path} "
                f"({', '.join(differing)}): one data set has one list of labels; choose another --data.task"
            )

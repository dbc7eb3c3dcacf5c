"""The records of the splits, found a block at a time: never all of them, unless all are asked for."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labelled_blocks import NoLabels, TaskLabels
from ecg_lightning.data.store_set import BlockPlace, Rows
from ecg_lightning.errors import InputError, UsageError

Admits = Callable[[BlockPlace], NDArray[np.bool_]]
Folds = Mapping[str, tuple[int, ...]]
"""Of each split, train, val and test, its values of strat_fold."""


class Split:
    """The records of some folds, as many per block as the stores' own index says; the rows are found when needed.

    Args:
        task_labels: of the store set.
        folds: values of strat_fold.
        only_labelled: leave out the records without a label of the task.
        source: one entry of the store set alone, where sources are weighed.
        admits: which records of a block may take part (a fraction of the patients); all by default.
    """

    def __init__(
        self,
        task_labels: TaskLabels | NoLabels,
        folds: Iterable[int],
        only_labelled: bool,
        source: int | None = None,
        *,
        admits: Admits | None = None,
    ) -> None:
        self.task_labels, self.folds, self.only_labelled = task_labels, tuple(folds), only_labelled
        self.source, self.admits = source, admits

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Records of the split in each block of the store set."""
        stores = self.task_labels.stores
        if self.admits is not None or (self.only_labelled and self.task_labels.min_likelihood):
            return np.array([len(self.rows([number])) for number in range(len(stores.blocks))])
        task = self.task_labels.task if self.only_labelled else None
        per_store = [one.num_labelled(task)[:, np.isin(one.folds, self.folds)].sum(axis=1) for one in stores.stores]
        mine = [
            counts * (self.source in (None, source))
            for counts, source in zip(per_store, stores.source_of_store, strict=True)
        ]
        return np.concatenate(mine).astype(np.int64)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def rows(self, numbers: Iterable[int]) -> Rows:
        """Places of the split's records in these blocks, in order."""
        stores = self.task_labels.stores
        found = [stores.blocks[number].first + self._in_block(number) for number in numbers]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def all_rows(self) -> Rows:
        """Places of all records of the split."""
        return self.rows(np.flatnonzero(self.counts).tolist())

    def _in_block(self, number: int) -> NDArray[np.int64]:
        place = self.task_labels.stores.blocks[number]
        if self.source not in (None, self.task_labels.stores.source_of_store[place.store]):
            return np.zeros(0, np.int64)
        block = self.task_labels[number]
        member = np.isin(block.fold, self.folds)
        if self.only_labelled:
            member &= block.labelled
        if self.admits is not None:
            member &= self.admits(place)
        return np.flatnonzero(member)

    def patients(self) -> NDArray[np.int64]:
        """All patients of the split, each once, ascending."""
        stores = self.task_labels.stores
        found = [
            np.unique(stores.patients(stores.blocks[number])[self._in_block(number)])
            for number in np.flatnonzero(self.counts).tolist()
        ]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def fraction_of_patients(split: Split, fraction: float, seed: int) -> Split:
    """The records of a share of a split's patients: the first of one seeded order, so nested; never one in part.

    Where sources are weighed, each gives this share of its own patients.
    """
    stores = split.task_labels.stores
    order = np.random.default_rng(seed).permutation(split.patients())
    kept = np.sort(order[: max(1, round(fraction * len(order)))])

    def admits(block: BlockPlace) -> NDArray[np.bool_]:
        return np.isin(stores.patients(block), kept)

    return Split(split.task_labels, split.folds, split.only_labelled, split.source, admits=admits)


class Splits:
    """The splits of a store set, each found when it is first asked for.

    Args:
        task_labels: of the store set.
        folds: of each split.
        only_labelled: leave out the records without a label of the task.
        train_fraction: share of the training patients that is used.
        seed: of the order in which patients are taken for it.
    """

    def __init__(
        self,
        task_labels: TaskLabels | NoLabels,
        folds: Folds,
        *,
        only_labelled: bool,
        train_fraction: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.task_labels, self.folds, self.only_labelled = task_labels, folds, only_labelled
        self.train_fraction, self.seed = train_fraction, seed
        self._found: dict[tuple[str, int | None], Split] = {}

    def of(self, name: str, source: int | None = None) -> Split:
        """The records of ``train``, ``val`` or ``test``, of one source alone if it is named.

        Raises:
            InputError: when there is none.
            UsageError: where no fold is named for it: a split that nothing asks for may be empty.
        """
        if not self.folds[name]:
            raise UsageError(f"data.{name}_folds is empty: name at least one fold, such as --data.{name}_folds [9]")
        if (name, source) not in self._found:
            found = Split(self.task_labels, self.folds[name], self.only_labelled, source)
            if name == "train" and self.train_fraction < 1:
                found = fraction_of_patients(found, self.train_fraction, self.seed)
            if not len(found):
                self._refuse_empty(name, source)
            self._found[name, source] = found
        return self._found[name, source]

    def _refuse_empty(self, name: str, source: int | None) -> None:
        of = "" if source is None else f" (entry {source + 1} of data.store, which has a weight of its own)"
        stores = self.task_labels.stores
        raise InputError(
            f"no record of {stores.name}{of} lies in {name}_folds {list(self.folds[name])} with a label of task "
            f"{self.task_labels.task}; there are folds {stores.folds}: set --data.{name}_folds"
        )

    def nothing_to_test(self) -> str:
        """In words, where the test folds have no record: a run that has trained cannot choose others any more."""
        folds, stores = self.folds["test"], self.task_labels.stores
        if not folds or self.task_labels.task is None or set(folds) & {*stores.folds}:
            return ""
        return (
            f"no record of {stores.name} lies in test_folds {list(folds)}, so this run cannot be tested on it; there "
            f"are folds {stores.folds}: to test on one, leave it out of training and validation, and name it by "
            "--data.test_folds"
        )

    def told(self, name: str) -> str:
        """A split in words: its records, its folds, how many records of those that judge are left out."""
        found, folds = self.of(name), self.folds[name]
        unlabelled = len(Split(self.task_labels, folds, False)) - len(found)
        note = f", {unlabelled} without a label left out" if name != "train" and unlabelled else ""
        return f"{name}: {len(found)} records of fold(s) {', '.join(map(str, folds))}{note}"


def check_folds(folds: Folds) -> None:
    """Raises UsageError for a fold in two splits."""
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        common = sorted(set(folds[one]) & set(folds[other]))
        if common:
            raise UsageError(
                f"fold(s) {common} are in both data.{one}_folds and data.{other}_folds: a record is used once; "
                f"take them out of one"
            )

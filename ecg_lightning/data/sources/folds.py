"""Folds for sources that bring none: by patient, balanced, and the same whatever the order of the records."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.sources.source import SourceOptions
from ecg_lightning.errors import UsageError

DEFAULT_FOLDS = 10


def make_folds(patients: Sequence[str], num_folds: int, seed: int) -> NDArray[np.int8]:
    """The fold of each record, 1 to ``num_folds``; ``patients`` (record,) names its patient.

    Patients with the most records are dealt out first, among equals in an order drawn from ``seed`` and their names,
    each into the smallest fold: two folds differ by one patient's records at most. A patient is in one fold only.

    Raises:
        UsageError: for fewer patients than folds.
    """
    num_records = Counter(patients)
    if len(num_records) < num_folds:
        raise UsageError(
            f"{num_folds} folds are to be made of {len(num_records)} patient(s), and a patient is in one fold only: "
            f"set --folds to {len(num_records)} or less, or put all records into one with --fold 10"
        )
    sizes = [(0, fold) for fold in range(1, num_folds + 1)]
    heapify(sizes)
    fold_of: dict[str, int] = {}
    for patient in sorted(num_records, key=lambda name: (-num_records[name], _draw(seed, name))):
        size, fold_of[patient] = sizes[0]
        heapreplace(sizes, (size + num_records[patient], fold_of[patient]))
    return np.array([fold_of[patient] for patient in patients], np.int8)


def chosen_folds(patients: Sequence[str], options: SourceOptions) -> tuple[NDArray[np.int8], str]:
    """Folds (record,) as ``options`` ask for, and a sentence on them."""
    if options.fold is not None:
        return np.full(len(patients), options.fold, np.int8), f"all records are in fold {options.fold}"
    number = options.folds or DEFAULT_FOLDS
    folds = make_folds(patients, number, options.seed)
    note = f"folds 1 to {number} made by patient, seed {options.seed}"
    if number != DEFAULT_FOLDS:
        note += "; `fit` takes 1-8 to train, 9 and 10 to validate and test: set --data.train_folds and the others"
    return folds, note


def _draw(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{patient}".encode()).digest()

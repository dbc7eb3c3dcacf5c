"""Whether two files may be held against each other: the same records, patients, labels, label values and protocol."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ecg_lightning.errors import InputError, joined
from ecg_lightning.evaluate.predictions import Predictions, record_keys


def aligned(first: Predictions, other: Predictions, names: tuple[str, str]) -> Predictions:
    """``other`` with its records and labels in the order of ``first``.

    Raises:
        InputError: where they are not of the same records, patients, splits, tasks, labels or label values, with both
            sides.
    """
    problems = _differing_sets(
        "labels", first.label_names, other.label_names, names, hint="evaluate models of one task together"
    )
    problems += _differing_sets(
        "records", record_keys(first.record_id, first.store), record_keys(other.record_id, other.store), names
    )
    tasks = first.meta.get("task"), other.meta.get("task")
    if None not in tasks and tasks[0] != tasks[1]:
        problems.insert(0, f"{names[0]} is of task {tasks[0]}, {names[1]} of {tasks[1]}")
    if split := _differing_splits(first, other, names):
        problems.insert(0, split)
    if problems:
        raise InputError(f"{names[0]} and {names[1]} cannot be compared: {joined(problems)}")
    other = _reordered(first, other)
    if problems := _differing_values(first, other, names):
        raise InputError(f"{names[0]} and {names[1]} cannot be compared: {joined(problems)}")
    return other


def _differing_splits(first: Predictions, other: Predictions, names: tuple[str, str]) -> str:
    """A network was chosen on its validation records, and looks better on them than on records that test it."""
    splits = [one.meta.get("split") for one in (first, other)]
    if None in splits or splits[0] == splits[1]:
        return ""
    untested = names[splits.index("val")] if "val" in splits else names[1]
    return (
        f"{names[0]} is of its split {splits[0]}, {names[1]} of {splits[1]}: where {untested} has not been tested, "
        "write it with `ecg-lightning test --run RUN`, or name both predictions/val.npz"
    )


def check_validation(test: Predictions, validation: Predictions, names: tuple[str, str]) -> Predictions:
    """``validation`` with its labels in the order of ``test``.

    Raises:
        InputError: where it is of other labels or another checkpoint, or shares records with ``test``.
    """
    problems = _differing_sets("labels", test.label_names, validation.label_names, names)
    hashes = [str(one.meta.get("checkpoint_sha256", "")) for one in (test, validation)]
    if all(hashes) and hashes[0] != hashes[1]:
        problems.append(
            f"{names[0]} is of checkpoint {hashes[0][:12]}, {names[1]} of {hashes[1][:12]}: "
            "write both anew with `ecg-lightning validate --run RUN --overwrite` and `ecg-lightning test --run RUN "
            "--overwrite`"
        )
    stores = test.meta.get("store_sha256"), validation.meta.get("store_sha256")
    both = set(record_keys(test.record_id, test.store)) & set(record_keys(validation.record_id, validation.store))
    if both and (None in stores or stores[0] == stores[1]):
        problems.append(
            f"{len(both)} record(s) are in both, such as {_shown(both)}: nothing is chosen on records that are judged"
        )
    if problems:
        raise InputError(f"{names[1]} cannot be the validation of {names[0]}: {joined(problems)}")
    columns = [validation.label_names.index(name) for name in test.label_names]
    return replace(
        validation,
        probabilities=validation.probabilities[:, columns],
        labels=validation.labels[:, columns],
        label_names=test.label_names,
    )


def _differing_sets(
    what: str, first: Iterable[Any], other: Iterable[Any], names: tuple[str, str], hint: str = ""
) -> list[str]:
    left, right = set(first), set(other)
    if left == right:
        return []
    alone = [f"{len(more)} only in {name} ({_shown(more)})" for name, more in
             zip(names, (left - right, right - left), strict=True) if more]  # fmt: skip
    return [f"{what} differ: {len(left)} and {len(right)}, {', '.join(alone)}{hint and f'; {hint}'}"]


def _shown(some: Iterable[Any], limit: int = 3) -> str:
    listed = sorted(map(str, some))
    return ", ".join(listed[:limit]) + (", ..." if len(listed) > limit else "")


def _reordered(first: Predictions, other: Predictions) -> Predictions:
    place = {key: row for row, key in enumerate(record_keys(other.record_id, other.store))}
    rows = [place[key] for key in record_keys(first.record_id, first.store)]
    columns = [other.label_names.index(name) for name in first.label_names]
    return replace(
        other,
        record_id=other.record_id[rows],
        patient_id=other.patient_id[rows],
        fold=other.fold[rows],
        probabilities=other.probabilities[rows][:, columns],
        labels=other.labels[rows][:, columns],
        label_names=first.label_names,
        store=first.store,
    )


def _differing_values(first: Predictions, other: Predictions, names: tuple[str, str]) -> list[str]:
    problems = []
    cells = np.argwhere(first.labels != other.labels)
    if len(cells):
        row, column = cells[0]
        values = " and ".join(str(one.labels[row, column]) for one in (first, other))
        problems.append(
            f"label values differ in {len(cells)} cell(s), such as {first.label_names[column]} of record "
            f"{first.record_id[row]}: {values}"
        )
    patients = np.flatnonzero(first.patient_id != other.patient_id)
    if len(patients):
        row = patients[0]
        problems.append(
            f"patients differ in {len(patients)} record(s), such as record {first.record_id[row]}: "
            f"{first.patient_id[row]} in {names[0]}, {other.patient_id[row]} in {names[1]}"
        )
    return problems

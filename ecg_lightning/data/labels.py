"""The six PTB-XL tasks: from SCP-ECG statements and their likelihoods to labels, and how often each occurs.

A code counts when it is a key of ``scp_codes``, whatever its likelihood, 0 included (Strodthoff et al. 2020): PTB-XL
writes 0 where the likelihood is unknown, which is the case for nearly all rhythm codes.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError, joined

TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
ABSENT = 255
"""Likelihood of a statement that a record does not carry."""
SPLITS = {"train": tuple(range(1, 9)), "validation": (9,), "test": (10,)}
FOLDS = tuple(range(1, 11))

_KINDS = ("diagnostic", "form", "rhythm")
_COLUMNS = (*_KINDS, "diagnostic_class", "diagnostic_subclass")


@dataclass(frozen=True, eq=False)
class Statements:
    """The SCP-ECG statements in the order of ``scp_statements.csv``; every field is (statement,).

    ``subclass`` and ``superclass`` are empty where a statement is not diagnostic.
    """

    codes: tuple[str, ...]
    diagnostic: NDArray[np.bool_]
    form: NDArray[np.bool_]
    rhythm: NDArray[np.bool_]
    subclass: tuple[str, ...]
    superclass: tuple[str, ...]

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """The fields as arrays by name, for the store."""
        return {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_columns(cls, columns: dict[str, NDArray[Any]]) -> "Statements":
        """What `to_columns` gave."""
        names = {name: tuple(map(str, columns[name])) for name in ("codes", "subclass", "superclass")}
        return cls(**names, **{kind: columns[kind].astype(bool) for kind in _KINDS})  # type: ignore[arg-type]


def read_statements(csv_path: str | Path) -> Statements:
    """Reads ``scp_statements.csv``.

    Raises:
        InputError: for a missing file, missing columns, codes given twice, flags other than 1 or empty.
    """
    path = Path(csv_path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, PTB-XL ships it beside ptbxl_database.csv: copy it there, "
            "or fetch PTB-XL from https://physionet.org/content/ptb-xl/1.0.3/"
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        code_column, *columns = reader.fieldnames or [""]
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}: take the file that ships with PTB-XL")
        rows = list(reader)
    codes = [row[code_column].strip() for row in rows]
    problems = [f"code {code} stands twice" for code in sorted({code for code in codes if codes.count(code) > 1})]
    problems += [
        f"{row[code_column]}: column {kind} holds {row[kind]!r}, 1.0 or nothing is known"
        for row in rows
        for kind in _KINDS
        if row[kind] not in ("", "0", "0.0", "1", "1.0")
    ]
    if problems or not codes:
        raise InputError(f"{path}: {joined(problems) or 'it has no rows'}; take the file that ships with PTB-XL")
    return Statements(
        codes=tuple(codes),
        **{kind: np.array([row[kind] in ("1", "1.0") for row in rows]) for kind in _KINDS},
        subclass=tuple(row["diagnostic_subclass"].strip() for row in rows),
        superclass=tuple(row["diagnostic_class"].strip() for row in rows),
    )


def class_names(statements: Statements, task: str) -> tuple[str, ...]:
    """Labels of ``task``, sorted as strings; from the statements, not from the records, which may lack some.

    Raises:
        InputError: for an unknown task.
    """
    return tuple(sorted({name for name in _label_of_statement(statements, task) if name}))


def task_labels(
    likelihood: NDArray[np.uint8], statements: Statements, task: str, min_likelihood: float = 0.0
) -> NDArray[np.uint8]:
    """Labels of ``task``: ``likelihood`` (record, statement), 255 where absent -> 0 or 1, (record, label).

    Statements below ``min_likelihood`` (0 to 100) are left out; at the default 0 every statement counts. A record
    without any label of the task has a row of zeros: the benchmark drops it from that task.

    Raises:
        InputError: for an unknown task, or ``min_likelihood`` outside 0 to 100.
    """
    if not 0 <= min_likelihood <= 100:
        raise InputError(f"min_likelihood is {min_likelihood:g}, it lies from 0 to 100: --data.min_likelihood 0")
    names = class_names(statements, task)
    membership = np.zeros((len(statements.codes), len(names)), np.float32)
    for statement, name in enumerate(_label_of_statement(statements, task)):
        if name:
            membership[statement, names.index(name)] = 1
    present = (likelihood != ABSENT) & (likelihood >= min_likelihood)
    counts: NDArray[np.float32] = present.astype(np.float32) @ membership
    return (counts > 0).astype(np.uint8)


def _label_of_statement(statements: Statements, task: str) -> tuple[str, ...]:
    """The label that each statement gives in ``task``; empty for none."""
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}, known are {', '.join(TASKS)}: --data.task superdiagnostic")
    codes = statements.codes
    names, counts = {
        "all": (codes, np.ones(len(codes), bool)),
        "diagnostic": (codes, statements.diagnostic),
        "subdiagnostic": (statements.subclass, statements.diagnostic),
        "superdiagnostic": (statements.superclass, statements.diagnostic),
        "form": (codes, statements.form),
        "rhythm": (codes, statements.rhythm),
    }[task]
    return tuple(name if counted else "" for name, counted in zip(names, counts, strict=True))


def label_counts(
    likelihood: NDArray[np.uint8],
    statements: Statements,
    strat_fold: NDArray[np.integer[Any]],
    patient_id: NDArray[np.integer[Any]],
) -> dict[str, Any]:
    """Records, patients and labels per fold and split for all six tasks, as plain numbers ready for JSON.

    Takes ``likelihood`` (record, statement), ``strat_fold`` and ``patient_id`` (record,).
    """
    in_fold = np.stack([strat_fold == fold for fold in FOLDS])
    return {
        "records": len(strat_fold),
        "patients": len(np.unique(patient_id)),
        "splits": {split: list(folds) for split, folds in SPLITS.items()},
        "records_per_fold": _per_fold(in_fold.sum(axis=1)),
        "records_per_split": _per_split(in_fold.sum(axis=1)),
        "tasks": {task: _task_counts(likelihood, statements, task, in_fold) for task in TASKS},
    }


def _task_counts(
    likelihood: NDArray[np.uint8], statements: Statements, task: str, in_fold: NDArray[np.bool_]
) -> dict[str, Any]:
    names = class_names(statements, task)
    labels = task_labels(likelihood, statements, task)
    positives = in_fold.astype(np.int64) @ labels.astype(np.int64)  # (fold, label)
    has_label = labels.any(axis=1)
    labelled = (in_fold & has_label).sum(axis=1)
    return {
        "n_classes": len(names),
        "classes": list(names),
        "positives_per_class": dict(zip(names, positives.sum(axis=0).tolist(), strict=True)),
        "positives_per_class_per_fold": {name: _per_fold(positives[:, i]) for i, name in enumerate(names)},
        "positives_per_class_per_split": {name: _per_split(positives[:, i]) for i, name in enumerate(names)},
        "label_assignments": int(positives.sum()),
        "labelled_records": int(has_label.sum()),
        "unlabelled_records": int((~has_label).sum()),
        "labelled_records_per_fold": _per_fold(labelled),
        "labelled_records_per_split": _per_split(labelled),
    }


def _per_fold(counts: NDArray[np.integer[Any]]) -> dict[str, int]:
    return {str(fold): int(count) for fold, count in zip(FOLDS, counts, strict=True)}


def _per_split(counts: NDArray[np.integer[Any]]) -> dict[str, int]:
    return {split: int(sum(counts[fold - 1] for fold in folds)) for split, folds in SPLITS.items()}


@cache
def ptbxl_103_counts() -> dict[str, Any]:
    """The counts of the whole of PTB-XL 1.0.3 as `label_counts` lays them out, with ``csv_sha256`` of its table."""
    text = files("ecg_lightning.data").joinpath("ptbxl_103_counts.json").read_text(encoding="utf-8")
    counts: dict[str, Any] = json.loads(text)
    return counts


def check_whole_ptbxl(counts: dict[str, Any], csv_sha256: str) -> bool:
    """Compares ``counts`` with those of PTB-XL 1.0.3 if this is the whole data set; whether it was.

    The whole data set is known by its number of records or by the hash of its table.

    Raises:
        InputError: where they differ, with both sides.
    """
    expected = ptbxl_103_counts()
    if counts["records"] != expected["records"] and csv_sha256 != expected["csv_sha256"]:
        return False
    keys = [key for key in counts if key in expected]
    if differences := _differences([counts[key] for key in keys], [expected[key] for key in keys], keys):
        raise InputError(
            f"the labels are not those of PTB-XL 1.0.3: {joined(differences)}; fetch ptbxl_database.csv and "
            "scp_statements.csv of version 1.0.3 again from https://physionet.org/content/ptb-xl/1.0.3/"
        )
    return True


def _differences(got: Sequence[Any], expected: Sequence[Any], names: Sequence[str]) -> list[str]:
    differences = []
    for name, ours, theirs in zip(names, got, expected, strict=True):
        if isinstance(ours, dict) and isinstance(theirs, dict):
            keys = sorted({*ours, *theirs})
            under = [f"{name}/{key}" for key in keys]
            differences += _differences([ours.get(k) for k in keys], [theirs.get(k) for k in keys], under)
        elif ours != theirs:
            differences.append(f"{name} is {ours}, in 1.0.3 {theirs}")
    return differences

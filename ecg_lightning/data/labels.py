"""Tasks: from statements and their likelihoods to labels, and how often each occurs; PTB-XL's six among them.

A source states its tasks. In PTB-XL's, a code counts when it is a key of ``scp_codes``, whatever its likelihood, 0
included (Strodthoff et al. 2020): PTB-XL writes 0 where the likelihood is unknown, as for nearly all rhythm codes.
"""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError, UsageError, joined

TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
"""PTB-XL's; a store's own are its `Statements.tasks`."""
ABSENT = 255
"""Likelihood of a statement that a record does not carry."""
UNKNOWN = 254
"""Likelihood of a statement of which nobody says whether a record carries it."""
UNKNOWN_LABEL = 255
"""Label, besides 0 and 1, of which a record's truth is not known: left out of loss and metrics."""
SPLITS = {"train": tuple(range(1, 9)), "validation": (9,), "test": (10,)}
FOLDS = tuple(range(1, 11))

_KINDS = ("diagnostic", "form", "rhythm")
_COLUMNS = (*_KINDS, "diagnostic_class", "diagnostic_subclass")
_TASK_COLUMNS = ("task_names", "task_labels", "task_complete")


@dataclass(frozen=True)
class Task:
    """What a source asks of its records.

    Attributes:
        label_of_statement: (statement,) the label that each statement gives, empty for none.
        complete: whether a record without any label of the task is a known negative of them all, as in the columns of a
            manifest; if not, it was not judged and is left out, as in PTB-XL's tasks.
    """

    label_of_statement: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, eq=False)
class Statements:
    """The statements of a source in its order, and its tasks by name.

    Attributes:
        codes: (statement,) names of the statements.
        tasks: by name, in the order in which they are shown; none where the source has no labels.
        columns: what else the source says of each statement, (statement,) each; PTB-XL: diagnostic, form and rhythm
            (bool), subclass and superclass (text).
    """

    codes: tuple[str, ...]
    tasks: Mapping[str, Task]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def of_ptbxl(self) -> bool:
        """Whether these are PTB-XL's own."""
        return set(_KINDS) <= self.columns.keys()

    def to_columns(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays by name, for the store; of the tasks their names, labels and completeness."""
        labels = [task.label_of_statement for task in self.tasks.values()]
        return {
            "codes": np.array(self.codes, np.str_),
            **self.columns,
            "task_names": np.array([*self.tasks], np.str_),
            "task_labels": np.array(labels, np.str_).reshape(len(self.tasks), len(self.codes)),
            "task_complete": np.array([task.complete for task in self.tasks.values()], np.bool_),
        }

    @classmethod
    def from_columns(cls, columns: Mapping[str, NDArray[Any]]) -> "Statements":
        """What `to_columns` gave."""
        codes = tuple(map(str, columns["codes"]))
        rest = {name: column for name, column in columns.items() if name not in ("codes", *_TASK_COLUMNS)}
        names, labels, complete = (columns[name] for name in _TASK_COLUMNS)
        tasks = {
            str(name): Task(tuple(map(str, row)), bool(whole))
            for name, row, whole in zip(names, labels, complete, strict=True)
        }
        return cls(codes, tasks, rest)


def ptbxl_statements(
    codes: Sequence[str], flags: Mapping[str, NDArray[np.bool_]], subclass: Sequence[str], superclass: Sequence[str]
) -> Statements:
    """PTB-XL's statements and its six tasks, of which a record without a label is left out.

    ``flags`` tells for ``diagnostic``, ``form`` and ``rhythm`` which statements (statement,) are of that kind;
    ``subclass`` and ``superclass`` are empty where a statement is not diagnostic.
    """
    every, diagnostic = np.ones(len(codes), bool), flags["diagnostic"]
    given = {
        "all": (codes, every),
        "diagnostic": (codes, diagnostic),
        "subdiagnostic": (subclass, diagnostic),
        "superdiagnostic": (superclass, diagnostic),
        "form": (codes, flags["form"]),
        "rhythm": (codes, flags["rhythm"]),
    }
    tasks = {
        task: Task(tuple(name if counts else "" for name, counts in zip(*given[task], strict=True)), complete=False)
        for task in TASKS
    }
    texts = {"subclass": np.array(subclass, np.str_), "superclass": np.array(superclass, np.str_)}
    return Statements(tuple(codes), tasks, {**{kind: flags[kind] for kind in _KINDS}, **texts})


def read_statements(csv_path: str | Path) -> Statements:
    """Reads ``scp_statements.csv``.

    Raises:
        InputError: for a missing file, missing columns, codes given twice, flags other than 1 or empty.
    """
    path = Path(csv_path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist, PTB-XL ships it beside ptbxl_database.csv: copy it there, "
            "or fetch PTB-XL with `ecg-lightning download --output DIR` (https://physionet.org/content/ptb-xl/1.0.3/)"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            code_column, *columns = reader.fieldnames or [""]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a csv in UTF-8 ({error}): take the file that ships with PTB-XL") from None
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}: take the file that ships with PTB-XL")
    if cut := [row for row in rows if None in [row[name] for name in (code_column, *_COLUMNS)]]:
        code = cut[0][code_column]
        raise InputError(f"{path}: cells are missing at the end of {code}; take the file that ships with PTB-XL")
    codes = [row[code_column].strip() for row in rows]
    problems = [f"code {code} stands twice" for code, number in sorted(Counter(codes).items()) if number > 1]
    problems += [
        f"{row[code_column]}: column {kind} holds {row[kind]!r}, 1.0 or nothing is known"
        for row in rows
        for kind in _KINDS
        if row[kind] not in ("", "0", "0.0", "1", "1.0")
    ]
    if problems or not codes:
        raise InputError(f"{path}: {joined(problems) or 'it has no rows'}; take the file that ships with PTB-XL")
    return ptbxl_statements(
        codes,
        {kind: np.array([row[kind] in ("1", "1.0") for row in rows]) for kind in _KINDS},
        [row["diagnostic_subclass"].strip() for row in rows],
        [row["diagnostic_class"].strip() for row in rows],
    )


def class_names(statements: Statements, task: str) -> tuple[str, ...]:
    """Labels of ``task``, sorted as strings; from the statements, not from the records, which may lack some.

    Raises:
        UsageError: for an unknown task.
    """
    return tuple(sorted({name for name in _task(statements, task).label_of_statement if name}))


def task_labels(
    likelihood: NDArray[np.uint8], statements: Statements, task: str, min_likelihood: float = 0.0
) -> NDArray[np.uint8]:
    """Labels of ``task``: ``likelihood`` (record, statement), 255 where absent, 254 where unknown -> (record, label).

    A label is 1 if any of its statements is present, 255 (unknown) if none is and any is unknown, 0 otherwise.
    Statements below ``min_likelihood`` (0 to 100) are left out; at the default 0 every statement counts.

    Raises:
        UsageError: for an unknown task.
        InputError: for ``min_likelihood`` outside 0 to 100.
    """
    if not 0 <= min_likelihood <= 100:
        raise InputError(f"min_likelihood is {min_likelihood:g}, it lies from 0 to 100: --data.min_likelihood 0")
    place = {name: column for column, name in enumerate(class_names(statements, task))}
    membership = np.zeros((len(statements.codes), len(place)), np.float32)
    for statement, name in enumerate(_task(statements, task).label_of_statement):
        if name:
            membership[statement, place[name]] = 1
    present = (likelihood <= 100) & (likelihood >= min_likelihood)
    labels: NDArray[np.uint8] = _any_of(present, membership).astype(np.uint8)
    unknown = likelihood == UNKNOWN
    if unknown.any():
        labels[_any_of(unknown, membership) & (labels == 0)] = UNKNOWN_LABEL
    return labels


def _any_of(holds: NDArray[np.bool_], membership: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(record, label): whether ``holds`` (record, statement) for any of a label's statements."""
    counts: NDArray[np.float32] = holds.astype(np.float32) @ membership
    return counts > 0


def labelled(labels: NDArray[np.uint8], statements: Statements, task: str) -> NDArray[np.bool_]:
    """Which records (record,) were judged for ``task``: those that training, validation and test use.

    ``labels`` (record, label) as `task_labels` gives them. In a complete task a record with any known label was judged,
    in an incomplete one a record with any positive: the PTB-XL benchmark drops the others from that task.
    """
    judged = labels != UNKNOWN_LABEL if _task(statements, task).complete else labels == 1
    return np.asarray(judged.any(axis=1))


def _task(statements: Statements, task: str) -> Task:
    if not statements.tasks:
        raise InputError(
            f"no task {task!r}: the store has no labels, so nothing can be fitted or tested on it; make one from a "
            "source with labels, such as a manifest: ecg-lightning prepare --source MANIFEST.csv"
        )
    if task not in statements.tasks:
        example = "superdiagnostic" if "superdiagnostic" in statements.tasks else next(iter(statements.tasks))
        raise UsageError(f"unknown task {task!r}, known are {', '.join(statements.tasks)}: --data.task {example}")
    return statements.tasks[task]


def label_counts(
    likelihood: NDArray[np.uint8],
    statements: Statements,
    strat_fold: NDArray[np.integer[Any]],
    patient_id: NDArray[np.integer[Any]],
) -> dict[str, Any]:
    """Records, patients and labels per fold and split for every task, as plain numbers ready for JSON.

    Takes ``likelihood`` (record, statement), ``strat_fold`` and ``patient_id`` (record,). The folds are those that
    occur, and 1 to 10 for PTB-XL. Unknown labels are counted where a task has some.
    """
    folds = FOLDS if statements.of_ptbxl else tuple(np.unique(strat_fold).tolist())
    in_fold = strat_fold == np.array(folds, strat_fold.dtype)[:, np.newaxis]
    return {
        "records": len(strat_fold),
        "patients": len(np.unique(patient_id)),
        "splits": {split: list(folds) for split, folds in SPLITS.items()},
        "records_per_fold": _per_fold(folds, in_fold.sum(axis=1)),
        "records_per_split": _per_split(folds, in_fold.sum(axis=1)),
        "tasks": {task: _task_counts(likelihood, statements, task, folds, in_fold) for task in statements.tasks},
    }


def _task_counts(
    likelihood: NDArray[np.uint8],
    statements: Statements,
    task: str,
    folds: Sequence[int],
    in_fold: NDArray[np.bool_],
) -> dict[str, Any]:
    names = class_names(statements, task)
    labels = task_labels(likelihood, statements, task)
    positives = in_fold.astype(np.int64) @ (labels == 1).astype(np.int64)  # (fold, label)
    judged = labelled(labels, statements, task)
    per_fold = (in_fold & judged).sum(axis=1)
    counts = {
        "n_classes": len(names),
        "classes": list(names),
        "positives_per_class": dict(zip(names, positives.sum(axis=0).tolist(), strict=True)),
        "positives_per_class_per_fold": {name: _per_fold(folds, positives[:, i]) for i, name in enumerate(names)},
        "positives_per_class_per_split": {name: _per_split(folds, positives[:, i]) for i, name in enumerate(names)},
        "label_assignments": int(positives.sum()),
        "labelled_records": int(judged.sum()),
        "unlabelled_records": int((~judged).sum()),
        "labelled_records_per_fold": _per_fold(folds, per_fold),
        "labelled_records_per_split": _per_split(folds, per_fold),
    }
    unknown = (labels == UNKNOWN_LABEL).sum(axis=0)
    return {**counts, "unknown_per_class": dict(zip(names, unknown.tolist(), strict=True))} if unknown.any() else counts


def _per_fold(folds: Sequence[int], counts: NDArray[np.integer[Any]]) -> dict[str, int]:
    return {str(fold): int(count) for fold, count in zip(folds, counts, strict=True)}


def _per_split(folds: Sequence[int], counts: NDArray[np.integer[Any]]) -> dict[str, int]:
    return {
        split: sum(int(count) for fold, count in zip(folds, counts, strict=True) if fold in of_split)
        for split, of_split in SPLITS.items()
    }


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
            "scp_statements.csv of version 1.0.3 again with `ecg-lightning download --output DIR` "
            "(https://physionet.org/content/ptb-xl/1.0.3/)"
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

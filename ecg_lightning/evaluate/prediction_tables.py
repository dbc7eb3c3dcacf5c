"""Predictions as a csv, for whoever has them in a table: one row a record, two columns a label.

Columns ``record_id`` and ``patient_id``, perhaps ``fold``, and for each label ``p:LABEL`` (its probability, 0 to 1) and
``y:LABEL`` (0, 1, or empty where unknown; 255 is read as unknown as well). Other columns are refused, so that no
misspelled label is lost. From two pandas tables whose columns are the label names:

    ids.join(probabilities.add_prefix("p:")).join(labels.add_prefix("y:")).to_csv("predictions.csv", index=False)

where ``ids`` has the columns record_id and patient_id. A set in which every record is another patient says so by
``patient_id`` equal to ``record_id``.
"""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError, joined

_IDS = ("record_id", "patient_id")
_KNOWN = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1, "": 255, "nan": 255, "255": 255, "255.0": 255}


def read_csv(path: Path) -> dict[str, Any]:
    """The content of a csv by the names of `Predictions`; probabilities in float64, as they are written.

    Raises:
        InputError: naming the file, the column and the rule.
    """
    header, rows = _rows(path)
    names = _label_names(path, header)
    problems: list[str] = []
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))

    def cells(column: str, read: Callable[[str], float], rule: str) -> list[float]:
        values = []
        for line, cell in enumerate(columns[column], start=2):
            try:
                values.append(read(cell.strip()))
            except (ValueError, KeyError):
                values.append(0)
                problems.append(f"line {line}, column {column} holds {cell!r}, it must be {rule}")
        return values

    probabilities = [cells(f"p:{name}", float, "a probability from 0 to 1") for name in names]
    labels = [cells(f"y:{name}", _KNOWN.__getitem__, "0, 1, or empty where unknown") for name in names]
    fold = cells("fold", _fold, "a whole number from 0 to 127") if "fold" in header else [0] * len(rows)
    ids = {name: _ids(columns[name]) for name in _IDS}
    problems += [f"column {name} is empty in {sum(not cell for cell in columns[name])} line(s)"
                 for name in _IDS if not all(columns[name])]  # fmt: skip
    if problems:
        raise InputError(f"{path}: {joined(problems, limit=5)}")
    return {
        **ids,
        "fold": np.array(fold, np.int8),
        "probabilities": np.array(probabilities, np.float64).T,
        "labels": np.array(labels, np.uint8).T,
        "label_names": names,
        "meta": {},
    }


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a csv in UTF-8 ({error})") from None
    if not rows:
        raise InputError(f"{path} holds no record: a header and one line a record are needed")
    uneven = [
        f"line {line} has {len(row)} cells, the header {len(header)}"
        for line, row in enumerate(rows, start=2)
        if len(row) != len(header)
    ]
    if uneven:
        raise InputError(f"{path}: {joined(uneven, limit=3)}")
    return [name.strip() for name in header], rows


def _label_names(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """The labels in the order of their ``p:`` columns."""
    names = [column[2:] for column in header if column.startswith("p:")]
    truths = [column[2:] for column in header if column.startswith("y:")]
    with_truth, with_probability = set(truths), set(names)
    known = {*_IDS, "fold", *(f"p:{name}" for name in names), *(f"y:{name}" for name in truths)}
    problems = [f"column {name} is missing" for name in _IDS if name not in header]
    problems += [f"column y:{name} is missing beside p:{name}" for name in names if name not in with_truth]
    problems += [f"column p:{name} is missing beside y:{name}" for name in truths if name not in with_probability]
    problems += [
        f"column {name} is none of record_id, patient_id, fold, p:LABEL, y:LABEL"
        for name in header
        if name not in known
    ]
    problems += [f"column {name} stands twice" for name, number in sorted(Counter(header).items()) if number > 1]
    if not names and not truths:
        problems.append("no label: for each give p:LABEL (probability) and y:LABEL (0, 1, or empty where unknown)")
    if problems:
        raise InputError(f"{path}: {joined(problems, limit=5)}")
    return tuple(names)


def _fold(cell: str) -> int:
    if not 0 <= int(cell) <= 127:
        raise ValueError(cell)
    return int(cell)


def _ids(cells: Sequence[str]) -> NDArray[Any]:
    """Whole numbers where all are such, else text."""
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return np.array([cell.strip() for cell in cells], np.str_)

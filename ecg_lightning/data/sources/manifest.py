"""A manifest: a csv that names records of any format and their labels; every problem in it is named with its line."""

import csv
import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats import Layout
from ecg_lightning.data.labels import ABSENT, UNKNOWN, Statements, Task
from ecg_lightning.data.sources.folds import chosen_folds
from ecg_lightning.data.sources.source import Source, SourceOptions, basic_columns
from ecg_lightning.errors import InputError, UsageError, joined

_LABELS = {"1": 100, "1.0": 100, "true": 100, "0": ABSENT, "0.0": ABSENT, "false": ABSENT, "": UNKNOWN}
_SEXES = {"0": 0, "0.0": 0, "m": 0, "male": 0, "1": 1, "1.0": 1, "f": 1, "female": 1, "": -1}


def _path(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _fold(text: str) -> int:
    if not (fold := float(text)).is_integer() or not 1 <= fold <= 100:
        raise ValueError
    return int(fold)


def _age(text: str) -> float:
    if text and not 0 <= float(text) <= 300:
        raise ValueError
    return float(text) if text else math.nan


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "path": (_path, "the path of a record, from the manifest's folder on"),
    "patient": (str, "text"),
    "fold": (_fold, "a fold from 1 to 100, in every row"),
    "age": (_age, "years from 0 to 300, or empty"),
    "sex": (lambda text: _SEXES[text.lower()], "0, male, 1, female or empty"),
    "record": (str, "text"),
}
_LABEL = (lambda text: _LABELS[text.lower()], "0, 1, true, false, or empty where it is not known")


@dataclass(frozen=True)
class _Rows:
    """The rows that parse: how a message names each, and columns by name."""

    lines: list[str]
    columns: dict[str, list[Any]]


def read_manifest(path: Path, options: SourceOptions) -> Source:
    """Reads a csv with a column ``path``, perhaps ``patient``, ``fold``, ``age``, ``sex`` and ``record``, and labels.

    Paths are relative to the csv. Every other column, or those of ``options.labels``, is a label of the one task: 0, 1,
    or empty where it is not known. Commas, semicolons or tabs divide the columns. Without ``fold``, folds are made.

    Raises:
        InputError: naming all problems at once: columns that are missing or there twice, cells that do not parse, a
            record given twice, a patient in two folds or named in some rows only.
        UsageError: for ``--labels`` that are not there, ``--folds`` beside a column of folds.
    """
    options.refuse("manifest", "codes")
    content = _content(path)
    text = content.decode("utf-8-sig")
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    names = [name.strip() for name in next(reader, [])]
    labels, unused = _label_columns(path, names, options)
    rows, problems = _parse(reader, names, labels)
    problems += _twice(rows, "path") + _twice(rows, "record") + _of_patients(rows)
    if problems or not rows.lines:
        raise InputError(f"{path}: {joined(problems) or 'it has no rows'}; mend the table and run the command again")
    folds, notes = _folds(rows, options)
    if unused:
        notes.append(f"columns that are no labels: {', '.join(unused)}")
    likelihood = np.array([rows.columns[label] for label in labels], np.uint8).T.reshape(len(rows.lines), len(labels))
    notes += _label_notes(likelihood, labels)
    return Source(
        kind="manifest",
        root=path.parent,
        paths=tuple(rows.columns["path"]),
        records=_records(rows, folds),
        likelihood=likelihood,
        statements=_statements(labels, options.task or path.stem),
        attributes={"manifest": path.name, "csv_sha256": hashlib.sha256(content).hexdigest()},
        layout=options.layout or Layout(),
        notes=tuple(notes),
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a manifest with --source") from error
    return content


def _label_columns(path: Path, names: Sequence[str], options: SourceOptions) -> tuple[list[str], list[str]]:
    """Columns that are labels, and columns that mean nothing here."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "path" not in names or "" in names:
        raise InputError(
            f"{path}: columns {', '.join(twice)} stand twice: name each once"
            if twice
            else f"{path} has the columns {', '.join(names) or '(none)'}: "
            + ("give each a name" if "path" in names else "one must be called path, and name the records' files")
        )
    others = [name for name in names if name not in _PARSERS]
    if options.labels is None:
        return others, []
    if missing := [name for name in options.labels if name not in others]:
        raise UsageError(
            f"--labels names {', '.join(missing)}, {path} has {', '.join(others) or 'none besides ' + ', '.join(names)}"
        )
    return list(dict.fromkeys(options.labels)), [name for name in others if name not in options.labels]


def _parse(reader: Iterator[list[str]], names: Sequence[str], labels: Sequence[str]) -> tuple[_Rows, list[str]]:
    """Rows, and what is wrong; rows with a problem are left out."""
    parsers = {name: _PARSERS.get(name, _LABEL) for name in names if name in _PARSERS or name in labels}
    rows = _Rows([], {name: [] for name in parsers})
    problems: list[str] = []
    for cells in reader:
        if not cells:
            continue
        line = f"line {reader.line_num}"  # type: ignore[attr-defined]
        if len(cells) != len(names):
            problems.append(f"{line} has {len(cells)} cells, the first line has {len(names)}")
            continue
        values, wrong = {}, []
        for name, cell in zip(names, cells, strict=True):
            if name not in parsers:
                continue
            parse, rule = parsers[name]
            try:
                values[name] = parse(cell.strip())
            except (ValueError, KeyError, OverflowError):
                wrong.append(f"{line}: {name} is {cell[:60]!r}, it must be {rule}")
        problems += wrong
        if not wrong:
            rows.lines.append(line)
            for name, value in values.items():
                rows.columns[name].append(value)
    return rows, problems


def _twice(rows: _Rows, column: str) -> list[str]:
    first: dict[str, str] = {}
    problems = []
    for value, line in zip(rows.columns.get(column, ()), rows.lines, strict=False):
        if value and value in first:
            problems.append(f"{line}: {column} {value} stands already in {first[value]}")
        first.setdefault(value, line)
    return problems


def _of_patients(rows: _Rows) -> list[str]:
    """Rows without the patient that others name, and patients in two folds."""
    patients, folds = rows.columns.get("patient"), rows.columns.get("fold")
    if patients is None or not any(patients):
        return []
    problems = [
        f"{line}: patient is empty, other rows name theirs: fill it, or leave the column out (each record is then a "
        "patient of its own)"
        for line, patient in zip(rows.lines, patients, strict=True)
        if not patient
    ]
    found = defaultdict(set)
    for patient, fold in zip(patients, folds or (), strict=False):
        found[patient].add(fold)
    return problems + [
        f"patient {patient} is in the folds {', '.join(map(str, sorted(of)))}, one patient belongs to one fold"
        for patient, of in found.items()
        if patient and len(of) > 1
    ]


def _patients(rows: _Rows) -> list[str]:
    """Of each record; its path where the manifest names none."""
    named = rows.columns.get("patient", [])
    return named if any(named) else list(rows.columns["path"])


def _folds(rows: _Rows, options: SourceOptions) -> tuple[NDArray[np.int8], list[str]]:
    notes = [] if any(rows.columns.get("patient", [])) else ["no patients are named: each record counts as one"]
    if "fold" not in rows.columns:
        folds, note = chosen_folds(_patients(rows), options)
        return folds, [*notes, note]
    if options.folds is not None or options.fold is not None:
        raise UsageError("the manifest has a column fold: leave --folds and --fold out, or take the column out")
    return np.array(rows.columns["fold"], np.int8), notes


def _records(rows: _Rows, folds: NDArray[np.int8]) -> dict[str, NDArray[Any]]:
    records = basic_columns(rows.columns["path"], _patients(rows), folds)
    for name, dtype in (("age", np.float32), ("sex", np.int8), ("record", np.str_)):
        if name in rows.columns:
            records[name] = np.array(rows.columns[name], dtype)
    return records


def _statements(labels: Sequence[str], task: str) -> Statements:
    """Each label is a statement; whoever fills in a cell has judged the record, so the task is complete."""
    return Statements(tuple(labels), {task: Task(tuple(labels), complete=True)} if labels else {})


def _label_notes(likelihood: NDArray[np.uint8], labels: Sequence[str]) -> list[str]:
    if not labels:
        return ["no column is a label: the store has no task, `fit` cannot train on it"]
    unknown = (likelihood == UNKNOWN).sum(axis=0)
    return [
        f"label {label} is not known for {number} of {len(likelihood)} records: left out of loss and metrics there"
        for label, number in zip(labels, unknown.tolist(), strict=True)
        if number
    ]

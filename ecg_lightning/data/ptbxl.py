"""Reads PTB-XL's table, `ptbxl_database.csv`: every problem in it is collected and named with its line."""

import ast
import csv
import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import ABSENT, Statements, read_statements
from ecg_lightning.errors import InputError, joined

TABLE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
TEXT_COLUMNS = (
    "baseline_drift",
    "static_noise",
    "burst_noise",
    "electrodes_problems",
    "extra_beats",
    "pacemaker",
)
"""Quality columns as PTB-XL has them: free text on the leads concerned, empty where nothing was noted."""

_FETCH = (
    "mend it, or fetch PTB-XL with `ecg-lightning download --output DIR`, or from "
    "https://physionet.org/content/ptb-xl/1.0.3/"
)


@dataclass(frozen=True, eq=False)
class PtbxlTable:
    """The table's rows in file order.

    Attributes:
        records: columns by name, each (record,); age in years, NaN where empty; sex 0, 1 or -1 where empty.
        likelihood: (record, statement), 0 to 100, 255 where absent.
        statements: what the statements mean.
        filenames: ``filename_lr`` and ``filename_hr``: paths without extension below the source.
        csv_sha256: hash of the table's file.
        statements_sha256: hash of the statements' file.
    """

    records: dict[str, NDArray[Any]]
    likelihood: NDArray[np.uint8]
    statements: Statements
    filenames: dict[str, tuple[str, ...]]
    csv_sha256: str
    statements_sha256: str


def read_table(source: str | Path) -> PtbxlTable:
    """Reads ``ptbxl_database.csv`` and ``scp_statements.csv`` in the folder ``source``.

    Raises:
        InputError: naming all problems at once: files or columns that are missing, values that do not parse, unknown
            codes, an ecg_id given twice, a fold outside 1 to 10, a patient in two folds, likelihoods outside 0 to 100.
    """
    source = Path(source)
    path = source / TABLE
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: name the folder that holds it with --source, or fetch PTB-XL with "
            "`ecg-lightning download --output DIR` (https://physionet.org/content/ptb-xl/1.0.3/)"
        )
    content = path.read_bytes()
    statements = read_statements(source / STATEMENTS)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): {_FETCH}") from None
    try:
        if missing := [name for name in _PARSERS if name not in (reader.fieldnames or ())]:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}: {_FETCH}")
        columns, problems = _parse(reader)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num + 1} does not parse as csv ({error}): {_FETCH}") from None
    likelihood, more = _likelihood(columns.pop("scp_codes"), columns["line"], statements)
    problems += more + _twice(columns) + _patients_in_two_folds(columns)
    if problems or not columns["line"]:
        raise InputError(f"{path}: {joined(problems) or 'it has no rows'}; {_FETCH}")
    return PtbxlTable(
        records={name: np.array(columns[name], dtype) for name, dtype in _DTYPES.items()},
        likelihood=likelihood,
        statements=statements,
        filenames={name: tuple(columns[name]) for name in ("filename_lr", "filename_hr")},
        csv_sha256=hashlib.sha256(content).hexdigest(),
        statements_sha256=hashlib.sha256((source / STATEMENTS).read_bytes()).hexdigest(),
    )


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer() or abs(number) > 2**53:  # beyond it a float is no longer one whole number
        raise ValueError
    return int(number)


def _fold(text: str) -> int:
    if not 1 <= (fold := _whole(text)) <= 10:
        raise ValueError
    return fold


def _age(text: str) -> float:
    if text and not 0 <= float(text) <= 300:
        raise ValueError
    return float(text) if text else math.nan


def _sex(text: str) -> int:
    return {"": -1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}[text]


def _truth(text: str) -> bool:
    return {"True": True, "False": False}[text]


def _codes(text: str) -> dict[str, Any]:
    codes = ast.literal_eval(text)
    if not isinstance(codes, dict):
        raise TypeError
    return codes


def _file(text: str) -> str:
    if not text or "\0" in text or Path(text).is_absolute() or ".." in Path(text).parts:
        raise ValueError
    return text


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "ecg_id": (_whole, "a whole number"),
    "patient_id": (_whole, "a whole number"),
    "strat_fold": (_fold, "a fold from 1 to 10"),
    "age": (_age, "years from 0 to 300 (300: above 89), or empty"),
    "sex": (_sex, "0, 1 or empty"),
    "validated_by_human": (_truth, "True or False"),
    **{name: (str, "text") for name in TEXT_COLUMNS},
    "scp_codes": (_codes, "a dict such as {'NORM': 100.0, 'SR': 0.0}"),
    "filename_lr": (_file, "a path below the source, without extension"),
    "filename_hr": (_file, "a path below the source, without extension"),
}
_DTYPES = {
    "ecg_id": np.int64,
    "patient_id": np.int64,
    "strat_fold": np.int8,
    "age": np.float32,
    "sex": np.int8,
    "validated_by_human": np.bool_,
    **dict.fromkeys(TEXT_COLUMNS, np.str_),
}


def _parse(reader: "csv.DictReader[str]") -> tuple[dict[str, list[Any]], list[str]]:
    """Columns by name, with ``line`` (how a message names the row) beside them; rows with a problem are left out."""
    columns: dict[str, list[Any]] = {name: [] for name in ("line", *_PARSERS)}
    problems: list[str] = []
    for row in reader:
        line = f"line {reader.line_num} (ecg_id {row['ecg_id']})"
        values, wrong = _parse_row(row)
        problems += [f"{line}: {problem}" for problem in wrong]
        if not wrong:
            for name, value in {"line": line, **values}.items():
                columns[name].append(value)
    return columns, problems


def _parse_row(row: Mapping[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    if any(row[name] is None for name in _PARSERS):
        return {}, ["it is cut: cells are missing at its end"]
    values, problems = {}, []
    for name, (parse, rule) in _PARSERS.items():
        text = row[name]
        assert text is not None
        try:
            values[name] = parse(text)
        except (ValueError, TypeError, KeyError, SyntaxError, OverflowError, MemoryError, RecursionError):
            problems.append(f"{name} is {text[:60]!r}, it must be {rule}")
    return values, problems


def _likelihood(
    codes: list[dict[str, Any]], lines: list[str], statements: Statements
) -> tuple[NDArray[np.uint8], list[str]]:
    """Likelihoods (record, statement), and what is wrong with them."""
    place = {code: index for index, code in enumerate(statements.codes)}
    likelihood = np.full((len(codes), len(place)), ABSENT, np.uint8)
    problems = []
    for record, (line, carried) in enumerate(zip(lines, codes, strict=True)):
        for code, value in carried.items():
            if code not in place:
                problems.append(f"{line}: code {code!r} is not in {STATEMENTS}")
            elif not isinstance(value, int | float) or not 0 <= value <= 100 or value != int(value):
                problems.append(f"{line}: likelihood of {code} is {value!r}, it must be a whole number from 0 to 100")
            else:
                likelihood[record, place[code]] = int(value)
    return likelihood, problems


def _twice(columns: dict[str, list[Any]]) -> list[str]:
    first: dict[int, str] = {}
    problems = []
    for ecg_id, line in zip(columns["ecg_id"], columns["line"], strict=True):
        if ecg_id in first:
            problems.append(f"{line}: ecg_id {ecg_id} stands already in {first[ecg_id]}")
        first.setdefault(ecg_id, line)
    return problems


def _patients_in_two_folds(columns: dict[str, list[Any]]) -> list[str]:
    folds = defaultdict(set)
    for patient, fold in zip(columns["patient_id"], columns["strat_fold"], strict=True):
        folds[patient].add(fold)
    return [
        f"patient {patient} is in the folds {', '.join(map(str, sorted(found)))}, one patient belongs to one strat_fold"
        for patient, found in folds.items()
        if len(found) > 1
    ]

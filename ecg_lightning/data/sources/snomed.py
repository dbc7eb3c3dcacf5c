"""SNOMED CT codes, as the PhysioNet/CinC Challenges 2020 and 2021 write them into headers, as statements and tasks.

`snomed.csv` has the 133 codes of the challenge of 2021, with the PTB-XL statement that means the same where there is
one.

Source: code, abbreviation, name and the scored classes from `physionetchallenges/evaluation-2021`
(`dx_mapping_scored.csv`, commit 09de852; `dx_mapping_unscored.csv`, commit e3a9eb4; Reyna et al. 2021). The PTB-XL
statements are ours. The challenge's own conversion of PTB-XL has, within 2 %, the counts of PTB-XL 1.0.3 for 38 of the
42 statements that the table names; the others are LVH, PAC, SR and VCLVH.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import ABSENT, TASKS, UNKNOWN, Statements, Task, read_statements
from ecg_lightning.errors import InputError, joined

_COLUMNS = ("snomed_code", "abbreviation", "name", "scp_code", "scp_one_of")
_CERTAIN = 100


@dataclass(frozen=True)
class Code:
    """One row of the table.

    Attributes:
        name: in words.
        scp_code: the PTB-XL statement that means the same, or contains it; empty where there is none.
        scp_one_of: PTB-XL statements of which the code means one, without telling which.
        labels: the label that the code gives in the table's own tasks, by task.
    """

    name: str
    scp_code: str
    scp_one_of: tuple[str, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class CodeTable:
    """Codes by their SNOMED CT number, the tasks that the table brings, and the hash of its file."""

    codes: Mapping[str, Code]
    tasks: tuple[str, ...]
    sha256: str


@cache
def scp_statements() -> Statements:
    """The 71 statements of PTB-XL and its tasks."""
    with as_file(files("ecg_lightning.data").joinpath("scp_statements.csv")) as path:
        return read_statements(path)


def read_code_table(path: Path | None = None) -> CodeTable:
    """Reads a table of codes; the shipped one by default.

    The column ``snomed_code`` must be there; ``name``, ``scp_code``, ``scp_one_of`` (divided by ``|``) and
    ``abbreviation`` may; every other column is a task, with the label that the code gives in it.

    Raises:
        InputError: naming all problems: a file that cannot be read, no column ``snomed_code``, codes that are no
            number or there twice, statements that PTB-XL does not have.
    """
    try:
        content = path.read_bytes() if path else files("ecg_lightning.data").joinpath("snomed.csv").read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), restval="")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table of codes ({error}): --codes TABLE.csv in UTF-8") from error
    columns = list(reader.fieldnames or ())
    if "snomed_code" not in columns:
        raise InputError(f"{path} has the columns {', '.join(columns)}, one must be snomed_code: --codes TABLE.csv")
    tasks = tuple(name for name in columns if name not in _COLUMNS)
    codes: dict[str, Code] = {}
    problems = [f"column {task} bears the name of a PTB-XL task: call it otherwise" for task in tasks if task in TASKS]
    for row in reader:
        cells = {name: (row[name] or "").strip() for name in columns}
        code = cells["snomed_code"]
        one_of = tuple(filter(None, cells.get("scp_one_of", "").split("|")))
        unknown = sorted({cells.get("scp_code", ""), *one_of} - {"", *scp_statements().codes})
        problems += [f"line {reader.line_num}: PTB-XL has no statement {name}" for name in unknown]
        if not code.isdigit() or code in codes:
            why = "stands twice" if code in codes else "is no number"
            problems.append(f"line {reader.line_num}: snomed_code {code!r} {why}")
        labels = {task: cells[task] for task in tasks}
        codes[code] = Code(cells.get("name", ""), cells.get("scp_code", ""), one_of, labels)
    if problems or not codes:
        raise InputError(f"{path}: {joined(problems) or 'it has no rows'}; mend the table of --codes")
    return CodeTable(codes, tasks, hashlib.sha256(content).hexdigest())


def label_codes(
    carried: Sequence[Sequence[str] | None], table: CodeTable
) -> tuple[NDArray[np.uint8], Statements, list[str]]:
    """Statements and likelihoods (record, statement) of records that carry these codes each, and notes on them.

    ``None`` is a record of which nothing is said: all is unknown. Otherwise a code that a record does not carry is
    absent, as the challenge has it. A PTB-XL statement is present if a code means it, unknown if a code may mean it or
    none in the table could, and absent otherwise. Codes without a row stay statements, of which no task knows.
    """
    counts = Counter(code for codes in carried for code in set(codes or ()))
    foreign = sorted(counts.keys() - table.codes.keys())
    statements = _statements(table, foreign)
    place = {code: column for column, code in enumerate(statements.codes)}
    row = np.full(len(place), ABSENT, np.uint8)
    row[[place[code] for code in scp_statements().codes if code not in _expressed(table)]] = UNKNOWN
    likelihood = np.tile(row, (len(carried), 1))
    for cells, codes in zip(likelihood, carried, strict=True):
        if codes is None:
            cells[:] = UNKNOWN
            continue
        known = [table.codes[code] for code in codes if code in table.codes]
        cells[[place[name] for code in known for name in code.scp_one_of]] = UNKNOWN
        cells[[place[code.scp_code] for code in known if code.scp_code]] = _CERTAIN
        cells[[place[code] for code in codes]] = _CERTAIN
    return likelihood, statements, _notes(carried, counts, foreign)


def _expressed(table: CodeTable) -> set[str]:
    """PTB-XL statements that some code means or may mean."""
    return {name for code in table.codes.values() for name in (code.scp_code, *code.scp_one_of) if name}


def _statements(table: CodeTable, foreign: Sequence[str]) -> Statements:
    """The table's codes, those without a row and PTB-XL's statements; the table's tasks, then PTB-XL's."""
    ptbxl = scp_statements()
    own, num_foreign = [*table.codes.values()], len(foreign)
    tasks = {
        task: Task((*(code.labels[task] for code in own), *[""] * (num_foreign + len(ptbxl.codes))), complete=True)
        for task in table.tasks
    }
    for name, task in ptbxl.tasks.items() if _expressed(table) else ():
        label = dict(zip(ptbxl.codes, task.label_of_statement, strict=True))
        ours = (_common_label(code, label) for code in own)
        tasks[name] = Task((*ours, *[""] * num_foreign, *task.label_of_statement), complete=True)
    names = [*(code.name for code in own), *[""] * (num_foreign + len(ptbxl.codes))]
    return Statements((*table.codes, *foreign, *ptbxl.codes), tasks, {"meaning": np.array(names, np.str_)})


def _common_label(code: Code, label_of: Mapping[str, str]) -> str:
    """The label that all statements give of which the code means one: any infarction is an MI, whichever it is."""
    labels = {label_of[name] for name in code.scp_one_of}
    return labels.pop() if len(labels) == 1 else ""


def _notes(carried: Sequence[Sequence[str] | None], counts: Mapping[str, int], foreign: Sequence[str]) -> list[str]:
    notes = []
    if silent := sum(codes is None for codes in carried):
        notes.append(f"{silent} of {len(carried)} records have no codes (Dx): their labels are unknown")
    if foreign:
        told = ", ".join(f"{code} ({counts[code]} records)" for code in foreign)
        notes.append(f"codes without a row in the table, in no task: {told}; give them one with --codes TABLE.csv")
    return notes

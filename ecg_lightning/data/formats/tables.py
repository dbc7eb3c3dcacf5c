"""CSV files: a lead per column, the leads' names in the first row or in `Layout`, a time column where there is one."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.lead_names import is_lead, lead_name, unit_in
from ecg_lightning.data.formats.recording import Layout, Recording, facts_of_comments, make_recording, read_bytes
from ecg_lightning.data.formats.time_column import COUNTERS, is_time, is_time_unit, rate_of
from ecg_lightning.data.formats.units import MILLIVOLTS, is_voltage, unit_scale
from ecg_lightning.errors import InputError

_DELIMITERS = ("\t", ";", ",")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_EXPORT = "export it again with a column per lead, a row per time point"


def read_csv(path: Path, layout: Layout) -> Recording:
    """Reads a table of one row per time point: a column per lead, and perhaps one of the time.

    Comma, semicolon or tab divide the columns; the decimal mark is a point. Lines at the top that begin with ``#``
    become facts (``# Age: 84``). The first row names the leads; a unit behind a name (``I (uV)``), or in a second row,
    holds for its column. Without such a row ``layout.leads`` names them. The time column checks or gives the rate
    (`rate_of`); a column without name, or called ``sample``, may count the time points.

    Raises:
        InputError: naming the line, for tables that are cut, transposed or ragged, decimal commas, cells that are empty
            or no number, and for what neither the file nor ``layout`` says.
    """
    comments, lines = _split(path, read_bytes(path))
    delimiter = next(mark for mark in _DELIMITERS if mark in lines[0] or mark == ",")
    names, num_above = _head(path, lines, delimiter)
    values = _numbers(path, lines[num_above:], delimiter, len(names), len(comments) + num_above)
    columns, rate = _time(path, names, values, layout)
    leads = _leads(path, [names[column] for column in columns], len(values), layout)
    scales = [_scale(path, names[column], layout) for column in columns]
    ecg = values[:, columns].T * np.array(scales)[:, None]
    return make_recording(path, ecg, rate, leads, facts_of_comments(comments))


def _split(path: Path, content: bytes) -> tuple[list[str], list[str]]:
    """Comments at the top, and the lines below them."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as CSV in UTF-8") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    start = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if not "".join(lines[start:]).strip():
        raise InputError(f"{path} is empty: {_EXPORT}")
    return lines[:start], lines[start:]


def _cells(path: Path, line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip(" '") for cell in next(csv.reader(io.StringIO(line), delimiter=delimiter), [])]
    except csv.Error as error:
        raise InputError(f"{path}: its first line does not parse ({error}): {_EXPORT}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _head(path: Path, lines: Sequence[str], delimiter: str) -> tuple[list[str], int]:
    """Names of the columns with their units behind them, all empty where the file has none; rows that this takes."""
    first = _cells(path, lines[0], delimiter)
    if len(first) > 2 and is_lead(first[0]) and all(map(_is_number, first[1:])):
        raise InputError(
            f"{path}: its rows are leads ({first[0]} with {len(first) - 1} values in the first line): transpose it, so "
            "that each lead is a column"
        )
    if all(map(_is_number, first)):
        return [""] * len(first), 0
    second = _cells(path, lines[1], delimiter) if len(lines) > 1 else []
    if len(second) == len(first) and all(is_voltage(cell) or is_time_unit(cell) for cell in second):
        return [f"{name} ({unit})" for name, unit in zip(first, second, strict=True)], 2
    return first, 1


def _numbers(path: Path, lines: Sequence[str], delimiter: str, num_columns: int, num_above: int) -> NDArray[np.float64]:
    """Values (time, column)."""
    if not lines:
        raise InputError(f"{path} has a header and no rows below: {_EXPORT}")
    try:
        values = np.loadtxt(lines, delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
    except (ValueError, MemoryError) as error:
        raise InputError(
            _fault(path, lines, delimiter, num_columns, num_above) or f"{path}: {error}: {_EXPORT}"
        ) from None
    if values.shape != (len(lines), num_columns):
        told = _fault(path, lines, delimiter, num_columns, num_above)
        raise InputError(told or f"{path} has {values.shape[1]} columns under {num_columns} names: {_EXPORT}")
    return values


def _fault(path: Path, lines: Sequence[str], delimiter: str, num_columns: int, num_above: int) -> str | None:
    """What is wrong with the first line that is no row of ``num_columns`` numbers."""
    for number, line in enumerate(lines, start=num_above + 1):
        cells = line.split(delimiter)
        where = f"{path}: line {number}"
        if any(_DECIMAL_COMMA.fullmatch(cell) for cell in cells) or (
            delimiter == "," and len(cells) == 2 * num_columns
        ):
            return f"{where} has decimal commas ({line[:40]!r}): write numbers with a decimal point, such as 0.12"
        if len(cells) != num_columns:
            return f"{where} has {len(cells)} cells, the first line {num_columns}: is the file cut? {_EXPORT}"
        for cell in cells:
            text = cell.strip().strip('"').strip()
            if not text:
                return f"{where} has an empty cell: fill missing time points, or leave the record out"
            if not _is_number(text):
                return f"{where} holds {text[:40]!r}, it must be a number: {_EXPORT}"
    return None


def _time(path: Path, names: Sequence[str], values: NDArray[np.float64], layout: Layout) -> tuple[list[int], float]:
    """The columns that are leads, and the rate in Hz."""
    times = [column for column, name in enumerate(names) if is_time(name)]
    if len(times) > 1:
        told = ", ".join(names[column] for column in times)
        raise InputError(f"{path} has several time columns ({told}): leave one")
    counters = [column for column, name in enumerate(names) if any(names) and name.lower() in COUNTERS]
    for column in counters:
        if not (np.diff(values[:, column]) == 1).all():
            raise InputError(
                f"{path}: column {names[column]!r} does not count the time points: name it, or take it out"
            )
    rate = rate_of(path, names[times[0]], values[:, times[0]], layout.sampling_rate) if times else layout.sampling_rate
    if rate is None:
        raise InputError(
            f"{path} has no time column, so it does not say its rate: give --sampling_rate 500, or what it is"
        )
    columns = [column for column in range(len(names)) if column not in (*times, *counters)]
    if not columns:
        raise InputError(f"{path} has no column of a lead: {_EXPORT}")
    return columns, rate


def _leads(path: Path, names: Sequence[str], num_rows: int, layout: Layout) -> tuple[str, ...]:
    """Names of the lead columns: those of the first row, or of the layout where it has none that are known."""
    if layout.leads is None:
        if not any(names):
            raise InputError(
                f"{path} does not name its leads: write them in its first row, or give --leads I,II,III,aVR,... in the "
                "order of its columns"
            )
        return tuple(names)
    if len(layout.leads) != len(names):
        if len(layout.leads) == num_rows:
            raise InputError(f"{path} has {num_rows} rows for {num_rows} --leads: transpose it")
        raise InputError(f"{path} has {len(names)} lead columns, --leads names {len(layout.leads)}: name each column")
    told, wanted = ([lead_name(lead) for lead in leads] for leads in (names, layout.leads))
    if all(map(is_lead, names)) and told != wanted:
        raise InputError(
            f"{path} names its leads {', '.join(names)}, --leads says {', '.join(layout.leads)}: leave --leads out, "
            "or mend the first row"
        )
    return tuple(layout.leads)


def _scale(path: Path, lead: str, layout: Layout) -> float:
    """What one of a column's values is in mV: by the unit behind its name, or the layout's."""
    told = unit_in(lead)
    if told is None:
        return MILLIVOLTS[layout.unit]
    scale = unit_scale(path, lead, told)
    if layout.unit != "mV" and scale != MILLIVOLTS[layout.unit]:
        raise InputError(f"{path}: column {lead} is in {told}, --unit says {layout.unit}: leave --unit out")
    return scale

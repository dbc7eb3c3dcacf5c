"""The files of PTB-XL 1.0.3 as its own SHA256SUMS.txt lists them: which belong to a rate, their hashes, their sizes.

SHA256SUMS.txt is the list, not RECORDS: it names every file with its hash, and RECORDS of 1.0.3 lacks a line break.
It is trusted as far as the https connection it comes through, and only if it names the hashes of the two tables that
are known here; the table in turn says which records must be in it.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ecg_lightning.data.labels import ptbxl_103_counts
from ecg_lightning.data.ptbxl import STATEMENTS, TABLE
from ecg_lightning.errors import InputError, joined

URL = "https://physionet.org/files/ptb-xl/1.0.3/"
LIST = "SHA256SUMS.txt"
PARTIAL = ".partial"
FOLDERS = {"100": "records100", "500": "records500"}
"""Where the records of a rate are."""

_COLUMNS = {"100": "filename_lr", "500": "filename_hr"}
_STATEMENTS_SHA256 = "ad05b0b1fcae83bb1230755ad9cfc7c96f303feddc08a4a9ad5bdc9ca63bac8f"
_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S.*)")
# 12 leads of 10 s in 16 bits; headers measured on 652 real records (604 to 621 bytes); RECORDS is 43,598 paths.
_SIGNAL_BYTES = {"records100": 24_000, "records500": 120_000}
_HEADER_BYTES = 608
_TABLE_BYTES = {TABLE: 6_594_879, STATEMENTS: 9_720, "RECORDS": 1_133_547}
_OTHER_BYTES = 20_000


class PublishedFile(NamedTuple):
    """A file below the data set's folder; ``num_bytes`` is exact for signals and tables, an estimate for the rest."""

    path: str
    sha256: str
    num_bytes: int


def known_hashes() -> dict[str, str]:
    """SHA-256 of the tables of PTB-XL 1.0.3, known apart from any server."""
    return {TABLE: ptbxl_103_counts()["csv_sha256"], STATEMENTS: _STATEMENTS_SHA256}


def read_list(text: str, origin: str) -> list[PublishedFile]:
    """Reads SHA256SUMS.txt; ``origin`` is how a message names it.

    Raises:
        InputError: naming all problems at once: lines that are no hash and path, paths that lead out of the folder or
            stand there twice, hashes of the tables that are not those of PTB-XL 1.0.3.
    """
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            problems.append(f"line {number} is {line[:60]!r}, it must be a SHA-256 and a path")
        elif _leaves(path := match[2].removeprefix("./")):
            problems.append(f"line {number}: the path {path[:60]!r} leads out of the folder or is no plain path")
        elif found.setdefault(path, match[1].lower()) != match[1].lower():
            problems.append(f"line {number}: {path} stands there twice, with two hashes")
    for name, expected in known_hashes().items():
        if (got := found.get(name)) != expected:
            problems.append(f"sha256 of {name} is {got or 'not in it'}, of PTB-XL 1.0.3 it is {expected}")
    if problems:
        raise InputError(
            f"{origin} is not the list of PTB-XL 1.0.3: {joined(problems)}; name the folder of version 1.0.3 with "
            f"--url (by default {URL}); a portal or proxy may also have answered instead of the server"
        )
    return [PublishedFile(path, sha256, _num_bytes(path)) for path, sha256 in found.items() if path != LIST]


def select(files: Sequence[PublishedFile], rate: str) -> list[PublishedFile]:
    """The files of a rate ("100", "500" or "both"): its records, and all that is not a record of the other rate."""
    left_out = tuple(f"{folder}/" for name, folder in FOLDERS.items() if rate not in (name, "both"))
    return [file for file in files if not file.path.startswith(left_out)]


def count_records(table: Path, files: Sequence[PublishedFile], rate: str) -> int:
    """Number of records in the data set's table, once ``files`` is seen to hold all of their files.

    Raises:
        InputError: when files of the table's records are not in the list.
    """
    listed = {file.path for file in files}
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = [column for name, column in _COLUMNS.items() if rate in (name, "both")]
    paths = [f"{row[column]}{suffix}" for row in rows for column in columns for suffix in (".hea", ".dat")]
    if missing := [f"{path} is not in it" for path in paths if path not in listed]:
        raise InputError(
            f"{LIST} is not whole: {joined(missing)}; it names other files than {TABLE}: try another --url"
        )
    return len(rows)


def _leaves(path: str) -> bool:
    parts = path.split("/")
    return (
        PurePosixPath(path).is_absolute()
        or any(part in ("", ".", "..") for part in parts)
        or re.search(r"[\\:\x00-\x1f\x7f]", path) is not None
        or path.endswith(PARTIAL)
        or parts[0].startswith(".")
    )


def _num_bytes(path: str) -> int:
    if path.endswith(".hea"):
        return _HEADER_BYTES
    if path.endswith(".dat"):
        return _SIGNAL_BYTES.get(path.split("/")[0], _OTHER_BYTES)
    return _TABLE_BYTES.get(path, _OTHER_BYTES)

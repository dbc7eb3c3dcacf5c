"""Folders as sources: WFDB records with diagnoses in their headers, and files of any format without labels."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ecg_lightning.data.formats import Layout, find_recordings
from ecg_lightning.data.formats.recording import facts_of_comments
from ecg_lightning.data.labels import Statements
from ecg_lightning.data.sources.folds import chosen_folds
from ecg_lightning.data.sources.snomed import label_codes, read_code_table
from ecg_lightning.data.sources.source import Source, SourceOptions, basic_columns
from ecg_lightning.errors import InputError

_SEX = {"male": 0, "m": 0, "female": 1, "f": 1}
_NOT_SAID = ("", "nan", "unknown", "none", "n/a")


def read_wfdb_folder(root: Path, options: SourceOptions) -> Source:
    """All WFDB records below ``root``, with the comments ``Age``, ``Sex`` and ``Dx`` of their headers.

    ``Dx`` holds SNOMED CT codes, as in the PhysioNet/CinC Challenges 2020 and 2021; `label_codes` says what becomes of
    them. Without any ``Dx`` the source has no labels.

    Raises:
        InputError: for a folder without headers, a header that cannot be read, a wrong table of codes.
        UsageError: for more folds than records.
    """
    options.refuse("wfdb", "layout", "labels", "task")
    headers = [path for path in find_recordings([root]) if path.suffix.lower() == ".hea"]
    if not headers:
        raise InputError(f"{root} holds no WFDB headers (.hea): --kind files reads CSV and NPY")
    digest, facts = hashlib.sha256(), []
    for path in headers:
        content = _content(path)
        digest.update(f"{_below(root, path)}\n".encode() + content)
        text = content.decode("utf-8", errors="replace")
        comments = facts_of_comments([line for line in text.splitlines() if line.startswith("#")])
        facts.append({name.lower(): value for name, value in comments.items()})
    carried = [_codes(fact.get("dx", "")) for fact in facts]
    table = read_code_table(options.codes)
    attributes = {"source_sha256": digest.hexdigest()}
    source, notes = _unlabelled(root, headers, options), []
    source.records["age"] = np.array([_age(fact.get("age", "")) for fact in facts], np.float32)
    source.records["sex"] = np.array([_SEX.get(fact.get("sex", "").lower(), -1) for fact in facts], np.int8)
    if strange := [fact["age"] for fact in facts if _is_strange_age(fact.get("age", ""))]:
        notes.append(f"{len(strange)} records have an age that is none, taken as unknown: {', '.join(strange[:5])}")
    if not any(carried):
        notes.append("no header has codes (Dx): the store has no task, `fit` cannot train on it")
        likelihood, statements = source.likelihood, source.statements
    else:
        attributes["codes_sha256"] = table.sha256
        likelihood, statements, more = label_codes(carried, table)
        notes += more
    return replace(
        source,
        kind="wfdb",
        likelihood=likelihood,
        statements=statements,
        attributes=attributes,
        notes=(*source.notes, *notes),
    )


def read_file_folder(root: Path, options: SourceOptions) -> Source:
    """All records below ``root`` in any format that `find_recordings` knows, without labels: for pre-training.

    Raises:
        InputError: for a folder without records.
        UsageError: for more folds than records.
    """
    options.refuse("files", "labels", "task", "codes")
    source = _unlabelled(root, find_recordings([root]), options)
    return replace(source, notes=(*source.notes, "no labels: the store has no task, it is one for pre-training"))


def _unlabelled(root: Path, files: Sequence[Path], options: SourceOptions) -> Source:
    """The records of ``files``; hashed by their names and sizes."""
    paths = tuple(_below(root, path) for path in files)
    folds, note = chosen_folds(paths, options)
    listed = [f"{path.stat().st_size} {name}" for path, name in zip(files, paths, strict=True)]
    return Source(
        kind="files",
        root=root,
        paths=paths,
        records=basic_columns(paths, paths, folds),
        likelihood=np.zeros((len(paths), 0), np.uint8),
        statements=Statements((), {}),
        attributes={"source_sha256": hashlib.sha256("\n".join(listed).encode()).hexdigest()},
        layout=options.layout or Layout(),
        notes=("no patients are named: each record counts as one", note),
    )


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): mend its permissions, or move it away") from error


def _codes(text: str) -> list[str] | None:
    """The codes of a ``Dx`` comment; None where it says nothing."""
    codes = [code for code in re.split(r"[\s,;]+", text.strip()) if code.lower() not in _NOT_SAID]
    return list(dict.fromkeys(codes)) or None


def _age(text: str) -> float:
    return math.nan if text.lower() in _NOT_SAID or _is_strange_age(text) else float(text)


def _is_strange_age(text: str) -> Any:
    if text.lower() in _NOT_SAID:
        return False
    try:
        return not 0 <= float(text) <= 300
    except ValueError:
        return True

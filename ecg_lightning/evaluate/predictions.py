"""The one file format of predictions: an npz that `evaluate`, `report` and anybody's script read and may write.

``labels`` is 0, 1, or 255 where a record's truth is not known: judge each label on the records with ``labels <= 1``.
A csv is read as well: `prediction_tables`. What a file must hold is in `problems_of`.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ecg_lightning.errors import InputError, joined
from ecg_lightning.runs import whole_file

_MOST_PACKED = 1100
"""Bytes that a byte of an npz may stand for: what DEFLATE reaches, 1032, and some."""
KEYS = ("record_id", "patient_id", "fold", "probabilities", "labels", "label_names", "meta")
MAX_BYTES = 2**31
"""Of the arrays of a file, unpacked: a few megabytes can claim as many gigabytes."""
_KINDS = {
    **dict.fromkeys(("record_id", "patient_id"), ("iuU", "whole numbers or text")),
    **dict.fromkeys(("fold", "store"), ("iu", "whole numbers")),
    "labels": ("biuf", "numbers"),
}
"""NumPy's kinds of the columns, and how a message names them."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities and labels of one split."""

    record_id: NDArray[Any]
    """(record,) int64; text in files of others that have names in place of numbers."""
    patient_id: NDArray[Any]
    """(record,) as `record_id`."""
    fold: NDArray[np.int8]
    """(record,) strat_fold; 0 in files of others that do not say it."""
    probabilities: NDArray[np.floating[Any]]
    """(record, label) in 0..1, float32; float64 in files of others that have it."""
    labels: NDArray[np.uint8]
    """(record, label) 0, 1, or 255 where unknown."""
    label_names: tuple[str, ...]
    meta: dict[str, Any]
    """Task, protocol, split, checkpoint and its hash, store (a list where there are several) and hash, version."""
    store: NDArray[np.int16] | None = None
    """(record,) which of the stores a record lies in, where there are several: ids are unique within one."""

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        optional: dict[str, Any] = {} if self.store is None else {"store": self.store}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                record_id=self.record_id,
                patient_id=self.patient_id,
                fold=self.fold,
                probabilities=self.probabilities,
                labels=self.labels,
                label_names=np.array(self.label_names),
                meta=np.array(json.dumps(self.meta)),
                **optional,
            )

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Reads an npz, or a csv by its name; no code in it is ever run.

        Raises:
            InputError: when it is missing, not a predictions file, or breaks a rule of `problems_of`.
        """
        if Path(path).suffix.lower() == ".csv":
            from ecg_lightning.evaluate.prediction_tables import read_csv

            content = read_csv(Path(path))
        else:
            content = _read_npz(path)
        if problems := problems_of(content):
            raise InputError(f"{path} cannot be used: {joined(problems)}")
        return cls(**content)


def _read_npz(path: str | Path) -> dict[str, Any]:
    try:
        _check_claims(Path(path))
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            _check_size(file.zip)
            content: dict[str, Any] = {key: file[key] for key in KEYS}
            content["store"] = file.get("store", None)
            content["meta"] = json.loads(str(content["meta"]))
            content["label_names"] = tuple(map(str, np.atleast_1d(content["label_names"]).tolist()))
            for key in ("record_id", "patient_id"):
                content[key].tolist()  # text of code points that are none is told here
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: write it with `ecg-lightning test --run RUN`") from None
    except Exception as error:  # of a damaged archive zipfile, zlib and numpy raise nearly every type
        said = str(error).partition(" If you trust")[0]  # NumPy's advice to load it unsafely is not ours
        raise InputError(f"{path} is not a predictions file ({said}); it must be an npz with {KEYS}") from None
    return content


def _check_size(archive: ZipFile) -> None:
    if (size := sum(member.file_size for member in archive.infolist())) > MAX_BYTES:
        raise ValueError(f"it claims {size / 2**20:.1f} MiB of arrays, at most {MAX_BYTES / 2**20:g} MiB are read")


def _check_claims(path: Path) -> None:
    """Refuses an array whose header claims more than the file can hold: NumPy asks for the memory first."""
    most = _MOST_PACKED * path.stat().st_size
    with ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as array:
                readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                shape, _, dtype = readers[npy.read_magic(array)](array)
            if math.prod(shape) * dtype.itemsize > min(member.file_size, most):
                raise ValueError(f"{member.filename} claims {shape} of {dtype}, more than is there")


def problems_of(content: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arrays of a file, by key; empty where all is well.

    The rules: probabilities (record, label) from 0 to 1; labels of the same shape, 0, 1 or 255; one record_id and
    patient_id a record, no record twice (within a store); each label name once; meta a JSON object.
    """
    probabilities, labels, names = (np.asarray(content[key]) for key in ("probabilities", "labels", "label_names"))
    if probabilities.ndim != 2 or probabilities.dtype.kind != "f" or 0 in probabilities.shape:
        got = f"{probabilities.dtype} of shape {probabilities.shape}"
        return [f"probabilities is {got}, it must be floating point of shape (record, label), neither of them 0"]
    num_records, num_labels = probabilities.shape
    shapes = {"labels": (num_records, num_labels), "label_names": (num_labels,)}
    shapes |= dict.fromkeys(("record_id", "patient_id", "fold", "store"), (num_records,))
    problems = [
        f"{key} has shape {np.shape(content[key])}, probabilities ask for {shape}"
        for key, shape in shapes.items()
        if content.get(key) is not None and np.shape(content[key]) != shape
    ]
    problems += [
        f"{key} is of type {np.asarray(content[key]).dtype}, it must be {rule}"
        for key, (kinds, rule) in _KINDS.items()
        if content.get(key) is not None and np.asarray(content[key]).dtype.kind not in kinds
    ]
    if problems:
        return problems
    out = ~((probabilities >= 0) & (probabilities <= 1))
    if out.any():
        row, column = np.argwhere(out)[0]
        problems.append(
            f"probabilities of {out.sum()} cells are not from 0 to 1, such as {probabilities[row, column]:g} of record "
            f"{content['record_id'][row]}, {names[column]}: give probabilities, not logits"
        )
    if values := sorted(set(np.unique(labels).tolist()) - {0, 1, 255}):
        problems.append(f"labels hold {', '.join(map(str, values[:5]))}, they must be 0, 1, or 255 where unknown")
    if twice := sorted(name for name, number in Counter(names.tolist()).items() if number > 1):
        problems.append(f"label_names holds {', '.join(twice)} more than once")
    if not isinstance(content["meta"], dict):
        problems.append(f"meta is {content['meta']!r}, it must be a JSON object, such as {{}}")
    keys = record_keys(content["record_id"], content.get("store"))
    if twice := [str(record) for record, number in Counter(keys).items() if number > 1]:
        problems.append(
            f"{len(twice)} record(s) stand more than once, such as record_id {twice[0]}: give one row a record"
        )
    return problems


def record_keys(record_id: NDArray[Any], store: NDArray[np.int16] | None) -> list[Any]:
    """What tells records apart: their ids, which are unique within a store."""
    ids: list[Any] = np.asarray(record_id).tolist()
    return ids if store is None else list(zip(store.tolist(), ids, strict=True))

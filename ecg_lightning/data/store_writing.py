"""Writes a store: created and laid out first, signals written by offset by others, sealed at the end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.chains import chain_to_json
from ecg_lightning.data.labels import Statements, labelled, task_labels
from ecg_lightning.data.store_format import (
    BLOCK_RECORDS,
    FORMAT_VERSION,
    LIKELIHOOD,
    UNFINISHED,
    Contents,
    block_sha256,
    contents_of,
    tables_sha256,
)
from ecg_lightning.signals import StoredSignal


def create_store(
    path: Path,
    stored: StoredSignal,
    dtype: str,
    records: Mapping[str, NDArray[Any]],
    likelihood: NDArray[np.uint8],
    statements: Statements,
    attributes: Mapping[str, str | int | float],
    block_records: int = BLOCK_RECORDS,
) -> int:
    """Writes all but the signals and what is only known with them; the offset of the signals in the file.

    The file cannot be opened as a `Store` before `finish_store`. ``dtype`` is ``<i2`` or ``<f4``.
    """
    import h5py

    with h5py.File(path, "w") as file:
        # Laid out here and now, without filling: the rows are written by offset.
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.CONTIGUOUS)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plist.set_obj_track_times(False)
        space = h5py.h5s.create_simple((len(likelihood), len(stored.leads), stored.num_time_points))
        signals = h5py.h5d.create(file.id, b"signals", h5py.h5t.py_create(np.dtype(dtype)), space, plist)
        for group, columns in (
            ("records", records),
            ("statements", {"likelihood": likelihood, **statements.to_columns()}),
        ):
            for name, column in columns.items():
                _write_column(file, f"{group}/{name}", column)
        own = {
            "format_version": FORMAT_VERSION,
            "block_records": block_records,
            "signal": _signal_json(stored),
            "sha256": UNFINISHED,
        }
        for name, value in {**attributes, **own}.items():
            # Fixed length, so that the hash is later changed in place.
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        return int(signals.get_offset())


def finish_store(path: Path, measured: Mapping[str, NDArray[Any]]) -> None:
    """Fills the columns of ``records`` in ``measured``, each (record,), writes the index and seals all with a hash."""
    import h5py

    with h5py.File(path, "r+") as file:
        for name, column in measured.items():
            file[f"records/{name}"][...] = column
        file.flush()
        contents = contents_of(file)
        for name, table in _index(path, contents).items():
            _write_column(file, f"index/{name}", table)
        file.attrs.modify("sha256", np.bytes_(tables_sha256(contents_of(file))))


def _index(path: Path, contents: Contents) -> dict[str, NDArray[Any]]:
    """The hash of each block, and per block and fold the records there are and those with a label of each task."""
    statements = Statements.from_columns(contents.group("statements"))
    layout, labels = contents.layouts["records/strat_fold"], contents.layouts[LIKELIHOOD]
    blocks = contents.blocks
    folds = np.unique(np.concatenate([np.unique(layout.read(path, *bounds)) for bounds in blocks]))
    counts = np.zeros((1 + len(statements.tasks), len(blocks), len(folds)), np.int32)
    for block, bounds in enumerate(blocks):
        in_fold = layout.read(path, *bounds) == folds[:, None]
        counts[0, block] = in_fold.sum(axis=1)
        likelihood = labels.read(path, *bounds)
        for place, task in enumerate(statements.tasks):
            has_label = labelled(task_labels(likelihood, statements, task), statements, task)
            counts[1 + place, block] = (in_fold & has_label).sum(axis=1)
    hashes = b"".join(block_sha256(path, contents, *bounds) for bounds in blocks)
    return {
        "sha256": np.frombuffer(hashes, np.uint8).reshape(len(blocks), 32),
        "folds": folds.astype(np.int64),
        "counts": counts,
    }


def _write_column(file: Any, name: str, column: NDArray[Any]) -> None:
    import h5py

    if column.dtype.kind == "U":
        encoded = np.char.encode(column, "utf-8")
        column = encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))
    file.create_dataset(name, data=column)


def _signal_json(stored: StoredSignal) -> str:
    rest = {"record_rate": stored.record_rate, "leads": stored.leads, "num_time_points": stored.num_time_points}
    return json.dumps({**rest, "chain": json.loads(chain_to_json(stored.chain))})

"""The store's file: how it is laid out, and how it is read and checked at opening.

``signals`` (record, lead, time) and every column of ``records/`` and ``statements/likelihood`` are contiguous and
uncompressed, so that they are read by offset. They are sealed in blocks of records: the hash of each block stands in
``index/``, beside how many records of each fold carry a label of each task; one hash in the attributes covers the index
and all else that is not signal. So a store opens at once however many records it holds, and nothing is read unchecked.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.chains import chain_from_json
from ecg_lightning.errors import InputError
from ecg_lightning.signals import StoredSignal

FORMAT_VERSION = 2
BLOCK_RECORDS = 4096
"""Records that a new store seals, and its readers check and read, together."""
UNFINISHED = "0" * 64
"""The hash while signals are still being written."""
LIKELIHOOD = "statements/likelihood"

_REMAKE = "make it again with `ecg-lightning prepare --source DIR --output STORE --backbone NAME --overwrite`"


@dataclass(frozen=True)
class Layout:
    """Where a data set lies in the file: part of the hash, since a changed offset would read other bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def end(self) -> int:
        """The byte behind the last."""
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def read(self, path: Path, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, without h5py."""
        dtype, row = np.dtype(self.dtype), self.shape[1:]
        width = math.prod(row)
        offset = self.offset + start * width * dtype.itemsize
        values: NDArray[Any] = np.fromfile(path, dtype, (stop - start) * width, offset=offset)
        return values.reshape(stop - start, *row)


@dataclass(frozen=True)
class Contents:
    """All of a store but its signals and columns.

    Attributes:
        attributes: the file's attributes.
        tables: the small data sets by full name: ``statements/...`` without the likelihoods, and ``index/...``.
        layouts: of ``signals``, the columns ``records/...`` and ``statements/likelihood``.
    """

    attributes: dict[str, Any]
    tables: dict[str, NDArray[Any]]
    layouts: dict[str, Layout]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First record of each block, and the one behind its last."""
        size, end = int(self.attributes["block_records"]), self.layouts["signals"].shape[0]
        return [(start, min(start + size, end)) for start in range(0, end, size)]

    @property
    def columns(self) -> list[str]:
        """Full names of what has a row per record and is sealed in blocks."""
        return sorted(name for name in self.layouts if name != "signals")

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """The tables of a group by short name, text decoded."""
        found = {
            key.removeprefix(f"{name}/"): table for key, table in self.tables.items() if key.startswith(f"{name}/")
        }
        return {key: decoded(table) for key, table in found.items()}


def decoded(column: NDArray[Any]) -> NDArray[Any]:
    """Text as it is, where a column holds bytes."""
    return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column


def block_sha256(path: Path, contents: Contents, start: int, stop: int) -> bytes:
    """Hash of all columns of a block's records, as they lie in the file."""
    digest = hashlib.sha256()
    for name in contents.columns:
        digest.update(contents.layouts[name].read(path, start, stop).data)
    return digest.digest()


def read_contents(path: Path) -> Contents:
    """Opens, checks and closes the file at ``path``.

    Raises:
        InputError: for a file that is missing, not a store, cut, still being written, of another format or changed.
    """
    import h5py

    if path.is_dir():
        raise InputError(
            f"store {path} is a folder, a store is a file: name the STORE that `ecg-lightning prepare` wrote"
        )
    if not path.is_file():
        partial = path.with_name(path.name + ".partial").exists()
        raise InputError(
            f"store {path} is not finished, only {path.name}.partial is there: wait for its `ecg-lightning prepare`, "
            "or run the same command again, it goes on from where it stopped"
            if partial
            else f"store {path} does not exist: make it with `ecg-lightning prepare --source DIR --output {path}`, "
            "or name the place that it was moved to (--data.store of a run)"
        )
    try:
        with h5py.File(path, "r") as file:
            _check_version(path, int(file.attrs.get("format_version", 0)))
            contents = contents_of(file)
    except InputError:
        raise
    except Exception as error:  # h5py raises nearly every type on damaged files
        raise InputError(_unreadable(path, error)) from error
    _check(path, contents)
    return contents


def _check_version(path: Path, version: int) -> None:
    if version < 1:
        raise InputError(_unreadable(path, ValueError("it has no format version")))
    if version > FORMAT_VERSION:
        raise InputError(
            f"store {path} has format version {version}, this package reads {FORMAT_VERSION}: "
            "upgrade ecg-lightning, or " + _REMAKE
        )
    if version < FORMAT_VERSION:
        raise InputError(f"store {path} has the old format version {version}, not {FORMAT_VERSION}: {_REMAKE}")


def contents_of(file: Any) -> Contents:
    """What stands in an open file, not yet held against its hash."""
    layouts, tables = {"signals": _layout(file["signals"])}, {}
    for group in ("records", "statements", "index"):
        for name, dataset in file[group].items() if group in file else ():
            full = f"{group}/{name}"
            if group == "records" or full == LIKELIHOOD:
                layouts[full] = _layout(dataset)
            else:
                _layout(dataset)  # for its checks
                tables[full] = dataset[()]
    attributes = {name: _plain(name, value) for name, value in file.attrs.items()}
    return Contents(attributes, tables, layouts)


def _plain(name: str, value: Any) -> Any:
    found = value.decode() if isinstance(value, bytes) else value.item()
    if not isinstance(found, (str, int, float)):
        raise TypeError(f"attribute {name} is neither text nor a number")
    return found


def _layout(dataset: Any) -> Layout:
    offset = dataset.id.get_offset()  # None: HDF5 gives no room to the likelihoods of a source without statements
    layout = Layout(int(offset or 0), tuple(dataset.shape), dataset.dtype.str)
    # In pieces, packed or unwritten it may claim any size: HDF5 would make it up in memory.
    if dataset.dtype.kind not in "biufS" or (offset is None and 0 not in layout.shape):
        raise ValueError(f"{dataset.name} is not contiguous numbers or text")
    return layout


def _check(path: Path, contents: Contents) -> None:
    if contents.attributes.get("sha256") == UNFINISHED:
        raise InputError(
            f"store {path} is still being written, or its `prepare` was stopped: run the same `prepare` again, "
            "it goes on from where it stopped"
        )
    if contents.attributes.get("sha256") != tables_sha256(contents):
        raise changed(path)
    end = max(layout.end for layout in contents.layouts.values())
    if path.stat().st_size < end:
        raise InputError(
            f"store {path} is cut: {path.stat().st_size} bytes, its data end at {end}: copy it anew, or {_REMAKE}"
        )


def unlike(path: Path, what: str) -> InputError:
    """The error for a file that is sealed and holds what no store does."""
    return InputError(f"store {path} holds what `prepare` does not write ({what}): {_REMAKE}")


def changed(path: Path) -> InputError:
    """The error for tables that are not what was written."""
    return InputError(f"store {path}: labels, folds or other tables are not what was written (hash): {_REMAKE}")


def tables_sha256(contents: Contents) -> str:
    """SHA-256 over all that is not signal: the columns through the hashes of their blocks, in the index."""
    rest = {name: value for name, value in contents.attributes.items() if name != "sha256"}
    layouts = {name: layout.__dict__ for name, layout in contents.layouts.items()}
    digest = hashlib.sha256(json.dumps([rest, layouts], sort_keys=True).encode())
    for name in sorted(contents.tables):
        table = contents.tables[name]
        digest.update(f"{name} {table.dtype.str} {table.shape}".encode())
        digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    if "lock file" in text:
        return f"store {path} is open for writing elsewhere ({text}): wait for that to end"
    if "truncated" in text:
        return f"store {path} is cut ({text}): copy it anew, or {_REMAKE}"
    return f"{path} is not a store, or damaged ({type(error).__name__}: {text}): name a store, or {_REMAKE}"


def stored_signal(contents: Contents) -> StoredSignal:
    """What the signals are.

    Raises:
        ValueError: for what describes no signal.
    """
    fields = json.loads(contents.attributes["signal"])
    signal = StoredSignal(
        record_rate=fields["record_rate"],
        leads=tuple(fields["leads"]),
        num_time_points=fields["num_time_points"],
        chain=chain_from_json(json.dumps(fields["chain"])),
    )
    if not (
        all(isinstance(lead, str) for lead in signal.leads)
        and isinstance(signal.num_time_points, int)
        and 0 < signal.record_rate < math.inf
        and 0 < signal.sampling_rate < math.inf
    ):
        raise ValueError(f"signal is {str(fields)[:200]}")
    return signal

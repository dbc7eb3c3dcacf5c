"""The store: one HDF5 file with one signal spec of one source, made to be memory-mapped.

``signals`` (record, lead, time) is contiguous and uncompressed, so that a batch is read by offset, without h5py. All
else is small, read whole at opening and guarded by a hash; each record's signal has a checksum, which `verify` checks.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.chains import chain_from_json, chain_to_json
from ecg_lightning.data.labels import Statements
from ecg_lightning.errors import InputError
from ecg_lightning.signals import StoredSignal

FORMAT_VERSION = 1
UNFINISHED = "0" * 64
"""The hash while signals are still being written."""

_REMAKE = "make it again with `ecg-lightning prepare --source DIR --output STORE --backbone NAME --overwrite`"


class Store:
    """A prepared data set, opened for reading: the tables in memory, the signals mapped on demand.

    The file is closed again once the tables are read, so a store can be pickled, forked and spawned at will.

    Attributes:
        path: the file.
        stored: what the signals are: record rate, leads, time points, chain.
        millivolts_per_unit: what a stored 1 is in mV (1.0 for float32 stores).
        dtype: of the signals, int16 or float32.
        num_records: number of records.
        records: columns by name, each (record,): ecg_id, patient_id, strat_fold, age (years, NaN where unknown), sex,
            the quality columns, num_flat_leads, checksum.
        likelihood: (record, statement), 0 to 100, 255 where absent.
        statements: what the statements mean.
        attributes: the file's attributes.

    Raises:
        InputError: for a file that is missing, not a store, cut, still being written, of a newer format or changed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.attributes, tables, self._layout = _read(self.path)
        self.stored = _stored_signal(self.attributes["signal"])
        self.millivolts_per_unit = float(self.attributes["millivolts_per_unit"])
        self.dtype = np.dtype(self._layout.dtype)
        self.num_records = self._layout.shape[0]
        self.records: dict[str, NDArray[Any]] = _columns(tables, "records")
        statements = _columns(tables, "statements")
        self.likelihood: NDArray[np.uint8] = statements.pop("likelihood")
        self.statements = Statements.from_columns(statements)

    def signals(self) -> "np.memmap[Any, np.dtype[Any]]":
        """The signals (record, lead, time), read-only; times `millivolts_per_unit` they are mV.

        Mapped anew at each call: keep the map where it is used, since pickling one would copy the whole file.
        """
        layout = self._layout
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=layout.offset, shape=layout.shape)

    def verify(self) -> list[str]:
        """Reads every signal and names the records (``ecg_id 17``) whose checksum differs."""
        sums = zip(self.records["ecg_id"], self.records["checksum"], checksums(self.signals()), strict=True)
        return [f"ecg_id {ecg_id}" for ecg_id, expected, got in sums if expected != got]


@dataclass(frozen=True)
class _Layout:
    """Where the signals lie in the file: part of the hash, since a changed offset would read other bytes."""

    offset: int
    shape: tuple[int, int, int]
    dtype: str

    @property
    def end(self) -> int:
        return self.offset + int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def checksums(signals: Iterable[NDArray[Any]]) -> Iterator[int]:
    """CRC-32 of the bytes of each record of ``signals`` (record, lead, time)."""
    return (zlib.crc32(np.ascontiguousarray(ecg).data) for ecg in signals)


def create_store(
    path: Path,
    stored: StoredSignal,
    dtype: str,
    records: Mapping[str, NDArray[Any]],
    likelihood: NDArray[np.uint8],
    statements: Statements,
    attributes: Mapping[str, str | int | float],
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
        own = {"format_version": FORMAT_VERSION, "signal": _signal_json(stored), "sha256": UNFINISHED}
        for name, value in {**attributes, **own}.items():
            # Fixed length, so that the hash is later changed in place.
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value
        return int(signals.get_offset())


def finish_store(path: Path, measured: Mapping[str, NDArray[Any]]) -> None:
    """Fills the columns of ``records`` in ``measured``, each (record,), and seals the tables with their hash."""
    import h5py

    with h5py.File(path, "r+") as file:
        for name, column in measured.items():
            file[f"records/{name}"][...] = column
        attributes, tables, layout = _contents(file)
        file.attrs.modify("sha256", np.bytes_(_hash(attributes, tables, layout)))


def _write_column(file: Any, name: str, column: NDArray[Any]) -> None:
    import h5py

    if column.dtype.kind == "U":
        encoded = np.char.encode(column, "utf-8")
        column = encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))
    file.create_dataset(name, data=column)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]], _Layout]:
    """Opens, checks and closes the file at ``path``: attributes, tables by full name, place of the signals."""
    import h5py

    if not path.is_file():
        partial = path.with_name(path.name + ".partial").exists()
        raise InputError(
            f"store {path} is not finished, only {path.name}.partial is there: wait for its `ecg-lightning prepare`, "
            "or run the same command again, it goes on from where it stopped"
            if partial
            else f"store {path} does not exist: make it with `ecg-lightning prepare --source DIR --output {path}`"
        )
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs.get("format_version", 0))
            if version > FORMAT_VERSION:
                raise InputError(
                    f"store {path} has format version {version}, this package reads up to {FORMAT_VERSION}: "
                    "upgrade ecg-lightning, or " + _REMAKE
                )
            contents = _contents(file)
    except InputError:
        raise
    except Exception as error:  # h5py raises nearly every type on damaged files
        raise InputError(_unreadable(path, error)) from error
    _check(path, *contents)
    return contents


def _contents(file: Any) -> tuple[dict[str, Any], dict[str, NDArray[Any]], _Layout]:
    signals = file["signals"]
    layout = _Layout(int(signals.id.get_offset()), tuple(signals.shape), signals.dtype.str)
    tables = {f"{group}/{name}": file[group][name][()] for group in ("records", "statements") for name in file[group]}
    attributes = {
        name: value.decode() if isinstance(value, bytes) else value.item() for name, value in file.attrs.items()
    }
    return attributes, tables, layout


def _check(path: Path, attributes: dict[str, Any], tables: dict[str, NDArray[Any]], layout: _Layout) -> None:
    if attributes.get("sha256") == UNFINISHED:
        raise InputError(
            f"store {path} is still being written, or its `prepare` was stopped: run the same `prepare` again, "
            "it goes on from where it stopped"
        )
    if attributes.get("sha256") != _hash(attributes, tables, layout):
        raise InputError(f"store {path}: labels, folds or other tables are not what was written (hash): {_REMAKE}")
    if path.stat().st_size < layout.end:
        raise InputError(
            f"store {path} is cut: {path.stat().st_size} bytes, its signals end at {layout.end}: copy it anew, or "
            + _REMAKE
        )


def _hash(attributes: Mapping[str, Any], tables: Mapping[str, NDArray[Any]], layout: _Layout) -> str:
    """SHA-256 over all that is not signal."""
    rest = {name: value for name, value in attributes.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps([rest, layout.__dict__], sort_keys=True).encode())
    for name in sorted(tables):
        digest.update(f"{name} {tables[name].dtype.str} {tables[name].shape}".encode())
        digest.update(np.ascontiguousarray(tables[name]).tobytes())
    return digest.hexdigest()


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    if "lock file" in text:
        return f"store {path} is open for writing elsewhere ({text}): wait for that to end"
    if "truncated" in text:
        return f"store {path} is cut ({text}): copy it anew, or {_REMAKE}"
    return f"{path} is not a store, or damaged ({type(error).__name__}: {text}): name a store, or {_REMAKE}"


def _columns(tables: Mapping[str, NDArray[Any]], group: str) -> dict[str, NDArray[Any]]:
    """The tables of ``group`` by short name, text decoded."""
    columns = {name.removeprefix(f"{group}/"): column for name, column in tables.items() if name.startswith(group)}
    return {
        name: np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column
        for name, column in columns.items()
    }


def _signal_json(stored: StoredSignal) -> str:
    rest = {"record_rate": stored.record_rate, "leads": stored.leads, "num_time_points": stored.num_time_points}
    return json.dumps({**rest, "chain": json.loads(chain_to_json(stored.chain))})


def _stored_signal(text: str) -> StoredSignal:
    fields = json.loads(text)
    return StoredSignal(
        record_rate=fields["record_rate"],
        leads=tuple(fields["leads"]),
        num_time_points=fields["num_time_points"],
        chain=chain_from_json(json.dumps(fields["chain"])),
    )

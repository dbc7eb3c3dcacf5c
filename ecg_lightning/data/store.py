"""The store, opened for reading: one HDF5 file with one signal spec of one source, made to be memory-mapped."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import Statements
from ecg_lightning.data.store_format import (
    LIKELIHOOD,
    block_sha256,
    changed,
    decoded,
    read_contents,
    stored_signal,
    unlike,
)
from ecg_lightning.data.store_shape import check_shapes
from ecg_lightning.errors import InputError

CHECKED_AT_OPENING = 16
"""Blocks up to which all are checked at opening (65,536 records: milliseconds); later ones when they are first read."""


class Store:
    """A prepared data set. Its signals are mapped, its columns read where they are asked for, each block checked once.

    The file is closed again at the end of opening, so a store can be pickled, forked and spawned at will.

    Attributes:
        path: the file.
        stored: what the signals are: record rate, leads, time points, chain.
        millivolts_per_unit: what a stored 1 is in mV (1.0 for float32 stores).
        dtype: of the signals, int16 or float32.
        num_records: number of records.
        statements: what the statements mean.
        attributes: the file's attributes.
        blocks: first record of each block that is checked together, and the one behind its last.
        folds: the values of strat_fold that occur, ascending.

    Raises:
        InputError: for a file that is missing, not a store, cut, still being written, of another format or changed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._contents = read_contents(self.path)
        try:
            self._interpret()
        except InputError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise unlike(self.path, f"{type(error).__name__}: {error}") from error
        self._checked = bytearray(len(self.blocks))
        if len(self.blocks) <= CHECKED_AT_OPENING:
            self._check(0, self.num_records)

    def _interpret(self) -> None:
        self.attributes = self._contents.attributes
        self.stored = stored_signal(self._contents)
        self.millivolts_per_unit = float(self.attributes["millivolts_per_unit"])
        self._layout = self._contents.layouts["signals"]
        self.dtype = np.dtype(self._layout.dtype)
        self.num_records = self._layout.shape[0]
        self.blocks = self._contents.blocks
        self.statements = Statements.from_columns(self._contents.group("statements"))
        self._index = self._contents.group("index")
        check_shapes(self.path, self._contents, len(self.statements.codes), len(self.statements.tasks))
        self.folds: tuple[int, ...] = tuple(self._index["folds"].tolist())

    def signals(self) -> "np.memmap[Any, np.dtype[Any]]":
        """The signals (record, lead, time), read-only; times `millivolts_per_unit` they are mV.

        Mapped anew at each call: keep the map where it is used, since pickling one would copy the whole file.
        """
        layout = self._layout
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=layout.offset, shape=layout.shape)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Records ``start`` to ``stop`` of a column of `records`, or of ``likelihood``; blocks are checked first."""
        stop = self.num_records if stop is None else stop
        self._check(start, stop)
        full = LIKELIHOOD if name == "likelihood" else f"records/{name}"
        return decoded(self._contents.layouts[full].read(self.path, start, stop))

    def __getstate__(self) -> dict[str, Any]:
        # What a process reads again faster than it is sent.
        return {name: value for name, value in self.__dict__.items() if name not in ("records", "likelihood")}

    @cached_property
    def records(self) -> Mapping[str, NDArray[Any]]:
        """Whole columns by name, each (record,), read when first asked for.

        ecg_id, patient_id, strat_fold, age (years, NaN where unknown), sex, the quality columns, num_flat_leads,
        checksum.
        """
        return _Columns(self, [name.removeprefix("records/") for name in self._contents.columns if name != LIKELIHOOD])

    @cached_property
    def likelihood(self) -> NDArray[np.uint8]:
        """(record, statement), 0 to 100, 255 where absent."""
        return self.column("likelihood")

    def num_labelled(self, task: str | None = None) -> NDArray[np.int32]:
        """Records per block and fold (in the order of `folds`), with a label of ``task`` if one is named."""
        place = 0 if task is None else 1 + [*self.statements.tasks].index(task)
        counts: NDArray[np.int32] = self._index["counts"][place]
        return counts

    def verify(self) -> list[str]:
        """Reads every column and signal; names the records (``ecg_id 17``) whose signal differs from its checksum.

        Raises:
            InputError: when a column is not what was written.
        """
        sums = zip(self.records["ecg_id"], self.records["checksum"], checksums(self.signals()), strict=True)
        return [f"ecg_id {ecg_id}" for ecg_id, expected, got in sums if expected != got]

    def _check(self, start: int, stop: int) -> None:
        """Holds the blocks of these records against their hashes, each once."""
        size = self.blocks[0][1]
        for block in range(start // size, -(-stop // size)):
            if not self._checked[block]:
                digest = block_sha256(self.path, self._contents, *self.blocks[block])
                if digest != self._index["sha256"][block].tobytes():
                    raise changed(self.path)
                self._checked[block] = True


class _Columns(Mapping[str, NDArray[Any]]):
    def __init__(self, store: Store, names: list[str]) -> None:
        self._store, self._names = store, names
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._read:
            if name not in self._names:
                raise KeyError(name)
            self._read[name] = self._store.column(name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def checksums(signals: Iterable[NDArray[Any]]) -> Iterator[int]:
    """CRC-32 of the bytes of each record of ``signals`` (record, lead, time)."""
    return (zlib.crc32(np.ascontiguousarray(ecg).data) for ecg in signals)

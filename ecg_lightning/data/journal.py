"""The side file of a store in the making: which records are finished, and the lock that keeps a second writer out."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ecg_lightning.data.conversion import Told
from ecg_lightning.data.store import checksums
from ecg_lightning.errors import InputError


class Finished(NamedTuple):
    """A record whose signal is written: its row, its checksum, the names of its flat leads, and what it was."""

    row: int
    checksum: int
    flat: list[str]
    told: Told | None = None


class Journal:
    """Beside ``OUTPUT.partial`` while it is written; a line of JSON per finished record behind one that says of what.

    Entering takes the lock (one writer at a time), leaving gives it back; both files stay until `remove_files`, so
    that a killed run goes on.

    Raises:
        InputError: when another process writes the same store.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self.path = output.with_name(output.name + ".partial.journal")
        self.kept = output.with_name(output.name + ".partial.kept")
        self.finished: dict[int, Finished] = {}
        self.offset = 0
        self._file: IO[str]

    def __enter__(self) -> "Journal":
        self._file = lock_file(
            self.path,
            f"another process is writing {self.output}, one writer at a time: wait for it, or name another store with "
            "--output",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def resume(self, key: str, shape: tuple[int, ...], dtype: str) -> str:
        """Takes up what a former run left under the same ``key``; why it could not, if it left something else.

        A record counts as finished when its row in the partial store has the checksum written down: after a power cut
        the journal may know more than the disk.
        """
        lines = self._complete_lines()
        if not lines or not self.partial.exists():
            return ""
        try:
            head, *marked = (json.loads(line) for line in lines)
            marked = [
                Finished(row, checksum, flat, Told(*told) if told else None) for row, checksum, flat, told in marked
            ]
        except (ValueError, TypeError, IndexError):  # a power cut can leave blocks of zeros
            return "an unfinished store was there, but its journal cannot be read"
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if head["key"] != key or self.partial.stat().st_size < head["offset"] + size:
            return "an unfinished store was there, but of another source, table or signal"
        self.offset = head["offset"]
        rows = np.memmap(self.partial, dtype=dtype, mode="r", offset=self.offset, shape=shape)
        sums = checksums(rows[one.row] for one in marked)
        self.finished = {one.row: one for one, got in zip(marked, sums, strict=True) if one.checksum == got}
        return ""

    def start(self, key: str, offset: int) -> None:
        """Begins anew, for a partial store with its signals at ``offset`` bytes."""
        self.offset = offset
        with self.partial.open("rb") as partial:
            os.fsync(partial.fileno())
        self._file.truncate(0)
        self._write(json.dumps({"key": key, "offset": offset}))

    def forget(self) -> None:
        """Drops what a former run left, or this one under another key."""
        self.partial.unlink(missing_ok=True)
        self.finished, self.offset = {}, 0

    def add(self, finished: list[Finished]) -> None:
        """Writes down that these records are finished."""
        self.finished.update({one.row: one for one in finished})
        self._write("\n".join(json.dumps(one) for one in finished))

    def remove_files(self) -> None:
        """Takes all that is beside the store away, before the lock is given back."""
        for path in (self.partial, self.kept, self.path):
            path.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        if text:
            self._file.write(text + "\n")
            self._file.flush()

    def _complete_lines(self) -> list[str]:
        """The lines that were written whole; a last one cut by a kill is taken off the file."""
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind("\n") + 1]
        self._file.truncate(len(whole.encode()))
        return whole.splitlines()


def lock_file(path: Path, refusal: str) -> IO[str]:
    """Opens a text file for reading and appending, and holds its lock until it is closed.

    Raises:
        InputError: with ``refusal`` when another process holds it.
    """
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise InputError(refusal) from None
        # The former holder may have removed the file between our opening and locking it: then lock the new one.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()

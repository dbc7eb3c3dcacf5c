"""What a download has finished in a folder, so that a second one looks at sizes and times, not into every file."""

import hashlib
import json
from pathlib import Path
from typing import IO, NamedTuple

from ecg_lightning.data.journal import lock_file
from ecg_lightning.data.published import PublishedFile

NAME = ".ecg-lightning-download"


class Finished(NamedTuple):
    """A file as it was when its hash was last computed."""

    path: str
    sha256: str
    num_bytes: int
    modified_ns: int


class Inventory:
    """A line of JSON per finished file, in a hidden file of the folder that is also the lock: one download at a time.

    A line that is lost costs one hash, as the file itself is looked into then; so it is never brought to disk by force.

    Raises:
        InputError: on entering, when another process downloads into the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: dict[str, Finished] = {}
        self._file: IO[str]

    def __enter__(self) -> "Inventory":
        self._file = lock_file(
            self.folder / NAME,
            f"another process downloads into {self.folder}, one at a time: wait for it, or name another --output",
        )
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind("\n") + 1]
        self._file.truncate(len(whole.encode()))  # a kill cut the last line
        for line in whole.splitlines():
            try:
                one = Finished(*json.loads(line))
            except (ValueError, TypeError):  # a power cut can leave blocks of zeros
                continue
            self.finished[one.path] = one
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def holds(self, file: PublishedFile) -> bool:
        """Whether the file has this hash, as far as its size and time of change tell."""
        one = self.finished.get(file.path)
        return one is not None and one.sha256 == file.sha256 and self._seen(file.path, file.sha256) == one

    def add(self, path: str, sha256: str) -> Finished:
        """Writes down that the file is finished and has this hash."""
        one = self._seen(path, sha256)
        assert one is not None
        self.finished[path] = one
        self._file.write(json.dumps(one) + "\n")
        self._file.flush()
        return one

    def remove(self) -> None:
        """Takes the file away, before the lock is given back, and the folder if nothing else is in it."""
        (self.folder / NAME).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _seen(self, path: str, sha256: str) -> Finished | None:
        try:
            status = (self.folder / path).stat()
        except OSError:
            return None
        return Finished(path, sha256, status.st_size, status.st_mtime_ns)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

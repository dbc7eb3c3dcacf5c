"""What a torch file could do to memory and stack although torch's restricted reader lets no code in it run."""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MAX_TUPLES = 50_000
"""Of one file: a tensor takes four. Python's hash of a tuple in 100,000 others overflows the stack of the process."""

_ANY_SIZE = ("builtins bytearray", "__builtin__ bytearray")
"""Of what the restricted reader calls, this alone makes memory of a number."""

_NUM_LEGACY = 5
"""Pickles at the start of a torch file from before 1.6: magic number, version, machine, contents, storage keys."""


def excess_of(path: Path) -> str:
    """What a torch file asks for that no weights need; empty where there is nothing.

    Raises:
        ValueError: for what is no pickle.
        zipfile.BadZipFile: for an archive that claims more than it holds, or whose checksums do not hold.
    """
    num_tuples = 0
    for file in _pickles(path):
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "GLOBAL" and argument in _ANY_SIZE:
                return "a bytearray"
            num_tuples += operation.name.startswith("TUPLE")
            if num_tuples > MAX_TUPLES:
                return f"more than {MAX_TUPLES} tuples"
    return ""


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_NUM_LEGACY):
                if file.peek(1):  # a pickle alone is none of torch's, which says so itself
                    yield file
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # torch packs nothing; what claims more than the file holds would be unpacked into any amount of memory.
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile
        if archive.testzip() is not None:  # torch.load reads past a wrong checksum
            raise zipfile.BadZipFile
        for member in members:
            if member.filename.endswith(".pkl"):
                yield io.BytesIO(archive.read(member))

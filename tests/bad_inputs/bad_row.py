"""A row of the tables of bad inputs: what is made bad, the command that meets it, what must be said."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trained_runs import SHORT


class Here:
    """The empty folder that a row's command runs in, and copies of good things to damage in it."""

    def __init__(self, path: Path, store: Path, run: Path, ptbxl: Path) -> None:
        self.path, self.good_store, self.good_run, self.good_ptbxl = path, store, run, ptbxl

    def store(self, name: str = "store.h5") -> Path:
        """A copy of a good store of 80 records."""
        return Path(shutil.copy(self.good_store, self.path / name))

    def run(self) -> Path:
        """A copy of a complete run."""
        return Path(shutil.copytree(self.good_run, self.path / "run"))

    def ptbxl(self) -> Path:
        """A copy of 80 records in PTB-XL's layout."""
        return Path(shutil.copytree(self.good_ptbxl, self.path / "ptbxl"))

    def write(self, name: str, content: str | bytes) -> Path:
        """A file of this content."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


Make = Callable[[Here], object]


def nothing(here: Here) -> None:
    """What is bad stands in the command alone."""


def both(*makes: Make) -> Make:
    """One after another."""

    def make(here: Here) -> None:
        for one in makes:
            one(here)

    return make


def file(name: str, content: str | bytes) -> Make:
    """Writes a file."""
    return lambda here: here.write(name, content)


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        name: what is bad.
        command: the command line; STORE, RUN and PTBXL stand for good ones, FIT for the flags of a small fit.
        says: what the message holds: the offending name, the rule, the way out.
        make: writes the bad thing into the empty folder that the command runs in.
        code: 1, or 2 for flags and configs.
        leaves: files that the command may leave, since they say what was wrong.
        process: run once more as a process of its own.
        bounded: memory is measured: a lie about a size must not be believed.
    """

    name: str
    command: str
    says: tuple[str, ...]
    make: Make = nothing
    code: int = 1
    leaves: tuple[str, ...] = ()
    process: bool = False
    bounded: bool = False

    def __str__(self) -> str:
        return f"{self.command.split()[0]}: {self.name}"


FIT = [*("--model.backbone", "vit", "--model.backbone.depth", "1", "--model.backbone.dim", "6"), *SHORT]

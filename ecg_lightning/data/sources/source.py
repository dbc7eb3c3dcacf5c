"""What every kind of source is read into, and what the user says of a source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import Statements
from ecg_lightning.errors import UsageError

if TYPE_CHECKING:
    from ecg_lightning.data.formats import Layout

Kind = Literal["ptbxl", "wfdb", "files", "manifest"]
WORDS: Mapping[Kind, str] = {
    "ptbxl": "PTB-XL",
    "wfdb": "a folder of WFDB records",
    "files": "a folder of files",
    "manifest": "a manifest",
}


@dataclass(frozen=True, eq=False)
class Source:
    """The records of a source in its order, before any signal is read.

    Attributes:
        kind: of the source.
        root: the folder that `paths` are below.
        paths: of the records; PTB-XL's without extension.
        records: columns by name, each (record,): ecg_id, patient_id, strat_fold, age in years (NaN where unknown), sex
            (0 male, 1 female, -1 unknown) and what else the source says.
        likelihood: (record, statement), 0 to 100, 255 where absent, 254 where unknown.
        statements: what the statements mean, and the tasks.
        attributes: of the store, such as the hash of what defines the source.
        layout: what its files do not say; None for PTB-XL, whose records have a reader of their own.
        notes: what was settled for the user, a sentence each.
    """

    kind: Kind
    root: Path
    paths: tuple[str, ...]
    records: dict[str, NDArray[Any]]
    likelihood: NDArray[np.uint8]
    statements: Statements
    attributes: dict[str, str]
    layout: "Layout | None" = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceOptions:
    """What the user says of a source, as `ecg-lightning prepare` has it in its flags.

    Attributes:
        kind: of the source; found by looking where it is None.
        layout: rate, leads and unit of files that do not say them; None where nothing was said.
        seconds: length of the stored records; by default what the backbone needs.
        labels: columns of a manifest that are labels; all that have no other meaning by default.
        task: name of a manifest's task; its file's stem by default.
        folds: number of folds to make, 10 by default.
        fold: the one fold that all records belong to, in place of made ones.
        seed: of the made folds.
        codes: table of SNOMED CT codes in place of the shipped one.

    Raises:
        UsageError: for numbers out of range, or folds and fold at once.
    """

    kind: Kind | None = None
    layout: "Layout | None" = None
    seconds: float | None = None
    labels: tuple[str, ...] | None = None
    task: str | None = None
    folds: int | None = None
    fold: int | None = None
    seed: int = 42
    codes: Path | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, *WORDS):
            raise UsageError(f"--kind is {self.kind!r}, it must be one of {', '.join(WORDS)}, or left out")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(f"--seconds is {self.seconds:g}, it must be a positive number of seconds")
        if self.folds is not None and not 2 <= self.folds <= 100:
            raise UsageError(f"--folds is {self.folds}, it must lie from 2 to 100: --folds 10")
        if self.fold is not None and not 1 <= self.fold <= 100:
            raise UsageError(f"--fold is {self.fold}, it must lie from 1 to 100: --fold 10, the fold that `test` reads")
        if self.folds is not None and self.fold is not None:
            raise UsageError(
                f"--folds {self.folds} makes folds, --fold {self.fold} puts all records into one: choose either"
            )

    def refuse(self, kind: Kind, *names: str) -> None:
        """Refuses flags that say nothing about a source of ``kind``.

        Raises:
            UsageError: naming those of ``names`` that are set.
        """
        default = SourceOptions()
        given = [name for name in names if getattr(self, name) != getattr(default, name)]
        flags = ["--sampling_rate, --leads, --unit" if name == "layout" else f"--{name}" for name in given]
        if flags:
            raise UsageError(f"{', '.join(flags)} say nothing about {WORDS[kind]} (kind {kind}): leave them out")


def basic_columns(paths: Sequence[str], patients: Sequence[str], folds: NDArray[np.int8]) -> dict[str, NDArray[Any]]:
    """The columns of records that ``paths`` and ``patients`` settle: numbers by order, a patient's by first appearance.

    A record whose patient nobody names has its own path as ``patients``, and an empty ``patient``.
    """
    number: dict[str, int] = {}
    for patient in patients:
        number.setdefault(patient, len(number) + 1)
    return {
        "ecg_id": np.arange(1, len(paths) + 1, dtype=np.int64),
        "patient_id": np.array([number[patient] for patient in patients], np.int64),
        "strat_fold": folds,
        "age": np.full(len(paths), np.nan, np.float32),
        "sex": np.full(len(paths), -1, np.int8),
        "name": np.array([PurePath(path).with_suffix("").as_posix() for path in paths], np.str_),
        "patient": np.array(
            ["" if patient == path else patient for path, patient in zip(paths, patients, strict=True)], np.str_
        ),
    }

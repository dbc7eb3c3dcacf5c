"""What weights of one's own were trained on: written into every file of them, read wherever they are loaded."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ecg_lightning.backbones.hub import local_file
from ecg_lightning.backbones.pickles import excess_of
from ecg_lightning.errors import InputError

ENTRY = "ecg_lightning"
"""Of a safetensors file's metadata, the only one that `pretrain` writes: several would come in a random order, and the
same weights would have another hash each time."""
TRAINED_ON = "trained_on"
"""Where it stands in a checkpoint, and in the metadata of an exported run."""


@dataclass(frozen=True)
class Pretraining:
    """One training on one source, with labels or without.

    Attributes:
        source: what the records are of, such as PTB-XL.
        folds: values of strat_fold that were trained on.
        records: how many, of how many patients.
        patients: of these records.
        epochs: over them.
        objective: in words.
        stores_sha256: the hashes of the stores.
    """

    source: str
    folds: tuple[int, ...]
    records: int
    patients: int
    epochs: int
    objective: str
    stores_sha256: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Pretraining":
        """The reverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: for something else.
        """
        return cls(
            str(content["source"]),
            tuple(int(fold) for fold in content["folds"]),
            int(content["records"]),
            int(content["patients"]),
            int(content["epochs"]),
            str(content["objective"]),
            tuple(str(one) for one in content["stores_sha256"]),
        )

    def __str__(self) -> str:
        folds = ", ".join(map(str, self.folds))
        return (
            f"{self.source}, fold(s) {folds}: {self.records} records of {self.patients} patients, {self.objective}, "
            f"{self.epochs} epochs"
        )


@dataclass(frozen=True)
class Origins:
    """What the weights of a run were trained on.

    Attributes:
        before: by the file that it started from.
        here: by itself.
    """

    before: tuple[Pretraining, ...] = ()
    here: tuple[Pretraining, ...] = ()

    @property
    def history(self) -> tuple[Pretraining, ...]:
        """All of it, the beginnings first."""
        return (*self.before, *self.here)

    def behind(self, past: "Origins") -> "Origins":
        """These, where the run goes on from a checkpoint that has ``past`` behind it: nothing seen is forgotten."""
        now = {(one.source, one.stores_sha256) for one in self.here}
        gone = (one for one in past.here if (one.source, one.stores_sha256) not in now)
        return Origins(past.before, (*gone, *self.here))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"before": [one.to_json() for one in self.before], "here": [one.to_json() for one in self.here]}


def pretraining_of(path: str | Path) -> tuple[Pretraining, ...]:
    """The history of a file of weights, the beginnings first, as `origins_of` reads it."""
    return origins_of(path).history


def origins_of(path: str | Path) -> Origins:
    """What a file of weights says of its training; nothing where it is not of this package, as published files are.

    Raises:
        InputError: where it says something that cannot be read.
    """
    path = local_file(path)
    entries = facts_in(path).get("pretraining", ())
    said = _of_checkpoint(path) if zipfile.is_zipfile(path) else {"before": entries, "here": ()}
    try:
        parts = (tuple(Pretraining.from_json(one) for one in said[part]) for part in ("before", "here"))
        return Origins(*parts)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: what it says of its pre-training cannot be read ({error!r}): take the file as it was written"
        ) from None


def facts_in(path: Path) -> dict[str, Any]:
    """What `pretrain` or `export` wrote into a safetensors file; empty for any other file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if TRAINED_ON in metadata:
            return {"pretraining": json.loads(metadata[TRAINED_ON])}
        found = json.loads(metadata.get(ENTRY, "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_checkpoint(path: Path) -> Any:
    """What a training of this package wrote into its checkpoint."""
    nothing = Origins().to_json()
    try:
        if excess_of(path):
            return nothing
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # of another package, or damaged: whoever loads it for its weights says so
        return nothing
    return content.get(TRAINED_ON, nothing) if isinstance(content, dict) else nothing


def seen_in(
    history: Iterable[Pretraining], sources: Sequence[str], folds: Iterable[int]
) -> list[tuple[Pretraining, list[int]]]:
    """Of a history, the parts that hold any of these folds of these sources, and which."""
    asked = set(folds)
    found = [(one, sorted(asked & {*one.folds})) for one in history if one.source in sources]
    return [(one, common) for one, common in found if common]

"""What weights of one's own were pre-trained on: written into their file, read wherever they are loaded."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ecg_lightning.backbones.hub import local_file
from ecg_lightning.errors import InputError

ENTRY = "ecg_lightning"
"""Of a safetensors file's metadata, the only one that `pretrain` writes: several would come in a random order, and the
same weights would have another hash each time."""


@dataclass(frozen=True)
class Pretraining:
    """One pre-training on one source.

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


def pretraining_of(path: str | Path) -> tuple[Pretraining, ...]:
    """What a file of weights says of its pre-training; empty where it says nothing, as published files do.

    Raises:
        InputError: where it says something that cannot be read.
    """
    path = local_file(path)
    entries = facts_in(path)
    try:
        return tuple(Pretraining.from_json(one) for one in entries.get("pretraining", ()))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: what it says of its pre-training cannot be read ({error!r}): take the file as `pretrain` wrote it"
        ) from None


def facts_in(path: Path) -> dict[str, Any]:
    """What `pretrain` wrote into a safetensors file; empty for any other file."""
    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def seen_in(
    history: Iterable[Pretraining], sources: Sequence[str], folds: Iterable[int]
) -> list[tuple[Pretraining, list[int]]]:
    """Of a history, the parts that hold any of these folds of these sources, and which."""
    asked = set(folds)
    found = [(one, sorted(asked & {*one.folds})) for one in history if one.source in sources]
    return [(one, common) for one, common in found if common]

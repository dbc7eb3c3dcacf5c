"""The one file format of predictions: an npz that `evaluate`, `report` and anybody's script read.

``labels`` is 0, 1, or 255 where a record's truth is not known: judge each label on the records with ``labels <= 1``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError
from ecg_lightning.runs import whole_file

KEYS = ("record_id", "patient_id", "fold", "probabilities", "labels", "label_names", "meta")


@dataclass(frozen=True)
class Predictions:
    """Probabilities and labels of one split."""

    record_id: NDArray[np.int64]
    """(record,)"""
    patient_id: NDArray[np.int64]
    """(record,)"""
    fold: NDArray[np.int8]
    """(record,) strat_fold."""
    probabilities: NDArray[np.float32]
    """(record, label)"""
    labels: NDArray[np.uint8]
    """(record, label) 0, 1, or 255 where unknown."""
    label_names: tuple[str, ...]
    meta: dict[str, Any]
    """Task, protocol, split, checkpoint and its hash, store (a list where there are several) and hash, version."""
    store: NDArray[np.int16] | None = None
    """(record,) which of the stores a record lies in, where there are several: ids are unique within one."""

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        optional: dict[str, Any] = {} if self.store is None else {"store": self.store}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                record_id=self.record_id,
                patient_id=self.patient_id,
                fold=self.fold,
                probabilities=self.probabilities,
                labels=self.labels,
                label_names=np.array(self.label_names),
                meta=np.array(json.dumps(self.meta)),
                **optional,
            )

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Reads a file; no code in it is ever run.

        Raises:
            InputError: when it is missing or not a predictions file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                content = {key: file[key] for key in KEYS}
                store = file.get("store", None)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist: write it with `ecg-lightning test --run RUN`") from None
        except (KeyError, ValueError, OSError) as error:
            raise InputError(f"{path} is not a predictions file ({error}); it must be an npz with {KEYS}") from None
        return cls(
            **{key: content[key] for key in KEYS[:5]},
            label_names=tuple(content["label_names"].tolist()),
            meta=json.loads(str(content["meta"])),
            store=store,
        )

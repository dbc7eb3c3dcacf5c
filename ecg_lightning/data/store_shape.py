"""Whether the data sets of a store fit together: its hash says that they are what was written, no more."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ecg_lightning.data.store_format import LIKELIHOOD, Contents, stored_signal, unlike
from ecg_lightning.errors import joined

_WHOLE = ("i", "u")
_RULES: Mapping[str, tuple[str, ...]] = {
    "signals": ("<i2", "<f4"),
    LIKELIHOOD: ("|u1",),
    **dict.fromkeys((f"records/{name}" for name in ("ecg_id", "patient_id", "strat_fold", "checksum")), _WHOLE),
    **dict.fromkeys((f"index/{name}" for name in ("sha256", "folds", "counts")), _WHOLE),
}
"""What every store has, with its types: NumPy's names or kinds."""


def check_shapes(path: Path, contents: Contents, num_statements: int, num_tasks: int) -> None:
    """Holds shapes and types of all data sets against the signal, the statements and one another.

    Raises:
        InputError: naming all that are missing or do not fit.
    """
    found = contents.layouts | contents.tables
    signal, blocks, folds = stored_signal(contents), len(contents.blocks), found["index/folds"].shape
    records = contents.layouts["signals"].shape[0]
    shapes = {
        **dict.fromkeys(contents.columns, (records,)),
        "signals": (records, len(signal.leads), signal.num_time_points),
        LIKELIHOOD: (records, num_statements),
        "index/sha256": (blocks, 32),
        "index/folds": folds[:1],
        "index/counts": (1 + num_tasks, blocks, *folds[:1]),
    }
    problems = [f"{name} is missing" for name in _RULES if name not in found]
    problems += [
        f"{name} has shape {found[name].shape}, not {shape}"
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    kinds = {name: np.dtype(found[name].dtype) for name in _RULES if name in found}
    problems += [
        f"{name} is of type {kind}" for name, kind in kinds.items() if not {kind.str, kind.kind} & set(_RULES[name])
    ]
    if 0 in shapes["signals"]:
        problems.append("it holds no signal")
    if problems:
        raise unlike(path, joined(problems))

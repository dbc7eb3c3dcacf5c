"""Several seeds of a recipe as one model: the mean of their probabilities."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.alignment import aligned, check_validation
from ecg_lightning.evaluate.inputs import Given
from ecg_lightning.evaluate.predictions import Predictions


def averaged(given: Sequence[Given], flag: str) -> Given:
    """What is judged where ``given`` decide together, each on its own probabilities and validation.

    Args:
        given: files or runs of the same records and labels, each in its own order of them.
        flag: that named them, for the message.

    Raises:
        UsageError: for fewer than two.
        InputError: where they do not belong together, or one's validation is not its own.
    """
    if len(given) < 2:
        raise UsageError(
            f"--average takes the mean of several seeds, {flag} names {given[0].name} alone: name two or more"
        )
    names, valid = [one.name for one in given], []
    for one in given:
        if one.validation is not None:
            valid.append(check_validation(one.predictions, one.validation, (one.name, f"the validation of {one.name}")))
    return Given(
        name=f"the mean of {len(given)}: {', '.join(names)}",
        path=given[0].path,
        predictions=_mean([one.predictions for one in given], names),
        validation=_mean(valid, [f"the validation of {name}" for name in names]) if len(valid) == len(given) else None,
        run=None,
        note="; ".join(one.note for one in given if one.note),
    )


def _mean(files: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    first = files[0]
    rest = [aligned(first, one, (names[0], name)) for one, name in zip(files[1:], names[1:], strict=True)]
    probabilities = np.mean([one.probabilities for one in (first, *rest)], axis=0, dtype=np.float64)
    return replace(
        first,
        probabilities=probabilities.astype(np.result_type(*(one.probabilities for one in files))),
        meta={**first.meta, **_checkpoints(files)},
    )


def _checkpoints(files: Sequence[Predictions]) -> dict[str, Any]:
    """In the place of one checkpoint all of them, and a hash of theirs."""
    hashes = [str(one.meta.get("checkpoint_sha256") or "") for one in files]
    together = hashlib.sha256(" ".join(hashes).encode()).hexdigest() if all(hashes) else ""
    return {"checkpoint": [one.meta.get("checkpoint") for one in files], "checkpoint_sha256": together}

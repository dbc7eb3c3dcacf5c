"""Protocols by name: which model a task's figures are read from, and so what may stand in one table.

``per_task``: one model for each task, judged on the records that have a label of the task (the PTB-XL benchmark).
``all71_slices``: one model for all 71 statements of PTB-XL, judged on all records; the figures of diagnostic, form and
rhythm are means over their labels among the 71. subdiagnostic and superdiagnostic are no statements, so they cannot be
read off. The records differ between the two, and so do the figures: a table never mixes them.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import class_names, read_statements
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.predictions import Predictions

Protocol = Literal["per_task", "all71_slices"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
SLICES = ("all", "diagnostic", "form", "rhythm")


class Group(NamedTuple):
    """Labels over which a macro mean is taken."""

    task: str
    kind: Literal["all", "frequent"]
    """``all`` labels with both classes, or the ``frequent`` ones among them: those with enough positives."""
    columns: NDArray[np.intp]
    """Places of the labels in the file."""


def protocol_of(predictions: Predictions, asked: str | None, name: str) -> str:
    """The protocol of a file: what was asked for, else what its meta says, else ``per_task``.

    Raises:
        UsageError: for an unknown protocol.
        InputError: where the file says another than what was asked for, or does not hold the 71 labels.
    """
    said = predictions.meta.get("protocol")
    protocol = asked or said or "per_task"
    if protocol not in PROTOCOLS:
        raise UsageError(
            f"{name}: protocol {protocol!r} is unknown, known are {', '.join(PROTOCOLS)}: add --protocol per_task"
        )
    if said == "all71_slices" and protocol != said:
        raise InputError(
            f"{name} says that its protocol is all71_slices, --protocol asks for {protocol}: its records without a "
            "label of a task were not dropped; leave out --protocol"
        )
    if protocol == "all71_slices" and set(predictions.label_names) != set(_labels_of("all")):
        raise InputError(
            f"{name} has {len(predictions.label_names)} labels, the protocol all71_slices reads the tasks off the 71 "
            "statements of PTB-XL: evaluate a model of task all, or leave out --protocol"
        )
    return protocol


def label_groups(
    names: Sequence[str], task: str, protocol: str, defined: NDArray[np.bool_], frequent: NDArray[np.bool_]
) -> list[Group]:
    """The macro means of a file, those without any label left out.

    Args:
        names: the file's labels.
        task: what the file calls its task.
        protocol: which tasks are read off.
        defined: (label,) labels with both classes.
        frequent: (label,) labels with enough positives.
    """
    tasks = {slice_: _labels_of(slice_) for slice_ in SLICES} if protocol == "all71_slices" else {task: tuple(names)}
    groups: list[Group] = []
    for name, labels in tasks.items():
        member = np.isin(names, labels) & defined
        groups += [
            Group(name, "all", np.flatnonzero(member)),
            Group(name, "frequent", np.flatnonzero(member & frequent)),
        ]
    return [group for group in groups if len(group.columns)]


@cache
def _labels_of(task: str) -> tuple[str, ...]:
    with as_file(files("ecg_lightning.data").joinpath("scp_statements.csv")) as path:
        return class_names(read_statements(path), task)

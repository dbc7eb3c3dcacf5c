"""Records of any format as `prepare` would store them, in memory; worker processes import this without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.conversion import Told, through_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import StoredSignal

if TYPE_CHECKING:
    from ecg_lightning.data.formats import Layout


@dataclass(frozen=True)
class Reading:
    """How records are read.

    Attributes:
        stored: leads, record rate and chain.
        record_points: time points before the chain; longer records are cut to them.
        least: time points that the backbone needs; records from these on keep their length.
        layout: what files do not say.
    """

    stored: StoredSignal
    record_points: int
    least: int
    layout: "Layout"


class Job(NamedTuple):
    """One record: its place among all, and its path."""

    place: int
    path: Path


class ReadRecord(NamedTuple):
    """What became of a record: the signal (lead, time) in mV behind the chain, what it was; or the problem."""

    place: int
    ecg: NDArray[np.float32] | None
    told: Told | None
    problem: str


def read_records(reading: Reading, jobs: Sequence[Job]) -> list[ReadRecord]:
    """Reads the records of one chunk, by the readers and the conversion of `prepare`."""
    from ecg_lightning.data.any_record import conformed

    found = []
    for job in jobs:
        try:
            record = conformed(job.path, reading.layout, reading.stored, reading.record_points, reading.least)
        except InputError as error:
            found.append(ReadRecord(job.place, None, None, str(error)))
            continue
        found.append(ReadRecord(job.place, through_chain(record.ecg, reading.stored), Told(*record[1:]), ""))
    return found

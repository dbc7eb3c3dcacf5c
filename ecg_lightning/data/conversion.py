"""The work of `prepare` on each record: read, run the chain, write by offset. Worker processes import this alone."""

import errno
import os
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.chains import run_record_chain
from ecg_lightning.data.record import MILLIVOLTS_PER_UNIT, flat_leads, read_record
from ecg_lightning.data.workers import over_chunks
from ecg_lightning.errors import InputError
from ecg_lightning.signals import StoredSignal

if TYPE_CHECKING:
    from ecg_lightning.data.formats import Layout


@dataclass(frozen=True)
class Target:
    """Where records come from and go to: the file, the place of its signals, what is stored, in which dtype.

    ``layout`` is None for PTB-XL's records, which must be as they are stored; those of other sources are made to fit.
    """

    source: Path
    path: Path
    offset: int
    stored: StoredSignal
    record_points: int
    dtype: str
    layout: "Layout | None"


class Job(NamedTuple):
    """One record: its row in the store, its ecg_id, its path below the source."""

    row: int
    ecg_id: int
    path: str


class Told(NamedTuple):
    """What a record of another source than PTB-XL was: its rate in Hz and length, what was done, what is doubtful."""

    sampling_rate: float
    num_time_points: int
    notes: list[str]
    doubts: list[str]


class Outcome(NamedTuple):
    """What became of a record: checksum, flat leads and what it was, or the problem.

    ``too_fine`` says that the store is of int16 and the record's values are not whole units.
    """

    row: int
    checksum: int
    flat: list[str]
    problem: str
    told: Told | None = None
    too_fine: bool = False


Outcomes = Generator[list[Outcome], None, None]


def convert_all(target: Target, jobs: Sequence[Job], workers: int | None) -> Outcomes:
    """Converts all records, chunk by chunk in any order; ``workers=None`` starts processes only if that pays.

    Raises:
        InputError: when a worker process died.
        OSError: when the store cannot be written.
    """
    yield from over_chunks(partial(convert, target), jobs, workers)


def convert(target: Target, jobs: Sequence[Job]) -> list[Outcome]:
    """Reads, filters and writes the records of one chunk."""
    outcomes = []
    with target.path.open("r+b", buffering=0) as file:
        for job in jobs:
            try:
                ecg, flat, told = _signal(target, job)
            except InputError as error:
                problem, too_fine = f"ecg_id {job.ecg_id}: {error}", isinstance(error, TooFineError)
                outcomes.append(Outcome(job.row, 0, [], problem, too_fine=too_fine))
                continue
            data = ecg.tobytes()
            _write(file.fileno(), data, target.offset + job.row * len(data))
            outcomes.append(Outcome(job.row, zlib.crc32(data), flat, "", told))
    return outcomes


class TooFineError(InputError):
    """A record whose values are not whole units of the store."""


def _signal(target: Target, job: Job) -> tuple[NDArray[Any], list[str], Told | None]:
    """The record as it is stored (lead, time), its flat leads, and what it was."""
    stored, path = target.stored, target.source / job.path
    told = None
    ecg: NDArray[Any]
    if target.layout is None:
        ecg = read_record(path, stored.leads, stored.record_rate, target.record_points)
    else:
        from ecg_lightning.data.any_record import conformed  # PTB-XL's workers do without the formats

        found = conformed(path, target.layout, stored, target.record_points)
        ecg, told = found.ecg, Told(*found[1:])
    flat = flat_leads(ecg, stored.leads)
    if target.dtype == "<f4":
        ecg = through_chain(ecg, stored)
    elif ecg.dtype != np.int16:
        raise TooFineError(
            f"{path}: its values are not whole multiples of {MILLIVOLTS_PER_UNIT} mV within int16, an unfiltered store "
            "holds nothing finer: write it with a gain of 1000 per mV (wfdb.wrsamp), or leave it out with "
            "--on_error skip"
        )
    return ecg.astype(target.dtype), flat, told


def through_chain(ecg: NDArray[np.int16] | NDArray[np.float64], stored: StoredSignal) -> NDArray[np.float32]:
    """``ecg`` (lead, time) as `read_record` gives it -> mV behind the steps before the crop, as a store holds it."""
    scale = 1.0 if ecg.dtype == np.float64 else round(1 / MILLIVOLTS_PER_UNIT)
    millivolts = np.asarray(ecg / scale, np.float64)
    return run_record_chain(stored.chain, millivolts, stored.record_rate).astype(np.float32)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    # Not through a map: there a full disk is a SIGBUS, here an error that can be told.
    if os.pwrite(descriptor, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

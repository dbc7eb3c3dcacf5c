"""The work of `prepare` on each record: read, run the chain, write by offset. Worker processes import this alone."""

import errno
import os
import time
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
from ecg_lightning.data.workers import in_processes, usable_cores
from ecg_lightning.errors import InputError
from ecg_lightning.signals import StoredSignal

if TYPE_CHECKING:
    from ecg_lightning.data.formats import Layout

CHUNK = 16
"""Records per job."""
POOL_PAYS_SECONDS = 2.0
"""Work, on one core, from which on worker processes are started unasked: they take half a second to come up."""


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
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    if workers is None and chunks:
        started = time.perf_counter()
        yield convert(target, chunks.pop(0))
        pays = (time.perf_counter() - started) * len(chunks) > POOL_PAYS_SECONDS
        workers = usable_cores() if pays else 1
    if workers == 1:
        yield from (convert(target, chunk) for chunk in chunks)
    elif chunks:
        yield from in_processes(partial(convert, target), chunks, min(workers or 1, len(chunks)))


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

        ecg, sampling_rate, length, notes, doubts = conformed(path, target.layout, stored, target.record_points)
        told = Told(sampling_rate, length, notes, doubts)
    flat = flat_leads(ecg, stored.leads)
    if target.dtype == "<f4":
        scale = 1.0 if ecg.dtype == np.float64 else round(1 / MILLIVOLTS_PER_UNIT)
        ecg = run_record_chain(stored.chain, np.asarray(ecg / scale, np.float64), stored.record_rate)
    elif ecg.dtype != np.int16:
        raise TooFineError(
            f"{path}: its values are not whole multiples of {MILLIVOLTS_PER_UNIT} mV within int16, an unfiltered store "
            "holds nothing finer: write it with a gain of 1000 per mV (wfdb.wrsamp), or leave it out with "
            "--on_error skip"
        )
    return ecg.astype(target.dtype), flat, told


def _write(descriptor: int, data: bytes, offset: int) -> None:
    # Not through a map: there a full disk is a SIGBUS, here an error that can be told.
    if os.pwrite(descriptor, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

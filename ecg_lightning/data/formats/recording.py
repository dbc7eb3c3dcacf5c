"""What a file of any format is read into, and what the user says of files that do not say it themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.units import MILLIVOLTS
from ecg_lightning.data.record import MAX_VALUES
from ecg_lightning.errors import InputError, UsageError


@dataclass(frozen=True, eq=False)
class Recording:
    """One ECG as its file has it; `conform` makes it what a backbone takes.

    Attributes:
        ecg: voltage in mV, (lead, time); finite throughout.
        sampling_rate: Hz.
        leads: the leads' names as the file spells them (`lead_name` knows the aliases).
        facts: what the file says of the record besides, as it is written there. Comments of WFDB headers and CSV files
            keep their names (``Age``, ``Sex``, ``Dx``); aECG, MUSE and DICOM give ``PatientID``, ``Age`` (years),
            ``Sex``, ``Date``, ``Statements`` where they have them. Names of patients are left out.
    """

    ecg: NDArray[np.float64]
    sampling_rate: float
    leads: tuple[str, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """What a file that does not say it (CSV, NPY) holds: the flags ``--sampling_rate``, ``--leads`` and ``--unit``.

    Attributes:
        sampling_rate: Hz; a file that states its own must agree.
        leads: names in the order of the file.
        unit: of the values: mV, uV or V.

    Raises:
        UsageError: for a rate that is not positive, leads given twice or without a name, an unknown unit.
    """

    sampling_rate: float | None = None
    leads: tuple[str, ...] | None = None
    unit: str = "mV"

    def __post_init__(self) -> None:
        if self.sampling_rate is not None and not 0 < self.sampling_rate < np.inf:
            raise UsageError(f"--sampling_rate is {self.sampling_rate}, it must be a positive number of Hz")
        if self.unit not in MILLIVOLTS:
            raise UsageError(f"--unit is {self.unit!r}, it must be one of {', '.join(MILLIVOLTS)}")
        if self.leads is not None:
            names = [lead.strip().upper() for lead in self.leads]
            if not names or "" in names or len(set(names)) < len(names):
                raise UsageError(f"--leads is {','.join(self.leads)!r}: name each lead once, such as --leads I,II,V1")


def make_recording(
    path: str | Path, values: NDArray[np.float64], sampling_rate: float, leads: Sequence[str], facts: Mapping[str, str]
) -> Recording:
    """A recording of ``values`` (lead, time) in mV that has time points, and none of them missing.

    Raises:
        InputError: for no lead or time point, a rate that is not positive, missing or infinite values.
    """
    if not values.size:
        raise InputError(f"{path} holds no time points: fetch or export it again, or leave it out")
    if not 0 < sampling_rate < np.inf:
        raise InputError(f"{path}: its sampling rate is {sampling_rate:g} Hz, it must be positive: mend the file")
    if not (whole := np.isfinite(values)).all():
        names = ", ".join(lead for lead, row in zip(leads, whole, strict=True) if not row.all())
        raise InputError(
            f"{path}: missing or infinite time points in lead {names}, a network cannot take them: fill them, or "
            "leave the record out"
        )
    return Recording(np.ascontiguousarray(values), float(sampling_rate), tuple(leads), dict(facts))


def read_bytes(path: Path, at_most: int = 8 * MAX_VALUES) -> bytes:
    """The file's content, of ``at_most`` so many bytes.

    Raises:
        InputError: for a file that cannot be read, or is longer than any ECG.
    """
    try:
        check_size(path, path.stat().st_size, at_most)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): mend its permissions, or leave it out") from error


def check_size(path: Path, num_bytes: int, at_most: int = 8 * MAX_VALUES) -> None:
    """Refuses what is longer than any ECG, before memory is asked for.

    Raises:
        InputError: above ``at_most`` bytes.
    """
    if num_bytes > at_most:
        raise InputError(
            f"{path} holds {num_bytes / 2**20:.0f} MiB, at most {at_most / 2**20:.0f} MiB are read: cut it into "
            "records of the length that the network takes"
        )


def to_float(path: Path, what: str, text: str) -> float:
    """``text`` as a finite number.

    Raises:
        InputError: naming what it is of.
    """
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise InputError(f"{path}: {what} is {text[:40]!r}, it must be a number: fetch or export the file again")
    return number


def stack_leads(path: Path, leads: Sequence[tuple[str, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Leads with their names -> (lead, time).

    Raises:
        InputError: for no leads, or leads of unequal length.
    """
    lengths = {name: len(signal) for name, signal in leads}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "none"
        raise InputError(f"{path}: its leads must be there and of one length, time points are: {told}: export it again")
    return np.stack([signal for _, signal in leads])


def facts_of_comments(lines: Sequence[str]) -> dict[str, str]:
    """Comments such as ``Age: 84`` -> {"Age": "84"}; what has no name is gathered under ``comments``."""
    facts: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.strip().lstrip("#").partition(":")
        name, value = (name.strip(), value.strip()) if colon and name.strip() else ("comments", line.strip(" #"))
        if value:
            facts[name] = f"{facts[name]}; {value}" if name in facts else value
    return facts

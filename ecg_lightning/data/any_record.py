"""One record of any format as a store takes it, before the chain, with what was done to it and what is doubtful."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats import Layout, Recording, conform, read_recording, warnings_of
from ecg_lightning.data.record import whole_units
from ecg_lightning.errors import InputError
from ecg_lightning.signals import StoredSignal


class Conformed(NamedTuple):
    """A record that fits.

    Attributes:
        ecg: (lead, time); int16 in units of 0.001 mV where that loses nothing, float64 in mV otherwise.
        sampling_rate: of the file, Hz.
        num_time_points: of the file.
        notes: what was done to it, a few words each.
        doubts: what makes it doubtful, a sentence each.
    """

    ecg: NDArray[np.int16] | NDArray[np.float64]
    sampling_rate: float
    num_time_points: int
    notes: list[str]
    doubts: list[str]


def conformed(
    path: Path, layout: Layout, stored: StoredSignal, record_points: int, least: int | None = None
) -> Conformed:
    """Reads the file at ``path`` and makes it ``record_points`` of ``stored``'s leads at its record rate.

    A record from ``least`` time points on keeps its length where that is given.

    Raises:
        InputError: naming the file, for all that is wrong with it, and for records that cannot be made to fit.
    """
    return fitted(path, read_recording(path, layout), stored, record_points, least)


def fitted(
    name: str | Path, recording: Recording, stored: StoredSignal, record_points: int, least: int | None = None
) -> Conformed:
    """What `conformed` makes of a recording that is read already, and that messages call ``name``.

    Raises:
        InputError: for records that cannot be made to fit.
    """
    try:
        ecg, notes = conform(recording, stored.leads, stored.record_rate, least or record_points, record_points)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    length = recording.ecg.shape[1]
    return Conformed(whole_units(ecg), recording.sampling_rate, length, notes, warnings_of(recording))

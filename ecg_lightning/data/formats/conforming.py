"""Makes a recording what a network takes: its leads, its rate, its length; and says what was done for it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.lead_names import lead_name, places_of
from ecg_lightning.data.formats.recording import Recording
from ecg_lightning.errors import InputError, joined

FROM_LIMB_LEADS: Mapping[str, tuple[float, float]] = {
    "III": (-1.0, 1.0),
    "AVR": (-0.5, -0.5),
    "AVL": (1.0, -0.5),
    "AVF": (-0.5, 1.0),
}
"""Parts of lead I and of lead II in the leads that the two determine: III = II - I (Einthoven), and Goldberger's."""

_LEAVE_OUT = "take a longer record, or leave this one out"


def conform(
    recording: Recording,
    leads: Sequence[str],
    sampling_rate: float,
    num_time_points: int | None,
    longest: int | None = None,
) -> tuple[NDArray[np.float64], list[str]]:
    """``recording`` as (lead, time) in mV: ``leads`` in this order, at ``sampling_rate`` Hz, ``num_time_points`` long.

    Leads are matched by name, aliases and case aside. III, aVR, aVL and aVF are derived from I and II where the file
    lacks them. Another rate is reached by an anti-aliased polyphase filter, and a longer record is cut to its first
    time points; without ``num_time_points`` it keeps its length. With ``longest`` it may have any number of time points
    from ``num_time_points`` to that.

    Returns:
        The ECG, and one note per thing that was done to it besides picking leads.

    Raises:
        InputError: for leads that are missing or there twice, a record that is too short; all in one message, which
            does not name the file: a recording does not know it.
    """
    notes: list[str] = []
    ratio = _ratio(sampling_rate, recording.sampling_rate)
    problems = _length_problems(recording, ratio, sampling_rate, num_time_points)
    try:
        ecg = _pick(recording, leads, notes)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise InputError(joined(problems))
    if ratio != 1:
        ecg = _resample(ecg, ratio)
        notes.append(_words(recording.sampling_rate, sampling_rate))
    longest = num_time_points if longest is None else longest
    if longest is not None and ecg.shape[1] > longest:
        notes.append(f"cut to its first {longest} of {ecg.shape[1]} time points")
        ecg = ecg[:, :longest]
    return np.ascontiguousarray(ecg), notes


def _pick(recording: Recording, leads: Sequence[str], notes: list[str]) -> NDArray[np.float64]:
    """The asked leads (lead, time); derived ones are noted.

    Raises:
        ValueError: naming those that are there twice, or neither there nor derived.
    """
    try:
        places = places_of(recording.leads)
    except ValueError as error:
        raise ValueError(f"{error}: name each lead once in the file") from None
    wanted = [lead_name(lead).upper() for lead in leads]
    limb = [places[name] for name in ("I", "II") if name in places]
    derived = [name for name in wanted if name not in places and name in FROM_LIMB_LEADS and len(limb) == 2]
    missing = [lead for lead, name in zip(leads, wanted, strict=True) if name not in places and name not in derived]
    if missing:
        raise ValueError(
            f"leads missing: {', '.join(missing)} (found {', '.join(recording.leads)}; III, aVR, aVL and aVF are "
            "derived from I and II): name the leads so in the file, with --leads where it names none, or take a "
            "backbone for the leads there are"
        )
    if derived:
        names = [lead for lead, name in zip(leads, wanted, strict=True) if name in derived]
        notes.append(f"{', '.join(names)} derived from I and II (Einthoven, Goldberger)")
    rows = [
        np.tensordot(FROM_LIMB_LEADS[name], recording.ecg[limb], 1) if name in derived else recording.ecg[places[name]]
        for name in wanted
    ]
    return np.stack(rows)


def _ratio(to: float, sampling_rate: float) -> Fraction:
    """New time points per old one, as a fraction of numbers small enough for a filter."""
    if not 0.001 <= to / sampling_rate <= 1000:
        raise InputError(f"{sampling_rate:g} Hz is too far from {to:g} Hz: is the rate right? Mend it in the file")
    ratio = Fraction(to) / Fraction(sampling_rate)
    return ratio.limit_denominator(10_000) if ratio < 1 else 1 / (1 / ratio).limit_denominator(10_000)


def _length_problems(recording: Recording, ratio: Fraction, sampling_rate: float, needed: int | None) -> list[str]:
    """Whether the recording, resampled by ``ratio``, is too short for ``needed`` time points."""
    length = -(-recording.ecg.shape[1] * ratio.numerator // ratio.denominator)
    if needed is None or length >= needed:
        return []
    return [
        f"it lasts {length / sampling_rate:.4g} s ({length} time points at {sampling_rate:g} Hz), the network takes "
        f"{needed / sampling_rate:.4g} s ({needed}): {_LEAVE_OUT}"
    ]


def _resample(ecg: NDArray[np.float64], ratio: Fraction) -> NDArray[np.float64]:
    """``ecg`` (lead, time) at ``ratio`` times its rate; the line between its ends is taken away and put back."""
    from scipy.signal import resample_poly

    return np.asarray(resample_poly(ecg, ratio.numerator, ratio.denominator, axis=-1, padtype="line"))


def _words(old: float, new: float) -> str:
    above = "" if new < old else f"; it holds nothing above {old / 2:g} Hz"
    return f"resampled from {old:g} to {new:g} Hz (polyphase, anti-aliased{above})"

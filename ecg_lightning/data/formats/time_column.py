"""The sampling rate that a column of times tells."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError

COUNTERS = ("", "index", "sample", "samples", "sample_number", "sample number", "n")
"""Names of columns that count the time points: they tell no rate."""

_TIME = re.compile(
    r"(?:t|time|times|seconds|sec|ms|msec|milliseconds|elapsed|elapsed[ _]time|timestamp)"
    r"(?:[ _]*[(\[]?\s*(s|sec|seconds|ms|msec|milliseconds|us|µs|microseconds)\s*[)\]]?)?",
    re.IGNORECASE,
)
_PER_SECOND = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e3, "msec": 1e3, "milliseconds": 1e3}
_PER_SECOND |= {"us": 1e6, "µs": 1e6, "microseconds": 1e6}
_AGREE = 0.002
_PLAUSIBLE = (50.0, 40_000.0)


def is_time(name: str) -> bool:
    """Whether a column of this name holds the time: ``time``, ``t``, ``Time (ms)``, ``seconds`` ..."""
    return _TIME.fullmatch(name.strip()) is not None


def is_time_unit(text: str) -> bool:
    """Whether ``text`` is a unit of time: ``s``, ``seconds``, ``ms`` ..."""
    return text.lower() in _PER_SECOND


def rate_of(path: Path, name: str, times: NDArray[np.float64], expected: float | None) -> float:
    """The rate in Hz of evenly spaced ``times``; a whole number where it is one to 0.1 %, as times are rounded.

    The unit stands in the column's name (``Time (ms)``), or it is that in which the rate is ``expected``, or seconds.

    Raises:
        InputError: for times that are not evenly spaced (gaps, repeats), another rate than ``expected``, and a rate
            that no ECG has when nothing says the unit.
    """
    if len(times) < 2 or not np.isfinite(times).all():
        raise InputError(f"{path}: column {name} does not hold two or more times: take it out, give --sampling_rate")
    step = (times[-1] - times[0]) / (len(times) - 1)
    _refuse_uneven(path, name, times, step)
    units = _units(name)
    rates = [_rounded(_PER_SECOND[unit] / step) for unit in units]
    if expected is not None:
        if not any(abs(rate - expected) <= _AGREE * expected for rate in rates):
            raise InputError(
                f"{path}: column {name} tells {rates[0]:.6g} Hz, --sampling_rate {expected:g}: leave the flag out, or "
                "take the column out"
            )
        return expected
    if len(units) > 1 and not _PLAUSIBLE[0] <= rates[0] <= _PLAUSIBLE[1]:
        raise InputError(
            f"{path}: column {name} tells {rates[0]:.6g} Hz if it is in seconds: name it {name} (ms) if it is in "
            "milliseconds, or give --sampling_rate"
        )
    return rates[0]


def _refuse_uneven(path: Path, name: str, times: NDArray[np.float64], step: float) -> None:
    """Told are gaps, repeats and drift; times of 512 Hz in whole milliseconds are off by half a step and even."""
    jumps = np.abs(np.diff(times) - step)
    drift = np.abs(times - times[0] - step * np.arange(len(times)))
    if step <= 0 or jumps.max() > 0.75 * step or drift.max() > 0.9 * step:
        raise InputError(
            f"{path}: the times in column {name} are not evenly spaced (farthest off behind row {jumps.argmax() + 1}): "
            "resample the record to one rate, or take the column out and give --sampling_rate"
        )


def _units(name: str) -> list[str]:
    """The unit that the column's name tells, or all that it may be."""
    found = _TIME.fullmatch(name.strip())
    told = (found[1] if found and found[1] else name.strip()).lower()
    return [told] if told in _PER_SECOND else ["s", "ms", "us"]


def _rounded(rate: float) -> float:
    whole = round(rate)
    return float(whole) if whole and abs(rate - whole) <= 0.001 * rate else float(rate)

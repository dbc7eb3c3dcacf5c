"""An ECG on ECG paper: 25 mm/s, 10 mm/mV, drawn in millimetres so that the proportions are those of the paper."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

MM_PER_SECOND, MM_PER_MV = 25.0, 10.0
_STANDARD = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_RHYTHM = "II"
_SECONDS = 10.0
_ROW_MM = 25.0
_MARGIN_MM = 5.0
_LEFT_MM = 10.0
"""Room for the calibration pulse."""
_FINE, _COARSE, _INK = "#FBE3DE", "#F0B5AA", "#1A1A1A"


class Segment(NamedTuple):
    """One stretch of one lead, and where it stands."""

    lead: str
    row: int
    start: float
    """Seconds into the record; also its place on the row."""
    stop: float


def ecg_paper(axes: Axes, ecg: NDArray[np.floating], sampling_rate: float, leads: Sequence[str]) -> None:
    """Draws the first 10 s of ``ecg`` (lead, time), in mV.

    Twelve standard leads stand in three rows of four (each lead a quarter of the time) over a rhythm strip of lead II;
    any other set in a row each. One small square is 40 ms by 0.1 mV; every row begins with a pulse of 1 mV over 0.2 s.
    Lead names are matched case aside.
    """
    ecg = ecg[:, : round(_SECONDS * sampling_rate)]
    seconds = ecg.shape[1] / sampling_rate
    segments = list(layout(leads, seconds))
    num_rows = 1 + max(segment.row for segment in segments)
    width = _LEFT_MM + seconds * MM_PER_SECOND + _MARGIN_MM
    height = num_rows * _ROW_MM + 2 * _MARGIN_MM
    _grid(axes, width, height)
    places = {name.lower(): place for place, name in enumerate(leads)}
    for segment in segments:
        _trace(axes, segment, ecg[places[segment.lead.lower()]], sampling_rate, _zero_line(segment.row, height))
    for row in range(num_rows):
        _pulse(axes, _zero_line(row, height))
    axes.text(width - 1, 1, "25 mm/s   10 mm/mV", ha="right", va="bottom", fontsize="x-small", color=_INK)


def layout(leads: Sequence[str], seconds: float) -> Iterator[Segment]:
    """Where each lead stands.

    >>> [segment.lead for segment in layout(["I", "II"], 10.0)]
    ['I', 'II']
    """
    standard = {name.lower() for row in _STANDARD for name in row}
    if not standard <= {name.lower() for name in leads}:
        yield from (Segment(name, row, 0.0, seconds) for row, name in enumerate(leads))
        return
    quarter = seconds / len(_STANDARD[0])
    for row, names in enumerate(_STANDARD):
        for column, name in enumerate(names):
            yield Segment(name, row, column * quarter, (column + 1) * quarter)
    yield Segment(_RHYTHM, len(_STANDARD), 0.0, seconds)


def _zero_line(row: int, height: float) -> float:
    """Height of a row's 0 mV in mm, a little below its middle: R waves are taller than S waves are deep."""
    return height - _MARGIN_MM - (row + 0.6) * _ROW_MM


def _grid(axes: Axes, width: float, height: float) -> None:
    for step, colour, thickness in ((1.0, _FINE, 0.3), (5.0, _COARSE, 0.5)):
        across, up = np.arange(0, width + 0.1, step), np.arange(0, height + 0.1, step)
        lines = [((x, 0.0), (x, height)) for x in across] + [((0.0, y), (width, y)) for y in up]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=thickness, zorder=0))
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set(color=_COARSE, linewidth=0.6)


def _trace(axes: Axes, segment: Segment, lead: NDArray[np.floating], sampling_rate: float, zero: float) -> None:
    """``lead`` (time,) in mV, from the segment's start to its stop; the point at the stop joins it to the next."""
    first, last = round(segment.start * sampling_rate), round(segment.stop * sampling_rate)
    points = np.arange(first, min(last + 1, len(lead)))
    across = _LEFT_MM + points / sampling_rate * MM_PER_SECOND
    axes.plot(across, zero + lead[points] * MM_PER_MV, color=_INK, lw=0.55, solid_joinstyle="round", zorder=2)
    start = _LEFT_MM + segment.start * MM_PER_SECOND
    if segment.start:
        axes.plot([start, start], [zero - 4, zero + 4], color=_INK, lw=0.4, zorder=2)
    axes.text(
        start + 1, zero + 0.56 * _ROW_MM, segment.lead, va="top", fontsize="small", weight="bold", color=_INK, zorder=1,
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _pulse(axes: Axes, zero: float) -> None:
    """1 mV for 0.2 s."""
    across = np.array([1.0, 2.5, 2.5, 7.5, 7.5, 9.0])
    axes.plot(across, zero + MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]), color=_INK, lw=0.55, zorder=2)

"""An ECG on ECG paper: 25 mm/s, 10 mm/mV, drawn in millimetres so that the proportions are those of the paper.

Plotting packages were weighed first (November 2026). ecg-plot 0.3 (MIT) counts in millimetres, but stands the twelve
leads in islands of paper, out of step with the rhythm strip under them, and lets one spike of 11 mV stretch every row
(page 1,025 mm tall); pmecg 0.3 is GPL and cuts large voltages off; wfdb and neurokit2 have no paper scale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

MM_PER_SECOND, MM_PER_MV = 25.0, 10.0
ROW_SECONDS = 10.0
LONGEST_STRIP = 60.0
"""Seconds of rhythm that are drawn of a long record, in rows of 10."""

_STANDARD = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_RHYTHM = "II"
_MARGIN_MM = 5.0
_LEFT_MM = 10.0
"""Room for the calibration pulse."""
_SQUARE_MM = 5.0
"""Zero lines lie on the thick lines of the grid."""
_ROW_MM, _MOST_ROW_MM = 25.0, 40.0
_ABOVE_MM, _BELOW_MM = 15.0, 15.0
_CLEAR_MM = 2.0
"""Room kept between traces, and the width in which they are compared."""
_NAME_MM, _NAME_ABOVE_MM = (8.0, 4.0), 14.8
"""Width and height kept free for a lead's name; its top above 0 mV."""
_FINE, _COARSE, _INK, _CROSSING_INK = "#FBE3DE", "#F0B5AA", "#1A1A1A", "#1D4FA3"


class Segment(NamedTuple):
    """One stretch of one lead, and where it stands."""

    lead: str
    row: int
    start: float
    """Seconds into the record."""
    stop: float
    left: float = 0.0
    """Seconds into the record at the left end of the row."""

    @property
    def across(self) -> float:
        """Where the stretch begins on the paper, in mm."""
        return _LEFT_MM + (self.start - self.left) * MM_PER_SECOND


@dataclass(frozen=True)
class Paper:
    """What is drawn where, in mm from the lower left corner.

    Attributes:
        width: of the paper.
        height: of the paper.
        segments: the stretches of leads.
        zeros: (row,) heights of the 0 mV lines.
        crossing: leads, in small letters, that run into other rows or over the edge; drawn in blue.
        remark: what the reader must know about the drawing, empty for nothing.
    """

    width: float
    height: float
    segments: tuple[Segment, ...]
    zeros: tuple[float, ...]
    crossing: frozenset[str]
    remark: str


def ecg_paper(
    axes: Axes, ecg: NDArray[np.floating], sampling_rate: float, leads: Sequence[str], *, make_room: bool = True
) -> None:
    """Draws ``ecg`` (lead, time), in mV, on ``axes`` of any size; for true scale see `ecg_page`.

    One small square is 40 ms by 0.1 mV; every row begins with a pulse of 1 mV over 0.2 s. ``make_room``: `plan_paper`.
    """
    draw_paper(axes, plan_paper(ecg, sampling_rate, leads, make_room=make_room), ecg, sampling_rate, leads)


def plan_paper(
    ecg: NDArray[np.floating], sampling_rate: float, leads: Sequence[str], *, make_room: bool = True
) -> Paper:
    """Where ``ecg`` (lead, time), in mV, stands on the paper.

    Twelve standard leads stand in three rows of four (each lead a quarter of the first 10 s) over a rhythm strip of
    lead II; any other set in a row each; lead names are matched case aside. Rows move apart, up to 40 mm, until their
    traces do not touch; ``make_room=False`` keeps them 25 mm apart. Leads that still touch others are named and blue.
    """
    seconds = ecg.shape[1] / sampling_rate
    segments = tuple(layout(leads, seconds))
    across = max(segment.stop - segment.left for segment in segments)
    width = _LEFT_MM + across * MM_PER_SECOND + _MARGIN_MM
    high, low, of_lead = _envelope(segments, ecg, sampling_rate, leads, width)
    gaps = _gaps(high, low, make_room)
    crossing = _crossing(gaps, high, low, of_lead)
    height = sum(gaps) + 2 * _MARGIN_MM
    zeros = tuple(height - _MARGIN_MM - sum(gaps[: row + 1]) for row in range(len(gaps) - 1))
    remark = "  ".join(filter(None, (_crossing_remark(crossing, ecg, leads), _length_remark(segments, seconds))))
    return Paper(width, height, segments, zeros, crossing, remark)


def layout(leads: Sequence[str], seconds: float) -> Iterator[Segment]:
    """Where each lead stands; of a record over 10 s, the rhythm strip (or the only lead) goes on in further rows.

    >>> [segment.lead for segment in layout(["I", "II"], 10.0)]
    ['I', 'II']
    """
    first = min(seconds, ROW_SECONDS)
    standard = {name.lower() for row in _STANDARD for name in row}
    if standard <= {name.lower() for name in leads}:
        quarter = first / len(_STANDARD[0])
        for row, names in enumerate(_STANDARD):
            for column, name in enumerate(names):
                yield Segment(name, row, column * quarter, (column + 1) * quarter)
        yield from _strip(_RHYTHM, len(_STANDARD), seconds)
    elif len(leads) == 1:
        yield from _strip(leads[0], 0, seconds)
    else:
        yield from (Segment(name, row, 0.0, first) for row, name in enumerate(leads))


def _strip(lead: str, row: int, seconds: float) -> Iterator[Segment]:
    shown, start = min(seconds, LONGEST_STRIP), 0.0
    while start < shown:
        yield Segment(lead, row, start, min(start + ROW_SECONDS, shown), start)
        start, row = start + ROW_SECONDS, row + 1


def draw_paper(axes: Axes, paper: Paper, ecg: NDArray[np.floating], sampling_rate: float, leads: Sequence[str]) -> None:
    """Draws ``ecg`` (lead, time), in mV, as `plan_paper` laid it out for it; one unit of ``axes`` is 1 mm."""
    _grid(axes, paper.width, paper.height)
    places = {name.lower(): place for place, name in enumerate(leads)}
    for segment in paper.segments:
        ink = _CROSSING_INK if segment.lead.lower() in paper.crossing else _INK
        trace = _trace(segment, ecg[places[segment.lead.lower()]], sampling_rate)
        _draw_segment(axes, segment, *trace, paper.zeros[segment.row], ink)
    for zero in paper.zeros:
        _pulse(axes, zero)
    axes.text(paper.width - 1, 1, "25 mm/s   10 mm/mV", ha="right", va="bottom", fontsize="x-small", color=_INK)
    axes.text(1, 1, paper.remark, va="bottom", fontsize="x-small", color=_CROSSING_INK, parse_math=False)


def _trace(
    segment: Segment, lead: NDArray[np.floating], sampling_rate: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """``lead`` (time,) from start to stop: mm across, mm above 0 mV; the point at the stop joins it to the next."""
    first, last = round(segment.start * sampling_rate), round(segment.stop * sampling_rate)
    points = np.arange(first, min(last + 1, len(lead)))
    across = _LEFT_MM + (points / sampling_rate - segment.left) * MM_PER_SECOND
    return across, lead[points].astype(np.float64) * MM_PER_MV


def _envelope(
    segments: Sequence[Segment], ecg: NDArray[np.floating], sampling_rate: float, leads: Sequence[str], width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    """Highest and lowest mm of each row over the paper's width, (row, place), and the lead that stands there."""
    places = {name.lower(): place for place, name in enumerate(leads)}
    shape = (1 + max(segment.row for segment in segments), int(width // _CLEAR_MM) + 3)
    high, low, of_lead = np.full(shape, -np.inf), np.full(shape, np.inf), np.full(shape, "", "U32")
    for segment in segments:
        across, up = _trace(segment, ecg[places[segment.lead.lower()]], sampling_rate)
        at = (across // _CLEAR_MM).astype(int) + 1
        for shift in (-1, 0, 1):
            np.maximum.at(high[segment.row], at + shift, up)
            np.minimum.at(low[segment.row], at + shift, up)
        of_lead[segment.row, at] = segment.lead.lower()
    return high, low, of_lead


def _gaps(high: NDArray[np.float64], low: NDArray[np.float64], make_room: bool) -> list[float]:
    """Gaps in mm: from the upper margin to the first zero line, from line to line, to the lower margin."""
    # Beside the end of a short strip there is nothing: infinitely low.
    needed = [
        np.max(high[0], initial=0.0),
        *np.max(high[1:] - low[:-1], axis=1, initial=0.0),
        np.max(-low[-1], initial=0.0),
    ]
    least = [_ABOVE_MM, *[_ROW_MM] * (len(high) - 1), _BELOW_MM]
    if not make_room:
        return least
    squares = [np.ceil((mm + _CLEAR_MM) / _SQUARE_MM) * _SQUARE_MM for mm in needed]
    return [float(np.clip(mm, low_mm, _MOST_ROW_MM)) for mm, low_mm in zip(squares, least, strict=True)]


def _crossing(
    gaps: Sequence[float], high: NDArray[np.float64], low: NDArray[np.float64], of_lead: NDArray[np.str_]
) -> frozenset[str]:
    """The leads that do not keep to their row: of two traces that touch, the one further from its zero line."""
    found = set(of_lead[0, high[0] > gaps[0] + _MARGIN_MM]) | set(of_lead[-1, -low[-1] > gaps[-1] + _MARGIN_MM])
    for row, gap in enumerate(gaps[1:-1]):
        touching = high[row + 1] - low[row] > gap
        upper = touching & (-low[row] > high[row + 1])
        found |= set(of_lead[row, upper]) | set(of_lead[row + 1, touching & ~upper])
    return frozenset(found - {""})


def _crossing_remark(crossing: frozenset[str], ecg: NDArray[np.floating], leads: Sequence[str]) -> str:
    if not crossing:
        return ""
    ranges = [
        f"{name} ({ecg[place].min():.1f} to {ecg[place].max():.1f} mV)".replace("(-", "(\N{MINUS SIGN}")
        for place, name in enumerate(leads)
        if name.lower() in crossing
    ]
    return f"Blue, over other rows or the edge: {', '.join(ranges)}."


def _length_remark(segments: Sequence[Segment], seconds: float) -> str:
    shown = max(segment.stop for segment in segments)
    return f"The first {shown:g} s of {seconds:g} s." if shown < seconds else ""


def _grid(axes: Axes, width: float, height: float) -> None:
    for step, colour, thickness in ((1.0, _FINE, 0.3), (5.0, _COARSE, 0.5)):
        across, up = np.arange(0, width + 0.1, step), np.arange(0, height + 0.1, step)
        lines = [((x, 0.0), (x, height)) for x in across] + [((0.0, y), (width, y)) for y in up]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=thickness, zorder=0))
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set(color=_COARSE, linewidth=0.6)


def _draw_segment(
    axes: Axes, segment: Segment, across: NDArray[np.floating], up: NDArray[np.floating], zero: float, ink: str
) -> None:
    axes.plot(across, zero + up, color=ink, lw=0.55, solid_joinstyle="round", zorder=2)
    start = segment.across
    if segment.start > segment.left:
        axes.plot([start, start], [zero - 4, zero + 4], color=_INK, lw=0.4, zorder=2)
    name = segment.lead if segment.left == 0 else f"{segment.lead}  {segment.left:g} s"
    if segment.start > segment.left:
        place, top = start + 1, _height_of_name(up[across < start + _NAME_MM[0]])
    else:
        place, top = 1.0, _NAME_ABOVE_MM  # over the calibration pulse, where no trace is
    axes.text(
        place, zero + top, name, va="top", fontsize="small", weight="bold", color=ink,
        zorder=1, parse_math=False, bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _height_of_name(near: NDArray[np.floating]) -> float:
    """Top of a lead's name, mm above 0 mV: above the trace beside it (mm) if there is room, else below."""
    heights = (_NAME_ABOVE_MM, -6.0)
    free = [top for top in heights if not ((near > top - _NAME_MM[1]) & (near < top + 1)).any()]
    return free[0] if free else heights[0]


def _pulse(axes: Axes, zero: float) -> None:
    """1 mV for 0.2 s."""
    across = np.array([1.0, 2.5, 2.5, 7.5, 7.5, 9.0])
    axes.plot(across, zero + MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]), color=_INK, lw=0.55, zorder=2)

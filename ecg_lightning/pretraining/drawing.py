"""Three ECGs on one sheet of ECG paper: the original, what was seen of it, what was made of the rest."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ecg_lightning.pretraining.pictures import Filled
from ecg_lightning.report.ecg_paper import MM_PER_SECOND, Paper, draw_paper, plan_paper
from ecg_lightning.runs import NO_DEVICE, whole_file

_MM = 1 / 25.4
_DPI = 150
_TITLE_MM, _EDGE_MM = 7.0, 4.0
_SHADE, _TRUTH, _GUESSED = "#9AA5B1", "#7A828C", "#B3261E"
_HALF_ROW_MM = 11.0


def draw_filled(path: Path, filled: Filled, rate: float, leads: Sequence[str]) -> None:
    """Writes the picture, without the record's id; one second measures 25 mm and one mV 10 mm at its own resolution.

    Args:
        path: a PNG.
        filled: the ECG.
        rate: Hz.
        leads: names in the order of its rows.
    """
    paper = plan_paper(filled.ecg, rate, leads)
    seen = np.where(filled.masked, np.nan, filled.ecg)
    hidden, guessed = (np.where(filled.masked, ecg, np.nan) for ecg in (filled.ecg, filled.reconstructed))
    share = filled.masked.mean()
    sheets = (
        ("The record, as the network takes it", filled.ecg, False),
        (f"What the encoder saw: {1 - share:.0%} of the patches", seen, False),
        (f"What was made of the rest, in red (squared error {filled.loss:.2f}; a flat line has 1)", seen, True),
    )
    width, height = paper.width + 2 * _EDGE_MM, len(sheets) * (paper.height + _TITLE_MM) + 2 * _EDGE_MM
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(width * _MM, height * _MM))
        FigureCanvasAgg(figure)
        for number, (title, trace, fills) in enumerate(sheets):
            bottom = height - _EDGE_MM - (number + 1) * (paper.height + _TITLE_MM)
            axes = figure.add_axes((_EDGE_MM / width, bottom / height, paper.width / width, paper.height / height))
            draw_paper(axes, paper, trace, rate, leads)
            axes.set_title(title, loc="left", fontsize="medium", pad=3)
            if number:
                _shade(axes, paper, filled.masked, rate, leads)
            if fills:
                _overdraw(axes, paper, hidden, rate, leads, _TRUTH)
                _overdraw(axes, paper, guessed, rate, leads, _GUESSED)
        figure.text(_EDGE_MM / width, 1.2 / height, NO_DEVICE, fontsize="x-small")
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI)


def _shade(axes: Axes, paper: Paper, masked: NDArray[np.bool_], rate: float, leads: Sequence[str]) -> None:
    places = {name.lower(): place for place, name in enumerate(leads)}
    for segment in paper.segments:
        first, last = round(segment.start * rate), round(segment.stop * rate)
        start = first
        for hidden, run in groupby(masked[places[segment.lead.lower()], first:last].tolist()):
            length = len(list(run))
            if hidden:
                left = segment.across + (start - first) / rate * MM_PER_SECOND
                corner = (left, paper.zeros[segment.row] - _HALF_ROW_MM)
                size = (length / rate * MM_PER_SECOND, 2 * _HALF_ROW_MM)
                axes.add_patch(Rectangle(corner, *size, facecolor=_SHADE, alpha=0.22, edgecolor="none", zorder=1))
            start += length


def _overdraw(axes: Axes, paper: Paper, ecg: NDArray[np.float64], rate: float, leads: Sequence[str], ink: str) -> None:
    """The trace (lead, time) in mV in another ink, on the places of the paper."""
    places = {name.lower(): place for place, name in enumerate(leads)}
    for segment in paper.segments:
        first, last = round(segment.start * rate), round(segment.stop * rate)
        points = np.arange(first, last)
        across = segment.across + (points - first) / rate * MM_PER_SECOND
        up = paper.zeros[segment.row] + 10 * ecg[places[segment.lead.lower()], points]
        axes.plot(across, up, color=ink, lw=0.6, zorder=3)

"""A figure of a report: drawn once, kept as PNG and PDF, shown in the page with its caption."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecg_lightning.report.html import Html, captioned
from ecg_lightning.runs import NO_DEVICE

_DPI = 160
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "pdf.fonttype": 42,
}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, yellow left out: it is not seen on white."""
MARKS = ("o", "s", "^", "D", "v", "P", "X")
"""A mark for each colour, for readers who see none."""


@dataclass(frozen=True)
class Drawn:
    """One figure as files.

    Attributes:
        name: of its files.
        caption: what it shows, what bars and bands are.
        alt: the same for those who do not see it, in one sentence.
        png: for the page and for slides.
        pdf: for print.
        inches: its width.
        kind: ``chart``, which turns dark with the page, or ``paper``, which stays as it is.
    """

    name: str
    caption: str
    alt: str
    png: bytes
    pdf: bytes
    inches: float
    kind: str = "chart"


@contextmanager
def report_style() -> Iterator[None]:
    """One look for all figures."""
    with rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def drawn(name: str, caption: str, alt: str, draw: Callable[[], Figure]) -> Drawn:
    """Draws in the report's style, and keeps both files."""
    with report_style():
        figure = draw()
        return Drawn(name, caption, alt, *files_of(figure, name), figure.get_figwidth())


def files_of(figure: Figure, title: str, dpi: int = _DPI) -> tuple[bytes, bytes]:
    """PNG and PDF of a figure; the same figure gives the same bytes."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Description": NO_DEVICE})
    figure.set_layout_engine("none")  # all is in its place: laid out again, it takes as long again
    figure.savefig(pdf, format="pdf", metadata={"Title": title, "Subject": NO_DEVICE, "CreationDate": None})
    return png.getvalue(), pdf.getvalue()


def to_html(one: Drawn, number: int) -> Html:
    """The figure with its number and caption."""
    return captioned(one.png, one.alt, f"Figure {number}. {one.caption}", kind=one.kind, inches=one.inches)

"""Pages with one ECG each, at true scale: 1 s measures 25 mm and 1 mV 10 mm when printed at 100 %."""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.report.ecg_paper import Paper, draw_paper, plan_paper
from ecg_lightning.report.record_facts import (
    chain_in_words,
    find_records,
    record_name,
    record_notes,
    record_statements,
    record_title,
    signal_in_words,
)
from ecg_lightning.runs import NO_DEVICE, refuse_unwritable, whole_file

FORMATS = ("png", "pdf", "svg")
MM_PER_INCH = 25.4
_DPI = 200
_A4_MM = (297.0, 210.0)
"""Landscape: the page of a PDF where the ECG fits, so that no printer scales it."""
_EDGE_MM = 4.0
_LINE_MM, _CHARACTER_MM = 4.0, 1.62
"""Height of a line and mean width of a character of the head's text."""
_LEAST_WIDTH_MM = 150.0


def plot_records(
    store: Store, names: Sequence[str], output: str | Path | None = None, *, overwrite: bool = False
) -> list[Path]:
    """Draws the records with these ids (or names) as ``ecg_17.png``, or as ``output``: several become a PDF's pages.

    Raises:
        InputError: for records that are not there, or files that are and may not be overwritten.
        UsageError: for a file of another kind, or several records for one file that is no PDF.
    """
    rows = find_records(store, names)
    paths = [Path(output)] if output is not None else [Path(_file_name(store, row)) for row in rows]
    _check_paths(paths, len(rows), overwrite)
    if len(paths) == len(rows):
        for path, row in zip(paths, rows, strict=True):
            save_pages([ecg_page(store, row, sheet=path.suffix.lower() == ".pdf")], path)
    else:
        save_pages([ecg_page(store, row, sheet=True) for row in rows], paths[0])
    return paths


def ecg_page(store: Store, row: int, *, sheet: bool = False) -> Figure:
    """One record with its head, in inches of true scale; with ``sheet`` in the middle of an A4 page where it fits."""
    stored = store.stored
    head, foot = partial(_head, store, row), f"{store.path.name} · {NO_DEVICE}"
    return signal_page(millivolts(store, row), stored.sampling_rate, stored.leads, head, foot, sheet=sheet)


def signal_page(
    ecg: NDArray[np.float64],
    rate: float,
    leads: Sequence[str],
    head_of_width: Callable[[int], list[tuple[str, str]]],
    foot: str,
    *,
    sheet: bool = False,
) -> Figure:
    """Any ECG (lead, time), in mV at ``rate`` Hz, as `ecg_page` draws it.

    Args:
        ecg: the signal.
        rate: Hz.
        leads: the names of its leads.
        head_of_width: number of characters in a line -> the lines above the paper, each with its colour.
        foot: the line below it.
        sheet: in the middle of an A4 page where it fits.
    """
    paper = plan_paper(ecg, rate, leads)
    drawn = max(paper.width, _LEAST_WIDTH_MM)
    head = head_of_width(int(drawn / _CHARACTER_MM))
    width = drawn + 2 * _EDGE_MM
    height = paper.height + (len(head) + 1) * _LINE_MM + 2 * _EDGE_MM
    page = _A4_MM if sheet and width <= _A4_MM[0] and height <= _A4_MM[1] else (width, height)
    figure = Figure(figsize=(page[0] / MM_PER_INCH, page[1] / MM_PER_INCH))
    FigureCanvasAgg(figure)
    left, bottom = (page[0] - drawn) / 2, (page[1] - height) / 2 + _EDGE_MM + _LINE_MM
    axes = figure.add_axes(
        (left / page[0], bottom / page[1], paper.width / page[0], paper.height / page[1]),
    )
    draw_paper(axes, paper, ecg, rate, leads)
    _write_texts(figure, page, (left, bottom), paper, head, foot)
    return figure


def millivolts(store: Store, row: int) -> NDArray[np.float64]:
    """One record's signal (lead, time) in mV."""
    return np.asarray(store.signals()[row], np.float64) * store.millivolts_per_unit


def _head(store: Store, row: int, num_characters: int) -> list[tuple[str, str]]:
    """Lines over the paper, each with its colour."""
    chain = chain_in_words(store)
    statements = " · ".join(record_statements(store, row)) or "no statements"
    lines = [(record_title(store, row), "black"), *wrapped(statements, num_characters, "black")]
    signal = f"{signal_in_words(store)}, {'filtered' if chain else 'unfiltered copy of the source'}, 25 mm/s, 10 mm/mV"
    lines += wrapped(signal, num_characters, "black")
    if chain:
        lines += wrapped(f"FILTERED SIGNAL, not as recorded: {chain}", num_characters, "#B00020")
    if notes := record_notes(store, row):
        lines += wrapped(f"noted by PTB-XL: {'; '.join(notes)}", num_characters, "#444444")
    return lines


def wrapped(text: str, num_characters: int, colour: str) -> list[tuple[str, str]]:
    """``text`` as lines of a head, each with its colour."""
    return [(line, colour) for line in textwrap.wrap(text, num_characters)]


def _write_texts(
    figure: Figure,
    page: tuple[float, float],
    corner: tuple[float, float],
    paper: Paper,
    head: Sequence[tuple[str, str]],
    foot: str,
) -> None:
    """The head above and the foot below the paper, whose lower left corner is given in mm."""
    left, bottom = corner
    top = bottom + paper.height + len(head) * _LINE_MM
    for place, (line, colour) in enumerate(head):
        figure.text(
            left / page[0], (top - place * _LINE_MM) / page[1], line, va="top", color=colour, parse_math=False,
            fontsize=8.5 if place == 0 else 8, weight="bold" if place == 0 else "normal",
        )  # fmt: skip
    figure.text(left / page[0], (bottom - 1) / page[1], foot, va="top", fontsize=6, color="#666666", parse_math=False)


def _file_name(store: Store, row: int) -> str:
    return f"ecg_{file_name(record_name(store, row))}.png"


def file_name(record: str) -> str:
    """A record's name as part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in record)


def _check_paths(paths: Sequence[Path], num_records: int, overwrite: bool) -> None:
    for path in paths:
        if path.suffix.lower().removeprefix(".") not in FORMATS:
            raise UsageError(f"--output {path}: an ECG is drawn as .png, .pdf or .svg: --output {path.stem}.pdf")
        if num_records > len(paths) and path.suffix.lower() != ".pdf":
            raise UsageError(
                f"--output {path} is one picture for {num_records} records: name a PDF, which has a page for each "
                f"(--output {path.stem}.pdf), or leave --output out for a PNG each"
            )
    refuse_existing(paths, overwrite)


def refuse_existing(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuses to replace a file unasked.

    Raises:
        InputError: naming the files that are there.
    """
    if there := [str(path) for path in paths if path.exists() and not overwrite]:
        raise InputError(f"{', '.join(there)}: there already; name another file, or replace it with --overwrite")
    for path in paths:
        refuse_unwritable(path)


def save_pages(figures: Sequence[Figure], path: Path) -> None:
    """Writes one figure as PNG or SVG, or each as a page of a PDF."""
    from matplotlib.backends.backend_pdf import PdfPages

    kind = path.suffix.lower().removeprefix(".")
    with whole_file(path) as temporary:
        if kind == "pdf":
            with PdfPages(temporary, metadata={"Title": path.stem, "Subject": NO_DEVICE, "CreationDate": None}) as pdf:
                for figure in figures:
                    pdf.savefig(figure)
        else:
            metadata = {"Description": NO_DEVICE, **({"Date": None} if kind == "svg" else {})}
            with rc_context({"svg.hashsalt": "ecg"}):  # else the file has random names in it
                figures[0].savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)

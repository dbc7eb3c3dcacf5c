"""One small table, and the four things that become of it: HTML, CSV, Markdown, LaTeX."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ecg_lightning.report.html import Html, joined_html, paragraph, table

NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


_MOST_WIDE = 10
"""Columns from which on a table is set tighter, to fit a desktop's width."""


class Estimate(NamedTuple):
    """A figure, with its interval where it has one; in a CSV they stand in columns of their own, in full precision."""

    value: float
    low: float = math.nan
    high: float = math.nan
    digits: int = 3
    signed: bool = False
    unit: str = ""

    def __str__(self) -> str:
        """For people: ``0.812 [0.790, 0.833]``; an en dash for what is not defined."""
        if math.isnan(self.value):
            return NONE
        sign = "+" if self.signed else ""
        value, low, high = (f"{one:{sign}.{self.digits}f}" for one in (self.value, self.low, self.high))
        shown = f"{value}{self.unit}"
        return (shown if math.isnan(self.low) else f"{shown} [{low}, {high}]").replace("-", MINUS)


Cell = str | int | Estimate | None


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        name: of its files.
        caption: one or two sentences that make it readable alone.
        head: names of the columns.
        rows: cells; None where there is nothing.
        texts: places of the columns that are text.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: frozenset[int] = frozenset({0})

    def __post_init__(self) -> None:
        """A row that is too short would be read under the wrong heading."""
        assert all(len(row) == len(self.head) for row in self.rows), self.name


def to_html(sheet: Sheet, number: int) -> Html:
    """Scrolls sideways where it is too wide."""
    rows = [[NONE if cell is None else cell for cell in row] for row in sheet.rows]
    kind = "counts tight" if len(sheet.head) > _MOST_WIDE else "counts"
    caption = paragraph(f"Table {number}. {sheet.caption}", "caption")  # no <caption>: it would scroll with the table
    return joined_html([caption, table(sheet.head, rows, texts=sheet.texts, kind=kind)])


def to_csv(sheet: Sheet) -> str:
    """For programs: full precision, empty where there is nothing, intervals as columns of their own (low, high)."""
    intervals = [
        any(isinstance(row[place], Estimate) and not math.isnan(row[place].low) for row in sheet.rows)  # type: ignore[union-attr]
        for place in range(len(sheet.head))
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = zip(sheet.head, intervals, strict=True)
    writer.writerow(
        [part for name, has in names for part in ([name, f"{name} low", f"{name} high"] if has else [name])]
    )
    for row in sheet.rows:
        writer.writerow([part for cell, has in zip(row, intervals, strict=True) for part in _raw(cell, has)])
    return file.getvalue()


def _raw(cell: Cell, has_interval: bool) -> list[str]:
    values = [cell.value, cell.low, cell.high] if isinstance(cell, Estimate) else [cell, None, None]
    texts = ["" if one is None or (isinstance(one, float) and math.isnan(one)) else str(one) for one in values]
    return texts if has_interval else texts[:1]


def to_markdown(sheet: Sheet) -> str:
    """A pipe table under its caption."""
    rule = ["---" if place in sheet.texts else "---:" for place in range(len(sheet.head))]
    rows = [
        [_of_markdown(name) for name in sheet.head],
        rule,
        *([_of_markdown(_text(c)) for c in r] for r in sheet.rows),
    ]
    return f"{_of_markdown(sheet.caption)}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def to_latex(sheet: Sheet) -> str:
    """A table with the rules of the package booktabs; needs no other."""
    columns = "".join("l" if place in sheet.texts else "r" for place in range(len(sheet.head)))
    head, *rows = (" & ".join(map(of_latex, map(_text, row))) + r" \\" for row in (sheet.head, *sheet.rows))
    label = re.sub(r"[^a-z0-9]+", "-", sheet.name.lower())
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{of_latex(sheet.caption)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    return NONE if cell is None else str(cell)


def _of_markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", text)
    return re.sub(r"\s+", " ", escaped)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    MINUS: "$-$",
    NONE: "--",
    "·": r"\textperiodcentered{}",
    "†": r"\dag{}",
    "≥": r"$\geq$",
}


def of_latex(text: str) -> str:
    r"""``text`` as LaTeX prints it.

    >>> of_latex("50 % of R&D")
    '50 \\% of R\\&D'
    """
    return re.sub(r"\s+", " ", "".join(_LATEX.get(letter, letter) for letter in text))


def parts(sheet: Sheet) -> Sequence[tuple[str, str]]:
    """Ending and content of each of a table's files."""
    return ((".csv", to_csv(sheet)), (".md", to_markdown(sheet)), (".tex", to_latex(sheet)))

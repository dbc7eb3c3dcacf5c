"""What is called when a label is there: a view of confusions for tasks of few labels, at validation's thresholds."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ecg_lightning.report.drawn import Drawn, drawn, new_figure
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.sheets import NONE, Cell, Estimate, Sheet

MOST_LABELS = 12
_NOTHING = "nothing called"


def confusions(one: Judged) -> NDArray[np.float64] | None:
    """(label that is there, label that is called, the last: nothing is called) numbers of records, mean over the seeds.

    A record with several labels counts in the row of each. None where a label has no threshold, or there are too many.
    """
    names = one.files[0].label_names
    cuts = np.array([[cut[name] for name in names] for cut in one.evaluation.thresholds])
    if np.isnan(cuts).all() or len(names) > MOST_LABELS:
        return None
    tables = []
    for file, cut in zip(one.files, cuts, strict=True):
        with np.errstate(invalid="ignore"):
            called = file.probabilities.astype(np.float64) >= cut
        called = np.column_stack([called, ~called.any(axis=1)])
        tables.append((file.labels == 1).astype(np.float64).T @ called)
    mean: NDArray[np.float64] = np.mean(tables, axis=0)
    return mean


def confusion_figure(one: Judged, name: str) -> Drawn | None:
    """A row for each label that is there, a column for each that is called; None where `confusions` is."""
    counts = confusions(one)
    if counts is None:
        return None
    caption = (
        f"{one.group.task}, {one.group.label}: of the test records that carry the row's label, the share for which the "
        "column's label is called, at thresholds chosen on validation; below it the number of records, mean over "
        f"{len(one.seeds)} seed(s). A record may carry and be called several labels, so rows do not add up to 100 %; "
        "the diagonal is the sensitivity. Off the diagonal: confusions, and labels that the record carries as well."
    )
    return drawn(name, caption, f"Labels called by label carried, {one.group.task}", lambda: _figure(one, counts))


def _figure(one: Judged, counts: NDArray[np.float64]) -> Figure:
    names, totals = one.files[0].label_names, (one.files[0].labels == 1).sum(axis=0)
    shares = counts / np.maximum(totals, 1)[:, None]
    size = 0.72 * len(names)
    figure = new_figure(2.2 + size * 1.15, 1.3 + size * 0.85)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        ink = "white" if share > 0.6 else "black"
        weight = "bold" if row == column else "normal"
        text = f"{100 * share:.0f} %\n{counts[row, column]:.1f}" if totals[row] else NONE
        axes.text(column, row, text, ha="center", va="center", color=ink, size=8, weight=weight)
    axes.set_xticks(range(len(names) + 1), [*names, _NOTHING.replace(" ", "\n")])
    axes.set_yticks(range(len(names)), [f"{label} (n = {n})" for label, n in zip(names, totals, strict=True)])
    axes.set(xlabel="label called", ylabel="label carried")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def confusion_sheet(one: Judged, name: str) -> Sheet | None:
    """The same as numbers of records."""
    counts = confusions(one)
    if counts is None:
        return None
    names = one.files[0].label_names
    totals = (one.files[0].labels == 1).sum(axis=0).tolist()
    rows: list[tuple[Cell, ...]] = [
        (label, total, *(Estimate(value, digits=1) for value in row))
        for label, total, row in zip(names, totals, counts.tolist(), strict=True)
    ]
    caption = (
        f"{one.group.task}, {one.group.label}: records by label carried (rows) and called (columns), mean over seeds."
    )
    return Sheet(name, caption, ("carried", "records", *names, _NOTHING), tuple(rows))

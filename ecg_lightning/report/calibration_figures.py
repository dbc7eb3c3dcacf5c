"""Whether the probabilities come true: reliability before and after the temperature of validation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ecg_lightning.evaluate.bootstrap import interval, patient_weights
from ecg_lightning.evaluate.calibration import calibrated
from ecg_lightning.report.drawn import CYCLE, MARKS, Drawn, drawn, new_figure
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.sheets import Cell, Estimate, Sheet

_BINS = 10
_FEWEST = 10
"""Cells in a bin that is drawn."""
_DRAWS = 500
_MOST_BARS = 12


class Bin(NamedTuple):
    """Cells (a record and a label) whose probabilities are alike."""

    predicted: float
    """Mean probability."""
    observed: float
    """Share that carries the label."""
    low: float
    high: float
    """95 % interval of the share, over patients."""
    cells: int


def reliability(
    probabilities: Sequence[NDArray[np.floating]], labels: NDArray[np.uint8], patient_id: NDArray[np.int64], seed: int
) -> list[Bin]:
    """Ten bins of equal width over all labels and files; those of fewer than ten cells are left out.

    Args:
        probabilities: (record, label), of each file.
        labels: (record, label) 0, 1, or 255 where unknown.
        patient_id: (record,)
        seed: of the draws of patients.
    """
    patients, owner = np.unique(patient_id, return_inverse=True)
    cells = np.zeros((len(patients), _BINS))
    hits, sums = cells.copy(), cells.copy()
    known = labels <= 1
    owners = np.broadcast_to(owner[:, None], labels.shape)[known]
    for file in probabilities:
        values = file[known].astype(np.float64)
        bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
        np.add.at(cells, (owners, bins), 1)
        np.add.at(hits, (owners, bins), labels[known] == 1)
        np.add.at(sums, (owners, bins), values)
    weights = np.concatenate([*patient_weights(len(patients), _DRAWS, seed)], axis=1)
    found = []
    for place in np.flatnonzero(cells.sum(axis=0) >= _FEWEST * len(probabilities)):
        number = cells[:, place].sum()
        drawn_shares = (weights.T @ hits[:, place]) / (weights.T @ cells[:, place])
        shares = sums[:, place].sum() / number, hits[:, place].sum() / number
        found.append(Bin(*shares, *interval(drawn_shares), round(number / len(probabilities))))
    return found


def calibration_figure(one: Judged, name: str) -> Drawn:
    """Reliability of all labels together, and each label's calibration error."""
    caption = (
        f"{one.group.task}, {one.group.label}: share of records that carry a label against the probability given to "
        f"it, all labels and seeds together, in ten bins of equal width (those of fewer than {_FEWEST} cells left "
        "out); bars: 95 % interval over patients. On the dotted line probabilities come true. Below: cells in a bin, "
        "per seed."
    )
    if one.evaluation.temperatures is not None:
        caption += " Calibrated: logits divided by one temperature chosen on validation."
    if _has_bars(one):
        caption += " Right: expected calibration error of each label, mean over the seeds."
    return drawn(name, caption, f"Calibration for {one.group.task}", lambda: _figure(one))


def _has_bars(one: Judged) -> bool:
    return one.evaluation.calibration is not None and len(one.evaluation.calibration) - 1 <= _MOST_BARS


def _figure(one: Judged) -> Figure:
    figure = new_figure(8.8 if _has_bars(one) else 4.8, 4.8)
    grid = figure.add_gridspec(2, 2 if _has_bars(one) else 1, height_ratios=[5, 1])
    upper, lower = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    first, seed = one.files[0], one.evaluation.options.seed
    for place, (label, probabilities) in enumerate(_sets(one)):
        bins = reliability(probabilities, first.labels, first.patient_id, seed)
        _reliability(upper, bins, label, place)
        _cells(lower, bins, place)
    upper.plot([0, 1], [0, 1], color="black", lw=0.7, ls=":")
    upper.set(xlim=(0, 1), ylim=(0, 1), xticklabels=[], ylabel="share that carries the label")
    lower.set(xlim=(0, 1), xlabel="predicted probability", ylabel="cells", yscale="log")
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))  # else it writes formulas
    lower.yaxis.set_minor_locator(NullLocator())
    upper.grid()
    upper.legend(loc="upper left")
    if _has_bars(one):
        _errors(figure.add_subplot(grid[:, 1]), one)
    return figure


def _sets(one: Judged) -> list[tuple[str, list[NDArray[np.floating]]]]:
    """Probabilities as they are and, where there is a temperature, calibrated."""
    before: list[NDArray[np.floating]] = [file.probabilities for file in one.files]
    if (temperatures := one.evaluation.temperatures) is None:
        return [("as the network gives them", before)]
    after: list[NDArray[np.floating]] = [calibrated(file, t) for file, t in zip(before, temperatures, strict=True)]
    return [("as the network gives them", before), ("calibrated", after)]


def _reliability(axes: Axes, bins: Sequence[Bin], label: str, place: int) -> None:
    x = [one.predicted for one in bins]
    color = CYCLE[place]
    axes.vlines(x, [one.low for one in bins], [one.high for one in bins], color=color, lw=1.2, alpha=0.7)
    axes.plot(x, [one.observed for one in bins], color=color, marker=MARKS[place], ms=5, lw=1, label=label)


def _cells(axes: Axes, bins: Sequence[Bin], place: int) -> None:
    edges = np.arange(_BINS) / _BINS
    heights = np.zeros(_BINS)
    for one in bins:
        heights[min(int(one.predicted * _BINS), _BINS - 1)] = one.cells
    axes.stairs(heights, np.append(edges, 1), color=CYCLE[place], lw=1.2)


def _errors(axes: Axes, one: Judged) -> None:
    assert one.evaluation.calibration is not None
    labels = [label for label in one.evaluation.calibration if label != "macro"]
    for place, key in enumerate(("ece", "ece_calibrated")):
        values = [one.evaluation.calibration[label][key] for label in labels]
        axes.barh(np.arange(len(labels)) + 0.36 * place, values, height=0.34, color=CYCLE[place])
    axes.set_yticks(np.arange(len(labels)) + 0.18, labels)
    axes.invert_yaxis()
    axes.set_xlabel("expected calibration error")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")


def calibration_sheet(one: Judged, name: str) -> Sheet | None:
    """Brier score and calibration error before and after; None without validation."""
    if one.evaluation.calibration is None or one.evaluation.temperatures is None:
        return None
    keys = ("brier", "brier_calibrated", "ece", "ece_calibrated")
    rows: list[tuple[Cell, ...]] = [
        (label, *(Estimate(figures[key], digits=4) for key in keys))
        for label, figures in one.evaluation.calibration.items()
    ]
    temperatures = ", ".join(f"{value:.3f}" for value in one.evaluation.temperatures)
    caption = (
        f"{one.group.task}, {one.group.label}: Brier score and expected calibration error (15 bins of equal mass), "
        f"means over {len(one.seeds)} seed(s), before and after the temperature chosen on validation ({temperatures}), "
        "which changes neither AUROC nor AUPRC."
    )
    head = ("label", "Brier", "Brier, calibrated", "calibration error", "calibration error, calibrated")
    return Sheet(name, caption, head, tuple(rows))

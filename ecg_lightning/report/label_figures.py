"""Label by label: ROC and precision-recall curves, the table, gains against prevalence."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from ecg_lightning.evaluate.evaluation import Figure as Value
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.drawn import CYCLE, Drawn, drawn, new_figure
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.main_table import gain, is_sure
from ecg_lightning.report.sheets import NONE, Cell, Estimate, Sheet

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
_COLUMNS = 6
_NAMED = 25
"""Points whose names are written into a figure."""


def roc_curve(scores: NDArray[np.floating], labels: NDArray[np.uint8]) -> Curve:
    """False positive and true positive rate over all thresholds; records with equal scores are one step.

    ``scores`` and ``labels`` are (record,), labels 0, 1 or 255 where unknown; both classes are there.
    """
    hits, false_alarms = _counts(scores, labels)
    return np.append(0, false_alarms / false_alarms[-1]), np.append(0, hits / hits[-1])


def precision_recall_curve(scores: NDArray[np.floating], labels: NDArray[np.uint8]) -> Curve:
    """Recall and precision over all thresholds, as `roc_curve`."""
    hits, false_alarms = _counts(scores, labels)
    precision = hits / (hits + false_alarms)
    return np.append(0, hits / hits[-1]), np.append(precision[0], precision)


def _counts(scores: NDArray[np.floating], labels: NDArray[np.uint8]) -> Curve:
    known = labels <= 1
    falling = np.argsort(-scores[known], kind="stable")
    carries, sorted_scores = (labels[known] == 1)[falling], scores[known][falling]
    last = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    return np.cumsum(carries)[last].astype(np.float64), np.cumsum(~carries)[last].astype(np.float64)


def curve_figures(one: Judged, name: str) -> list[Drawn]:
    """ROC and precision-recall curves of all labels with both classes, six to a figure, the most common first."""
    counts = one.evaluation.counts
    labels = sorted((label for label in counts if counts[label]["defined"]), key=lambda at: -counts[at]["positives"])
    parts = [labels[start : start + _COLUMNS] for start in range(0, len(labels), _COLUMNS)]
    names = [name if len(parts) == 1 else f"{name}_{number}" for number in range(1, len(parts) + 1)]
    grey = ", grey: plain fine-tuning" if one.plain is not None else ""
    caption = (
        f"{one.group.task}, {one.group.label}: ROC (above) and precision-recall curves (below), a line for each seed"
        f"{grey}. In brackets: 95 % interval over patients (t on the logit scale, which holds for rare labels). "
        "Dotted: chance. n: records with the label."
    )
    alt = f"ROC and precision-recall curves for {one.group.task}"
    return [
        drawn(its, caption, f"{alt}: {', '.join(part)}", lambda part=part: _curves(one, part))  # type: ignore[misc]
        for its, part in zip(names, parts, strict=True)
    ]


def _curves(one: Judged, labels: Sequence[str]) -> Figure:
    width = min(10.0, 0.4 + 1.75 * len(labels))
    figure = new_figure(max(width, 4.0), 4.1)
    axes = figure.subplots(2, len(labels), squeeze=False)
    for column, label in enumerate(labels):
        for files, color, width in ((one.plain.files if one.plain else (), "#999999", 0.8), (one.files, CYCLE[0], 1.1)):
            for file in files:
                _curve(axes[0, column], axes[1, column], file, label, color, width)
        figures, counts = one.evaluation.labels[label], one.evaluation.counts[label]
        axes[0, column].set_title(f"{label}  (n = {counts['positives']})", loc="left", size=8.5)
        axes[0, column].plot([0, 1], [0, 1], color="black", lw=0.6, ls=":")
        axes[1, column].axhline(counts["prevalence"], color="black", lw=0.6, ls=":")
        for row, key in enumerate(("auroc", "auprc")):
            _square(axes[row, column], f"{key.upper()} {_with_t(figures[key], 2)}", low=row == 0)
        axes[0, column].set_xlabel("1 - specificity")
        axes[1, column].set_xlabel("recall")
        if column:
            for row in (0, 1):
                axes[row, column].set_yticklabels([])
    axes[0, 0].set_ylabel("sensitivity")
    axes[1, 0].set_ylabel("precision")
    return figure


def _curve(roc: Axes, precision: Axes, file: Predictions, label: str, color: str, width: float) -> None:
    place = file.label_names.index(label)
    scores, labels = file.probabilities[:, place], file.labels[:, place]
    roc.plot(*roc_curve(scores, labels), color=color, lw=width)
    precision.plot(*precision_recall_curve(scores, labels), color=color, lw=width, drawstyle="steps-pre")


def _square(axes: Axes, text: str, *, low: bool) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
    axes.tick_params(labelsize=7.5)
    head, _, interval = text.partition(" [")
    shown = f"{head}\n[{interval}" if interval else head
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    axes.text(0.98, 0.04, shown, ha="right", va="bottom", size=7, transform=axes.transAxes, bbox=box, zorder=5)


def _with_t(figure: Value, digits: int = 3) -> Estimate:
    """With the interval that holds for rare labels."""
    low, high = (math.nan if end is None else end for end in (figure.low_t, figure.high_t))
    return Estimate(figure.value, low, high, digits)


def label_sheet(one: Judged, name: str) -> Sheet:
    """All labels of one group, one row each."""
    evaluation = one.evaluation
    decided, gained = bool(evaluation.thresholds), one.comparison is not None
    head = ["label", "positives", "prevalence", "AUROC [95 %]", "AUPRC [95 %]"]
    head += ["F1", "sensitivity", "specificity"] if decided else []
    head += ["AUROC gain [95 %]", "p (Holm)"] if gained else []
    rows = []
    common_first = sorted(evaluation.counts.items(), key=lambda item: -item[1]["positives"])
    for label, counts in common_first:
        figures = evaluation.labels[label]
        prevalence = None if counts["prevalence"] is None else Estimate(100 * counts["prevalence"], digits=1, unit=" %")
        cells: list[Cell] = [
            label,
            counts["positives"],
            prevalence,
            _with_t(figures["auroc"]),
            _with_t(figures["auprc"]),
        ]
        cells += [Estimate(figures[key].value) for key in ("f1", "sensitivity", "specificity") if decided]
        cells += _gain_cells(one, label) if gained else []
        rows.append(tuple(cells))
    caption = (
        f"{one.group.task}, {one.group.label}: every label, means over {len(one.seeds)} seed(s). AUROC and AUPRC with "
        "95 % intervals that hold for rare labels (t on the logit scale)"
    )
    caption += "; F1, sensitivity and specificity at thresholds chosen on validation" if decided else ""
    caption += "; gain over plain fine-tuning, p of the permutation test corrected over the labels" if gained else ""
    return Sheet(name, f"{caption}. {NONE}: a class is missing among the test records.", tuple(head), tuple(rows))


def _gain_cells(one: Judged, label: str) -> list[Cell]:
    assert one.comparison is not None
    if label not in one.comparison.labels:
        return [None, None]
    difference = one.comparison.labels[label]["auroc"]
    return [gain(difference), Estimate(difference.p_permutation_holm or math.nan)]


def gain_by_prevalence(one: Judged, name: str) -> Drawn | None:
    """Each label's gain in AUROC over plain fine-tuning against how common it is; None without a comparison."""
    if one.comparison is None:
        return None
    caption = (
        f"{one.group.task}, {one.group.label}: gain in AUROC over plain fine-tuning for each label, against its "
        "prevalence among the test records (logarithmic axis). Bars: 95 % interval over patients; filled: p below "
        "0.05, permutation test corrected over the labels."
    )
    return drawn(name, caption, f"Gain in AUROC against prevalence for {one.group.task}", lambda: _by_prevalence(one))


def _by_prevalence(one: Judged) -> Figure:
    assert one.comparison is not None
    figure = new_figure(7.5, 3.8)
    axes = figure.subplots()
    axes.axhline(0, color="black", lw=0.8)
    counts = one.evaluation.counts
    for label, differences in one.comparison.labels.items():
        gained, share = differences["auroc"], 100 * counts[label]["prevalence"]
        sure = is_sure(gained)
        axes.plot([share, share], [gained.low, gained.high], color=CYCLE[0], lw=1, alpha=0.6)
        axes.plot(share, gained.value, marker="o", ms=5, color=CYCLE[0], mfc=CYCLE[0] if sure else "white")
        if len(one.comparison.labels) <= _NAMED or sure:
            axes.annotate(label, (share, gained.value), xytext=(5, 3), textcoords="offset points", size=7.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "235" else ""))
    axes.set(xlabel="prevalence among the test records (%)", ylabel="gain in AUROC")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.grid(axis="y")
    return figure

"""Figures of a cross-validation: each recipe's level in every test fold, and its gain there over plain fine-tuning."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecg_lightning.evaluate.bootstrap import Judge
from ecg_lightning.report.drawn import CYCLE, MARKS, Drawn, drawn, new_figure
from ecg_lightning.report.judged import Judged


def by_fold(judged: Sequence[Judged], name: str) -> Drawn:
    """Macro AUROC of each fold of a cross-validation, by recipe."""
    task = judged[0].group.task
    caption = (
        f"{task}: macro AUROC of each test fold by recipe, mean over the seeds; lines: the mean over the folds. "
        "Macro over the labels that have both classes in that fold, so folds may be over different labels."
    )
    return drawn(name, caption, f"Macro AUROC by test fold for {task}", lambda: _by_fold(judged))


def _by_fold(judged: Sequence[Judged]) -> Figure:
    figure = new_figure(7.5, 3.4)
    axes = figure.subplots()
    folds = sorted({int(fold) for one in judged for fold in np.unique(one.files[0].fold)})
    for place in range(1, len(folds), 2):
        axes.axvspan(place - 0.5, place + 0.5, color="#777777", alpha=0.1, lw=0)
    step = min(0.16, 0.8 / len(judged))  # all marks of a fold stay in its band
    for place, one in enumerate(judged):
        color, mark = CYCLE[place % len(CYCLE)], MARKS[place % len(MARKS)]
        shift = step * (place - (len(judged) - 1) / 2)
        values = [fold_auroc(one, fold) for fold in folds]
        axes.plot(np.arange(len(folds)) + shift, values, ls="none", marker=mark, color=color, label=one.group.label)
        axes.axhline(one.evaluation.groups[0][1]["auroc"].value, color=color, lw=1, ls=(0, (4, 2)))
    axes.set_xticks(range(len(folds)), list(map(str, folds)))
    axes.set(xlabel="test fold", ylabel="macro AUROC", xlim=(-0.5, len(folds) - 0.5))
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def fold_auroc(one: Judged, fold: int) -> float:
    """Macro AUROC on the records of one fold, mean over the seeds; NaN where no label has both classes."""
    values = []
    for file in one.files:
        rows = file.fold == fold
        judge = Judge(file.probabilities[rows], file.labels[rows])
        auroc = judge.point()["auroc"][judge.defined]
        values.append(auroc.mean() if len(auroc) else math.nan)
    return float(np.mean(values))


def gains_by_fold(judged: Sequence[Judged], name: str) -> Drawn:
    """Gain in macro AUROC over plain fine-tuning in each test fold, a panel for each recipe."""
    task = judged[0].group.task
    held = [one for one in judged if one.folds is not None and one.folds.gains]
    caption = (
        f"{task}: gain in macro AUROC over plain fine-tuning in each test fold, paired by record and seed. Rings: the "
        "seeds; bars: their mean, by its sign; dashed line and band: the mean over the folds and its 95 % interval over"
        " patients drawn within the folds. A fold's macro is over the labels that have both classes in it."
    )
    alt = f"Gain in macro AUROC over plain fine-tuning by test fold for {task}"
    return drawn(name, caption, alt, lambda: _gains_by_fold(held))


def _gains_by_fold(held: Sequence[Judged]) -> Figure:
    figure = new_figure(7.5, 0.5 + 2.3 * len(held))
    rows = figure.subplots(len(held), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, one in zip(rows, held, strict=True):
        _gains_of_folds(axes, one)
    rows[-1].set_xlabel("test fold")
    return figure


def _gains_of_folds(axes: Axes, one: Judged) -> None:
    assert one.folds is not None
    assert one.comparison is not None
    gains = one.folds.gains[0].per_fold["auroc"]  # (pair, fold)
    total = one.comparison.groups[0][1]["auroc"]
    axes.axhspan(total.low, total.high, color="#777777", alpha=0.15, lw=0)
    axes.axhline(total.value, color="#777777", lw=1, ls=(0, (4, 2)))
    axes.axhline(0, color="black", lw=0.8)
    means = gains.mean(axis=0)
    places = np.arange(len(means))
    colors = [CYCLE[2] if mean > 0 else CYCLE[1] for mean in means]
    axes.bar(places, means, width=0.6, color=colors, alpha=0.75)
    spread = np.linspace(-0.16, 0.16, len(gains)) if len(gains) > 1 else np.zeros(1)
    for shift, values in zip(spread, gains, strict=True):
        axes.plot(places + shift, values, ls="none", marker="o", ms=4, mfc="white", mec="#333333", mew=0.8)
    axes.set_xticks(places, one.folds.names)
    axes.set(ylabel="gain in macro AUROC")
    won, counted = one.folds.gains[0].won("auroc"), one.folds.gains[0].num_folds("auroc")
    axes.set_title(f"{one.group.label}: {won} of {counted} folds won", loc="left")
    axes.grid(axis="y")

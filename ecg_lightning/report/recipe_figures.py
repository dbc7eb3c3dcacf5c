"""Figures that hold recipes against one another: levels and gains, few records."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ecg_lightning.report.drawn import CYCLE, MARKS, Drawn, drawn, new_figure
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.main_table import is_sure

_BAND = "bars: 95 % interval over patients of the mean of the seeds (dot); small rings: the seeds"


def levels_and_gains(judged: Sequence[Judged], name: str) -> Drawn:
    """Macro AUROC of each recipe of one task, and its gain over plain fine-tuning."""
    task = judged[0].group.task
    gains = any(one.comparison is not None for one in judged)
    caption = f"{task}: macro AUROC by recipe; {_BAND}."
    if gains:
        caption += (
            " Right: gain over plain fine-tuning, paired by record and seed, with its 95 % interval over patients; "
            "pale: permutation test p of 0.05 or more."
        )
    return drawn(name, caption, f"Macro AUROC by recipe for {task}", lambda: _levels_and_gains(judged, gains))


def _levels_and_gains(judged: Sequence[Judged], with_gains: bool) -> Figure:
    figure = new_figure(10 if with_gains else 6.5, 1.1 + 0.36 * len(judged))
    left, *right = figure.subplots(1, 2 if with_gains else 1, sharey=True, squeeze=False)[0]
    for row, one in enumerate(judged):
        _level(left, row, one)
        if right:
            _gain(right[0], row, one)
    left.set_yticks(range(len(judged)), [one.group.label for one in judged])
    left.set(xlabel="macro AUROC", ylim=(len(judged) - 0.4, -0.6))
    left.grid(axis="x")
    left.xaxis.set_major_locator(MaxNLocator(6))
    plain = [one for one in judged if one.group.is_plain]
    if len(plain) == 1:
        left.axvline(plain[0].evaluation.groups[0][1]["auroc"].value, color="#777777", lw=0.8, ls=(0, (4, 2)), zorder=0)
    if right:
        right[0].axvline(0, color="black", lw=0.8)
        right[0].set(xlabel="gain in macro AUROC over plain fine-tuning")
        right[0].grid(axis="x")
        right[0].tick_params(axis="y", length=0)
        right[0].xaxis.set_major_locator(MaxNLocator(6))
    return figure


def _level(axes: Axes, row: int, one: Judged) -> None:
    figure = one.evaluation.groups[0][1]["auroc"]
    axes.plot([figure.low, figure.high], [row, row], color=CYCLE[0], lw=2, solid_capstyle="butt")
    axes.plot(figure.value, row, marker="o", color=CYCLE[0], ms=6)
    seeds = [groups[0]["auroc"] for groups in one.evaluation.per_file]
    if len(seeds) > 1:
        axes.plot(seeds, [row + 0.24] * len(seeds), ls="none", marker="o", ms=3.5, mfc="white", mec="#555555", mew=0.8)


def _gain(axes: Axes, row: int, one: Judged) -> None:
    if one.comparison is None:
        text = "plain fine-tuning: 0 by definition" if one.group.is_plain else "no plain fine-tuning beside it"
        axes.annotate(text, (0, row), xytext=(4, 0), textcoords="offset points", va="center", color="#666666", size=8)
        return
    gain = one.comparison.groups[0][1]["auroc"]
    color = CYCLE[2] if gain.value > 0 else CYCLE[1]
    axes.barh(row, gain.value, height=0.5, color=color, alpha=0.9 if is_sure(gain) else 0.4)
    axes.plot([gain.low, gain.high], [row, row], color="black", lw=1.3)


def data_efficiency(judged: Sequence[Judged], name: str) -> Drawn:
    """Macro AUROC over the fraction of the training patients, a curve for each recipe."""
    task = judged[0].group.task
    caption = (
        f"{task}: macro AUROC over the share of the training patients (logarithmic axis). Bands: 95 % interval over "
        "test patients of the mean of the seeds; rings: the seeds, which draw other patients. A smaller fraction lies "
        "inside a larger one of the same seed."
    )
    return drawn(name, caption, f"Macro AUROC by training fraction for {task}", lambda: _data_efficiency(judged))


def _data_efficiency(judged: Sequence[Judged]) -> Figure:
    figure = new_figure(6.5, 4)
    axes = figure.subplots()
    labels = list(dict.fromkeys(one.group.label for one in judged))
    for place, label in enumerate(labels):
        curve = sorted((one for one in judged if one.group.label == label), key=lambda one: one.group.fraction)
        shift = 1.025 ** (place - (len(labels) - 1) / 2)  # or the recipes' rings would lie on one another
        _curve(axes, curve, label, place % len(CYCLE), shift)
    fractions = sorted({one.group.fraction for one in judged})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(fractions))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set(xlabel="training patients", ylabel="macro AUROC")
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    return figure


def _curve(axes: Axes, curve: Sequence[Judged], label: str, place: int, shift: float) -> None:
    figures = [one.evaluation.groups[0][1]["auroc"] for one in curve]
    x = [shift * one.group.fraction for one in curve]
    color = CYCLE[place]
    axes.fill_between(x, [f.low for f in figures], [f.high for f in figures], color=color, alpha=0.13, lw=0)
    axes.plot(x, [f.value for f in figures], color=color, marker=MARKS[place], ms=5, label=label)
    for across, one in zip(x, curve, strict=True):
        seeds = [groups[0]["auroc"] for groups in one.evaluation.per_file]
        axes.plot([across] * len(seeds), seeds, ls="none", marker="o", ms=3, mfc="white", mec=color, mew=0.7, zorder=1)

"""Learning curves of all seeds of a recipe, with the switch between the phases."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecg_lightning.errors import InputError
from ecg_lightning.report.curves import Epoch, best_epoch, read_epochs, whole_epochs
from ecg_lightning.report.drawn import CYCLE, Drawn, drawn, new_figure
from ecg_lightning.report.run_groups import Group

_MOST = 4
"""Panels in one figure."""


def learning_figures(groups: Sequence[Group], name: str) -> tuple[list[Drawn], list[str]]:
    """Figures of the groups that have curves, and why others have none."""
    curves: list[tuple[str, list[list[Epoch]]]] = []
    problems: list[str] = []
    for group in groups:
        of_seeds = []
        for run in group.runs:
            try:
                of_seeds.append(read_epochs(run.metrics))
            except InputError as error:
                problems.append(f"{run.name}: no learning curve: {error}")
        if of_seeds:
            curves.append((group.label, of_seeds))
    parts = [curves[start : start + _MOST] for start in range(0, len(curves), _MOST)]
    names = [name if len(parts) == 1 else f"{name}_{number}" for number in range(1, len(parts) + 1)]
    return [_drawn(part, one, groups[0].task) for part, one in zip(parts, names, strict=True)], problems


def _drawn(curves: list[tuple[str, list[list[Epoch]]]], name: str, task: str) -> Drawn:
    caption = (
        f"{task}: validation macro AUROC (above) and loss (below: validation solid, training dotted) over the epochs, "
        "for each recipe. Thin: the runs; thick: their mean; dashed line: the switch from the linear probe (grey) to "
        "fine-tuning; stars: the epochs whose checkpoints were kept."
    )
    return drawn(name, caption, f"Learning curves for {task}", lambda: _figure(curves))


def _figure(curves: list[tuple[str, list[list[Epoch]]]]) -> Figure:
    columns = len(curves)
    figure = new_figure(min(10.0, 1.5 + 3.2 * columns), 4.4)
    axes = figure.subplots(2, columns, sharey="row", sharex="col", squeeze=False, height_ratios=[1.5, 1])
    for column, (label, runs) in enumerate(curves):
        upper, lower = axes[0, column], axes[1, column]
        _phases(upper, runs[0])
        _phases(lower, runs[0])
        _lines(upper, [[(e.number, e.auroc) for e in run] for run in runs], CYCLE[0])
        _lines(lower, [[(e.number, e.val_loss) for e in run] for run in runs], CYCLE[2])
        _lines(lower, [[(e.number, e.train_loss) for e in run] for run in runs], "#777777", ls=":")
        for run in runs:
            kept = [best for phase in ("probe", "fine_tune") if (best := best_epoch(run, phase)) is not None]
            upper.plot(
                [e.number for e in kept], [e.auroc for e in kept], ls="none", marker="*", ms=8, color="#E69F00",
                mec="black", mew=0.4, zorder=4,
            )  # fmt: skip
        upper.set_title(label, loc="left", pad=4)
        lower.set_xlabel("epoch")
    axes[0, 0].set_ylabel("validation macro AUROC")
    axes[1, 0].set_ylabel("loss")
    axes[1, 0].set_ylim(bottom=0)  # once all is drawn: the row shares it
    return figure


def _phases(axes: Axes, epochs: Sequence[Epoch]) -> None:
    probe = [epoch.number for epoch in epochs if epoch.phase == "probe"]
    if probe:
        axes.axvspan(probe[0] - 0.5, probe[-1] + 0.5, color="#EFEFEF", zorder=0, lw=0)
        if len(probe) < len(epochs):
            axes.axvline(probe[-1] + 0.5, color="black", lw=0.9, ls=(0, (4, 2)))
    axes.set_xlim(epochs[0].number - 0.5, epochs[-1].number + 0.5)
    whole_epochs(axes)
    axes.grid(axis="y")


def _lines(axes: Axes, runs: list[list[tuple[int, float]]], color: str, ls: str = "-") -> None:
    """The runs thin, their mean over the epochs that all of them have thick."""
    for run in runs:
        axes.plot(*zip(*run, strict=True), color=color, lw=0.7, alpha=0.45 if len(runs) > 1 else 1, ls=ls)
    shared = set.intersection(*({number for number, _ in run} for run in runs))
    numbers = sorted(shared)
    mean = np.mean([[dict(run)[number] for number in numbers] for run in runs], axis=0)
    axes.plot(numbers, mean, color=color, lw=1.8, ls=ls)

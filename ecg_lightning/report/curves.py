"""Learning curves of both phases, from ``metrics.csv``."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ecg_lightning.errors import InputError
from ecg_lightning.phases import Phase

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
_PHASE_NAMES: dict[Phase, str] = {"probe": "linear probe", "fine_tune": "fine-tuning"}
_SHADES: dict[Phase, str] = {"probe": "#F1F1F1", "fine_tune": "#FFFFFF"}
_NAN = float("nan")


class Epoch(NamedTuple):
    """Figures of one epoch; NaN where none was logged."""

    number: int
    """Counted from 0 over both phases, as in the log."""
    phase: Phase
    auroc: float
    """Validation macro AUROC."""
    auprc: float
    """Validation macro AUPRC."""
    train_loss: float
    """Mean of the batches that were logged."""
    val_loss: float


def read_epochs(metrics_csv: Path) -> list[Epoch]:
    """Reads a run's ``metrics.csv``, and the length of the probe from the ``config.yaml`` beside it.

    Raises:
        InputError: when a file is missing or not a run's, or there is no epoch yet.
    """
    try:
        with metrics_csv.open(newline="") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise InputError(f"{metrics_csv} does not exist: name a folder that `ecg-lightning fit --run` wrote") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{metrics_csv} is not a run's metrics ({error}): train the run again") from error
    by_epoch: dict[int, list[dict[str, float]]] = defaultdict(list)
    for row in rows:
        if "epoch" in row:
            by_epoch[int(row["epoch"])].append(row)
    if not by_epoch:
        raise InputError(f"{metrics_csv} has no epoch in it yet: train the run first")
    probe_epochs = _probe_epochs(metrics_csv.with_name("config.yaml"))
    return [
        _epoch(number, "probe" if number < probe_epochs else "fine_tune", by_epoch[number])
        for number in sorted(by_epoch)
    ]


def best_epoch(epochs: Sequence[Epoch], phase: Phase) -> Epoch | None:
    """The epoch of ``phase`` whose checkpoint is kept: highest validation macro AUROC, of equals the earliest."""
    measured = [epoch for epoch in epochs if epoch.phase == phase and epoch.auroc == epoch.auroc]
    return max(measured, key=lambda epoch: epoch.auroc, default=None)


def learning_curves(axes: Axes, metrics_csv: Path) -> None:
    """Draws validation macro AUROC and AUPRC over the epochs, the switch, and the epochs whose checkpoints are kept."""
    epochs = read_epochs(metrics_csv)
    numbers = [epoch.number for epoch in epochs]
    _draw_phases(axes, epochs)
    axes.plot(numbers, [e.auroc for e in epochs], color=BLUE, marker="o", markersize=3, label="macro AUROC")
    axes.plot(
        numbers, [e.auprc for e in epochs], color=VERMILION, marker="s", markersize=3, ls="--", label="macro AUPRC"
    )
    kept = [best for phase in _PHASE_NAMES if (best := best_epoch(epochs, phase)) is not None]
    axes.plot(
        [e.number for e in kept], [e.auroc for e in kept], ls="none", marker="*", markersize=12, color="#E69F00",
        markeredgecolor="black", markeredgewidth=0.6, label="checkpoint kept",
    )  # fmt: skip
    axes.set(ylabel="validation", xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
    _legend(axes)


def loss_curves(axes: Axes, metrics_csv: Path) -> None:
    """Draws training and validation loss over the epochs of both phases."""
    epochs = read_epochs(metrics_csv)
    numbers = [epoch.number for epoch in epochs]
    _draw_phases(axes, epochs, named=False)
    axes.plot(numbers, [epoch.train_loss for epoch in epochs], color=GREY, label="training")
    axes.plot(numbers, [epoch.val_loss for epoch in epochs], color=GREEN, marker="o", markersize=3, label="validation")
    axes.set(ylabel="loss", xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
    axes.set_ylim(bottom=0)
    _legend(axes)


def _draw_phases(axes: Axes, epochs: Sequence[Epoch], *, named: bool = True) -> None:
    """A shade and a name for each phase, a line at the switch."""
    for phase, name in _PHASE_NAMES.items():
        numbers = [epoch.number for epoch in epochs if epoch.phase == phase]
        if not numbers:
            continue
        axes.axvspan(numbers[0] - 0.5, numbers[-1] + 0.5, color=_SHADES[phase], zorder=0, lw=0)
        if named:
            middle = (numbers[0] + numbers[-1]) / 2
            axes.text(middle, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", weight="bold")
    switch = next((epoch.number - 0.5 for epoch in epochs if epoch.phase == "fine_tune"), 0)
    if switch > epochs[0].number:
        axes.axvline(switch, color="black", lw=1, ls=(0, (4, 2)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    whole_epochs(axes)


def whole_epochs(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers, were there but one epoch."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _legend(axes: Axes) -> None:
    """Under the axes, beside the name of the x axis: wherever the curves go, nothing lies on them."""
    axes.set_xlabel("epoch", loc="left")
    axes.legend(
        loc="upper right", bbox_to_anchor=(1.0, -0.1), ncols=3, frameon=False,
        borderaxespad=0, handlelength=1.6, handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip


def _probe_epochs(config: Path) -> int:
    """Epochs of the probe in a run's ``config.yaml``."""
    import yaml

    try:
        return int(yaml.safe_load(config.read_text())["post_training"]["probe"]["epochs"])
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{config} does not say post_training.probe.epochs ({error!r}), where the phases switch: name a folder "
            "that `ecg-lightning fit --run` wrote"
        ) from None


def _epoch(number: int, phase: Phase, rows: Sequence[Mapping[str, float]]) -> Epoch:
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    return Epoch(
        number=number,
        phase=phase,
        auroc=_last(rows, "val/auroc"),
        auprc=_last(rows, "val/auprc"),
        train_loss=sum(losses) / len(losses) if losses else _NAN,
        val_loss=_last(rows, "val/loss"),
    )


def _last(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return next((row[name] for row in reversed(rows) if name in row), _NAN)

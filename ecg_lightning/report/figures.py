"""Figures of a run: what is drawn is read from the run folder and the store, never from a model."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray

from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.curves import BLUE, GREY, learning_curves, loss_curves
from ecg_lightning.report.ecg_paper import ecg_paper
from ecg_lightning.runs import NO_DEVICE, whole_file

__all__ = ["chosen_records", "demo_picture", "ecg_paper", "learning_curves", "loss_curves", "probability_bars"]

_DPI = 200
_NUM_ECGS = 3
_SOURCE = "ECGs: PTB-XL 1.0.3, Wagner et al. 2020 (doi 10.1038/s41597-020-0495-6), CC BY 4.0."


def demo_picture(run: Path, store: Path, *, note: str = "") -> Path:
    """Draws both phases' curves and three test ECGs with their probabilities; returns the PNG in ``run``.

    The three are chosen without a look at the probabilities, see `chosen_records`.

    Raises:
        InputError: when the run has no predictions on a test split, or they are of another store.
    """
    predictions, opened = Predictions.load(run / "predictions" / "test.npz"), Store(store)
    if predictions.meta["store_sha256"] != opened.attributes["sha256"]:
        raise InputError(f"{run} was tested on another store than {store}: name that one ({predictions.meta['store']})")
    chosen = chosen_records(predictions)
    with rc_context({"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(10, 3.8 + 3.15 * len(chosen)))
        FigureCanvasAgg(figure)
        upper, lower = _grids(figure, len(chosen))
        learning_curves(figure.add_subplot(upper[0]), run / "metrics.csv")
        loss_curves(figure.add_subplot(upper[1]), run / "metrics.csv")
        for row, place in enumerate(chosen):
            axes = (figure.add_subplot(lower[row, 0]), figure.add_subplot(lower[row, 1]))
            _draw_record(*axes, predictions, opened, place)
        _caption(figure, _text(predictions, chosen, note))
        path = run / "demo_picture.png"
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Description": NO_DEVICE})
    return path


def _grids(figure: Figure, num_records: int) -> tuple[GridSpec, GridSpec]:
    """Places of the two curves (1, 2), and of paper and bars (record, 2); margins in inches from the edges."""
    height = figure.get_figheight()
    sides = {"left": 0.06, "right": 0.985}
    upper = figure.add_gridspec(
        1, 2, width_ratios=[2.2, 1], wspace=0.17, top=1 - 0.35 / height, bottom=1 - 2.4 / height, **sides
    )
    lower = figure.add_gridspec(
        num_records, 2, width_ratios=[5.4, 1], wspace=0.13, hspace=0.13,
        top=1 - 3.1 / height, bottom=0.9 / height, **sides,
    )  # fmt: skip
    return upper, lower


def chosen_records(predictions: Predictions, count: int = _NUM_ECGS) -> dict[int, str]:
    """Places of up to ``count`` records, each with the label that it stands for.

    For each of the most common labels: the first record by id that has it and no other label; where there is none, the
    first that has it. Probabilities play no part.
    """
    carries = predictions.labels == 1  # 255: nobody knows
    by_id = np.argsort(predictions.record_id)
    chosen: dict[int, str] = {}
    for label in np.argsort(-carries.sum(axis=0), kind="stable"):
        having = [int(place) for place in by_id if carries[place, label] and int(place) not in chosen]
        alone = [place for place in having if carries[place].sum() == 1]
        if having and len(chosen) < count:
            chosen[(alone or having)[0]] = predictions.label_names[label]
    return chosen


def probability_bars(
    axes: Axes,
    names: tuple[str, ...],
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    num_shown: int = 8,
) -> None:
    """Draws ``probabilities`` (label,) as bars, those of the record's own ``labels`` (label,) marked.

    Of more than ``num_shown`` labels, the record's own and the most probable others are shown.
    """
    labels = labels == 1
    first = np.lexsort((-probabilities, ~labels))[:num_shown]
    shown = sorted(first.tolist())
    for place, label in enumerate(shown):
        true, probability = bool(labels[label]), float(probabilities[label])
        bar = axes.barh(place, probability, height=0.62, color=BLUE if true else "#D9D9D9", zorder=2)
        bar[0].set(edgecolor="black" if true else GREY, linewidth=0.7)
        axes.text(probability + 0.03, place, f"{probability:.2f}", va="center", fontsize="small")
    axes.set_yticks(range(len(shown)), [f"● {names[n]}" if labels[n] else names[n] for n in shown])
    for text, label in zip(axes.get_yticklabels(), shown, strict=True):
        text.set_fontweight("bold" if labels[label] else "normal")
    axes.set(xlim=(0, 1.22), xticks=[0, 0.5, 1], ylim=(len(shown) - 0.4, -0.6), xlabel="predicted probability")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_bounds(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=0)


def _draw_record(paper: Axes, bars: Axes, predictions: Predictions, store: Store, place: int) -> None:
    record_id = int(predictions.record_id[place])
    row = int(np.flatnonzero(store.records["ecg_id"] == record_id)[0])
    ecg = store.signals()[row].astype(np.float64) * store.millivolts_per_unit
    ecg_paper(paper, ecg, store.stored.sampling_rate, store.stored.leads, make_room=False)
    names = [name for name, has in zip(predictions.label_names, predictions.labels[place], strict=True) if has == 1]
    fold = int(predictions.fold[place])
    paper.set_title(f"Record {record_id} (fold {fold}), labelled {', '.join(names)}", loc="left", pad=4)
    probability_bars(bars, predictions.label_names, predictions.probabilities[place], predictions.labels[place])
    paper.set_anchor("NW")
    bars.set_box_aspect(1.7)
    bars.set_anchor("N")


def _text(predictions: Predictions, chosen: dict[int, str], note: str) -> str:
    meta: dict[str, Any] = predictions.meta
    folds = ", ".join(map(str, meta["folds"]))
    labels = ", ".join(chosen.values())
    return (
        "Top: validation macro AUROC and AUPRC in both phases (left), loss (right); dashed: the switch from the linear "
        "probe to full fine-tuning with stochastic depth. "
        f"Below: {len(chosen)} of the {len(predictions.record_id)} test records (fold {folds}): for each of the most "
        f"common labels ({labels}) the first record by id, with that label alone where there is one, chosen without a "
        f"look at the predictions. ● and blue: the labels in PTB-XL. {note} {_SOURCE} {NO_DEVICE}"
    )


def _caption(figure: Figure, text: str) -> None:
    figure.text(
        0.03, 0.12 / figure.get_figheight(), textwrap.fill(text, 165), va="bottom", fontsize="small", linespacing=1.3
    )

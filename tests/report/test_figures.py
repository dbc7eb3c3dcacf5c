import csv
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.curves import best_epoch, learning_curves, loss_curves, read_epochs
from ecg_lightning.report.figures import chosen_records, demo_picture, probability_bars
from ecg_lightning.report.group_curves import _phases
from ecg_lightning.signals import SignalSpec

NAMES = ("CD", "HYP", "MI", "NORM", "STTC")


@pytest.fixture
def axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


@pytest.fixture
def run(tmp_path):
    """What the figures read of a run: three epochs of probe, two of fine-tuning; the third logged no step."""
    rows = [
        {"step": 9, "epoch": 0, "phase": 0.0, "train/loss": 0.7, "val/auroc": 0.5, "val/auprc": 0.3, "val/loss": 0.6},
        {"step": 19, "epoch": 1, "phase": 0.0, "train/loss": 0.6, "val/auroc": 0.8, "val/auprc": 0.4, "val/loss": 0.5},
        {"step": 28, "epoch": 2, "val/auroc": 0.8, "val/auprc": 0.45, "val/loss": 0.5},
        {"step": 35, "epoch": 3, "phase": 1.0, "train/loss": 0.5},
        {"step": 39, "epoch": 3, "phase": 1.0, "train/loss": 0.3, "val/auroc": 0.7, "val/auprc": 0.4, "val/loss": 0.4},
        {"step": 49, "epoch": 4, "phase": 1.0, "train/loss": 0.3, "val/auroc": 0.9, "val/auprc": 0.6, "val/loss": 0.3},
    ]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "config.yaml").write_text("post_training:\n  probe:\n    epochs: 3\n")
    return tmp_path


def texts(axes):
    return [text.get_text() for text in axes.texts]


def predictions(labels, record_id=None, **meta):
    labels = np.asarray(labels, np.uint8)
    num = len(labels)
    return Predictions(
        record_id=np.arange(num) if record_id is None else np.asarray(record_id),
        patient_id=np.arange(num),
        fold=np.full(num, 10, np.int8),
        probabilities=np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape),
        labels=labels,
        label_names=NAMES[: labels.shape[1]],
        meta={"folds": [10], **meta},
    )


# --- curves ---


def _grouped(axes, metrics_csv):
    _phases(axes, read_epochs(metrics_csv))


def test_the_phase_of_an_epoch_comes_from_the_config_even_where_no_step_was_logged(run):
    assert [epoch.phase for epoch in read_epochs(run / "metrics.csv")] == ["probe"] * 3 + ["fine_tune"] * 2


def test_the_training_loss_of_an_epoch_is_the_mean_of_its_logged_batches(run):
    assert read_epochs(run / "metrics.csv")[3].train_loss == pytest.approx(0.4)


def test_of_equally_good_epochs_the_earliest_is_the_best(run):
    best = best_epoch(read_epochs(run / "metrics.csv"), "probe")
    assert best is not None
    assert best.number == 1


def test_the_switch_is_marked_between_the_phases(run, axes):
    learning_curves(axes, run / "metrics.csv")
    dashed = [line for line in axes.lines if list(line.get_xdata()) == [2.5, 2.5]]
    assert len(dashed) == 1
    assert texts(axes) == ["linear probe", "fine-tuning"]


def test_a_run_of_one_phase_has_no_switch(run, axes):
    (run / "config.yaml").write_text("post_training:\n  probe:\n    epochs: 0\n")
    learning_curves(axes, run / "metrics.csv")
    assert texts(axes) == ["fine-tuning"]
    assert len(axes.lines) == 3


@pytest.mark.parametrize("num_epochs", [1, 2, 3, 5])
@pytest.mark.parametrize("draw", [learning_curves, loss_curves, _grouped])
def test_epochs_are_whole_numbers_counted_from_0_as_in_the_log(run, axes, draw, num_epochs):
    lines = (run / "metrics.csv").read_text().splitlines()
    kept = ["epoch", *"01234"[:num_epochs]]
    (run / "metrics.csv").write_text("\n".join(line for line in lines if line.split(",")[1] in kept))
    draw(axes, run / "metrics.csv")
    low, high = axes.get_xlim()
    assert (low, high) == (-0.5, num_epochs - 0.5)
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown == [*range(num_epochs)]


def test_loss_curves_show_training_and_validation(run, axes):
    loss_curves(axes, run / "metrics.csv")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.csv", None, "does not exist: name a folder that `ecg-lightning fit --run` wrote"),
        ("metrics.csv", "step,epoch\n", "no epoch in it yet: train the run first"),
        ("metrics.csv", "step,epoch\n1,one\n", "is not a run's metrics"),
        ("config.yaml", None, "where the phases switch: name a folder"),
        ("config.yaml", "seed: 1\n", "does not say post_training.probe.epochs"),
    ],
)
def test_files_that_are_not_a_runs_are_refused_with_the_way_out(run, name, content, message):
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_epochs(run / "metrics.csv")


# --- bars and choice ---


def test_bars_mark_the_records_own_labels(axes):
    probability_bars(axes, NAMES, np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0, 0, 1, 0, 0]))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["CD", "HYP", "● MI", "NORM", "STTC"]
    assert [text for text in texts(axes)] == ["0.10", "0.20", "0.30", "0.40", "0.50"]


def test_of_many_labels_the_true_and_the_most_probable_are_shown(axes):
    names = tuple(f"L{n:02}" for n in range(71))
    labels = np.zeros(71, np.uint8)
    labels[3] = 1
    probability_bars(axes, names, np.arange(71) / 100, labels, num_shown=3)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["● L03", "L69", "L70"]


def test_the_chosen_are_the_first_by_id_with_the_label_alone():
    labels = [[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert chosen_records(predictions(labels, [7, 2, 3, 9, 5])) == {2: "CD", 3: "HYP", 4: "MI"}


def test_fewer_labels_than_pictures_give_fewer_records():
    assert chosen_records(predictions([[1, 0, 0], [1, 0, 0]])) == {0: "CD"}


# --- the picture ---


@pytest.fixture
def store(tiny_ptbxl, tmp_path):
    path = tmp_path / "store.h5"
    prepare(tiny_ptbxl, path, SignalSpec(100, 1000), workers=1, progress=False)
    return path


def test_the_picture_is_drawn_from_files(run, store):
    opened = Store(store)
    tested = predictions(np.eye(4, 5), opened.records["ecg_id"][:4], store_sha256=opened.attributes["sha256"])
    tested.save(run / "predictions" / "test.npz")
    path = demo_picture(run, store, note="A note.")
    assert path == run / "demo_picture.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_predictions_on_another_store_are_refused(run, store):
    predictions(np.eye(4, 5), store="other.h5", store_sha256="0").save(run / "predictions" / "test.npz")
    with pytest.raises(InputError, match=r"name that one \(other\.h5\)"):
        demo_picture(run, store)


def test_a_run_that_was_not_tested_is_refused_with_the_command(run, store):
    with pytest.raises(InputError, match="ecg-lightning test --run RUN"):
        demo_picture(run, store)

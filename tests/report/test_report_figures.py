import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import METHOD, write_grid_of_runs, write_run
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.evaluate.bootstrap import Judge
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.report.calibration_figures import calibration_sheet, reliability
from ecg_lightning.report.confusion import confusion_figure, confusions
from ecg_lightning.report.drawn import drawn, new_figure
from ecg_lightning.report.fold_figures import fold_auroc
from ecg_lightning.report.group_curves import learning_figures
from ecg_lightning.report.judged import judge
from ecg_lightning.report.label_figures import (
    curve_figures,
    gain_by_prevalence,
    label_sheet,
    precision_recall_curve,
    roc_curve,
)
from ecg_lightning.report.recipe_figures import data_efficiency, levels_and_gains
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped
from ecg_lightning.report.wrong_records import losses, most_wrong


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Three recipes of two seeds."""
    folder = write_grid_of_runs(tmp_path_factory.mktemp("runs") / "grid")
    return judge(grouped(read_runs([str(folder)]))[0], Options(draws=100, min_positives=5), "test")[0]


cells = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 255])), min_size=2, max_size=40).filter(
    lambda pairs: {0, 1} <= {label for _, label in pairs}
)


@given(cells)
def test_the_areas_under_the_curves_are_the_figures_ties_and_unknown_labels_included(pairs):
    scores, labels = np.array([s / 8 for s, _ in pairs]), np.array([label for _, label in pairs], np.uint8)
    known = labels <= 1
    roc = roc_curve(scores, labels)
    assert np.trapezoid(roc[1], roc[0]) == pytest.approx(roc_auc_score(labels[known], scores[known]))
    recall, precision = precision_recall_curve(scores, labels)
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(
        average_precision_score(labels[known], scores[known])
    )


def test_all_labels_are_drawn_six_to_a_figure_the_most_common_first(tmp_path):
    names = tuple(f"L{place:02}" for place in range(14))
    run = write_run(tmp_path / "run", METHOD, task="mine", arguments={"names": names})
    (one,), _ = judge(grouped(read_runs([str(run)]))[0], Options(draws=100), "test")
    figures = curve_figures(one, "roc")
    assert [figure.name for figure in figures] == ["roc_1", "roc_2", "roc_3"]
    shown = [name for figure in figures for name in figure.alt.split(": ")[1].split(", ")]
    positives = [one.evaluation.counts[name]["positives"] for name in shown]
    assert sorted(shown) == [*names]
    assert positives == sorted(positives, reverse=True)


def test_reliability_is_the_share_of_positives_among_cells_of_like_probability():
    probabilities = np.repeat([[0.05], [0.55]], 20, axis=0).astype(np.float32)
    labels = np.array([[1]] * 2 + [[0]] * 17 + [[255]] + [[1]] * 15 + [[0]] * 5, np.uint8)
    low, high = reliability([probabilities], labels, np.arange(40), seed=0)
    assert (low.observed, low.cells) == (pytest.approx(2 / 19), 19)
    assert (high.observed, high.predicted) == (pytest.approx(0.75), pytest.approx(0.55))
    assert high.low < 0.75 < high.high


def test_bins_of_few_cells_are_left_out():
    probabilities = np.array([[0.05]] * 20 + [[0.95]] * 9, np.float32)
    bins = reliability([probabilities], np.ones((29, 1), np.uint8), np.arange(29), seed=0)
    assert [one.cells for one in bins] == [20]


def test_the_diagonal_of_the_confusions_is_the_sensitivity(judged):
    counts = confusions(judged[0])
    for place, label in enumerate(judged[0].files[0].label_names):
        carried = judged[0].evaluation.counts[label]["positives"]
        assert counts[place, place] / carried == pytest.approx(judged[0].evaluation.labels[label]["sensitivity"].value)


def test_a_label_is_called_from_its_threshold_on(judged):
    one = judged[0]
    at = one.files[0].probabilities[3].astype(np.float64)
    cuts = dict(zip(one.files[0].label_names, at.tolist(), strict=True))
    counts = confusions(replace(one, files=one.files[:1], evaluation=replace(one.evaluation, thresholds=(cuts,))))
    carried = one.files[0].labels == 1
    expected = carried.astype(float).T @ (one.files[0].probabilities >= at)
    assert counts[:, :-1].tolist() == expected.tolist()


def test_no_confusions_without_thresholds(tmp_path):
    run = write_run(tmp_path / "run", METHOD, splits=("test",))
    (one,), _ = judge(grouped(read_runs([str(run)]))[0], Options(draws=100), "test")
    assert confusion_figure(one, "x") is None
    assert calibration_sheet(one, "x") is None
    assert "F1" not in label_sheet(one, "x").head


def test_losses_are_the_cross_entropy_of_the_labels_that_are_known():
    probabilities = np.array([[0.9, 0.2], [0.1, 0.5], [0.3, 0.3]])
    labels = np.array([[1, 0], [1, 255], [255, 255]], np.uint8)
    expected = [-(np.log(0.9) + np.log(0.8)) / 2, -np.log(0.1), 0]
    assert losses(probabilities, labels) == pytest.approx(expected)


def test_the_most_wrong_are_those_of_the_largest_loss_under_the_mean_of_the_seeds(judged):
    one = judged[0]
    mean = (one.files[0].probabilities.astype(float) + one.files[1].probabilities) / 2
    order = np.argsort(-losses(mean, one.files[0].labels))[:4]
    found = most_wrong(one, 4)
    assert [wrong.row for wrong in found] == order.tolist()
    for wrong in found:
        carried = {
            name for name, has in zip(one.files[0].label_names, one.files[0].labels[wrong.row], strict=True) if has
        }
        assert set(wrong.carried) == carried


def test_a_fold_is_judged_on_its_own_records(judged):
    one = judged[0]
    assert fold_auroc(one, 10) == pytest.approx(one.evaluation.groups[0][1]["auroc"].value)
    assert np.isnan(fold_auroc(one, 3))
    assert Judge(one.files[0].probabilities, one.files[0].labels).defined.all()


def test_the_gain_by_prevalence_needs_a_baseline(judged):
    assert gain_by_prevalence(judged[0], "x") is not None
    assert gain_by_prevalence(judged[1], "x") is None


def test_learning_curves_that_are_missing_are_told(tmp_path):
    run = write_run(tmp_path / "run", METHOD)
    (run / "metrics.csv").unlink()
    figures, problems = learning_figures(grouped(read_runs([str(run)]))[0], "curves")
    assert figures == []
    assert "run: no learning curve" in problems[0]


def test_figures_are_the_same_bytes_each_time_as_png_and_as_pdf(judged):
    first, second = (levels_and_gains(judged, "x") for _ in range(2))
    assert (first.png, first.pdf) == (second.png, second.pdf)
    assert Image.open(io.BytesIO(first.png)).width == round(160 * first.inches)
    assert first.pdf.startswith(b"%PDF")


def test_a_curve_over_fractions_is_drawn_for_each_recipe(tmp_path):
    paths = [
        write_grid_of_runs(tmp_path / f"grid{fraction}", seeds=(1,), train_fraction=fraction) for fraction in (0.1, 1.0)
    ]
    found = judge(grouped(read_runs([str(path) for path in paths]))[0], Options(draws=100), "test")[0]
    assert {one.group.label for one in found} == {"method", "plain", "probe"}
    assert {one.group.fraction for one in found} == {0.1, 1.0}
    assert data_efficiency(found, "x").png.startswith(b"\x89PNG")


def test_a_dollar_in_a_label_is_no_formula():
    def draw():
        figure = new_figure(2, 1)
        figure.subplots().set_title("$\\frac$ <b>")
        return figure

    assert drawn("x", "", "", draw).png.startswith(b"\x89PNG")

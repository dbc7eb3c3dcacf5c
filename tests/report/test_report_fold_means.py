"""A cross-validation in the report: means over the folds are the main figures, all folds in one pot the second."""

from dataclasses import replace

import numpy as np
import pytest
from made_runs import METHOD, PLAIN, write_experiment, write_run
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report import fold_figures
from ecg_lightning.report.judged import judge
from ecg_lightning.report.main_table import main_sheets
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped

FOLDS, SEEDS = (1, 2, 3), (1, 2)
SCALES = {1: 1.0, 2: 0.4, 3: 0.1}
"""Of the method's networks: each ranks well, on a scale of its own."""


def fold_files(folder, recipe):
    return [
        [Predictions.load(folder / f"{recipe}{fold}-{seed}" / "predictions" / "test.npz") for fold in FOLDS]
        for seed in SEEDS
    ]


def macro(score, one, columns=slice(None)):
    return np.mean([score(*pair) for pair in zip(one.labels.T[columns], one.probabilities.T[columns], strict=True)])


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """Two recipes, three folds, two seeds; the method's networks have other scales."""
    folder, cells = tmp_path_factory.mktemp("crossed"), {}
    for name, recipe, shift in (("method", METHOD, 2.0), ("plain", PLAIN, 1.4)):
        for seed in SEEDS:
            for fold in FOLDS:
                called = f"{name}{fold}-{seed}"
                folds = {"train_folds": [4, 5, fold % 3 + 1], "val_folds": [6], "test_folds": [fold]}
                arguments = {"first_id": 1000 * fold, "seed": fold}
                run = write_run(folder / called, recipe, seed, shift=shift, arguments=arguments, **folds)
                if name == "method":
                    path = run / "predictions" / "test.npz"
                    one = Predictions.load(path)
                    path.unlink()
                    replace(one, probabilities=one.probabilities * np.float32(SCALES[fold])).save(path)
                cells[called] = {"recipe": name, "fold": fold, "seed": seed}
    judged, problems = judge(grouped(read_runs([str(write_experiment(folder, cells))]))[0], Options(draws=100), "test")
    assert problems == []
    return folder, {one.group.label: one for one in judged}, judged


def of(crossed, plain):
    return next(one for one in crossed[2] if (one.plain is None) == plain)


@pytest.mark.parametrize(("name", "score"), [("auroc", roc_auc_score), ("auprc", average_precision_score)])
def test_the_main_figures_are_means_over_the_folds_and_the_pooled_ones_are_kept(crossed, name, score):
    method, plain = of(crossed, False), of(crossed, True)
    by_fold = {}
    for one, recipe in ((method, "method"), (plain, "plain")):
        values = by_fold[recipe] = np.array(
            [[macro(score, file) for file in row] for row in fold_files(crossed[0], recipe)]
        )
        assert one.evaluation.groups[0][1][name].value == pytest.approx(values.mean(), abs=1e-6)
        assert [values[name] for values in (of_file[0] for of_file in one.evaluation.per_file)] == pytest.approx(
            values.mean(axis=1), abs=1e-6
        )
        pots = [macro(score, _pot(row)) for row in fold_files(crossed[0], recipe)]
        assert one.folds.pooled[0][1][name].value == pytest.approx(np.mean(pots), abs=1e-6)
    gains = by_fold["method"] - by_fold["plain"]
    assert method.comparison.groups[0][1][name].value == pytest.approx(gains.mean(), abs=1e-6)
    np.testing.assert_allclose(method.folds.gains[0].per_fold[name], gains, atol=1e-6)
    assert method.folds.gains[0].won(name) == (gains.mean(axis=0) > 0).sum() >= 2
    assert gains.mean() > method.folds.pooled_gains[0][1][name].value + 0.02  # the pot hides it


def _pot(row):
    probabilities, labels = (
        np.concatenate([getattr(one, name) for one in row]) for name in ("probabilities", "labels")
    )
    return replace(row[0], probabilities=probabilities, labels=labels)


def test_the_table_has_a_line_for_each_and_says_what_is_averaged(crossed):
    sheet = main_sheets(crossed[2], [])[0]
    recipes = [row[1] for row in sheet.rows]
    assert sum("pooled" in str(recipe) for recipe in recipes) == 2
    assert "every fold counting the same" in sheet.caption
    won = [row[sheet.head.index("folds won")] for row in sheet.rows]
    assert f"{of(crossed, False).folds.gains[0].won('auroc')} of 3" in won


def test_folds_that_lack_a_class_of_a_label_are_named_and_do_without_it(tmp_path):
    cells = {}
    for fold in FOLDS:
        folds = {"train_folds": [4, 5, fold % 3 + 1], "val_folds": [6], "test_folds": [fold]}
        run = write_run(tmp_path / f"fold{fold}", METHOD, arguments={"first_id": 1000 * fold, "seed": fold}, **folds)
        if fold == 2:
            path = run / "predictions" / "test.npz"
            one = Predictions.load(path)
            path.unlink()
            replace(one, labels=one.labels * (np.arange(one.labels.shape[1]) > 0).astype(np.uint8)).save(path)
        cells[f"fold{fold}"] = {"recipe": "method", "fold": fold, "seed": 1}
    ((one,), _) = judge(grouped(read_runs([str(write_experiment(tmp_path, cells))]))[0], Options(draws=100), "test")
    files = [Predictions.load(tmp_path / f"fold{fold}" / "predictions" / "test.npz") for fold in FOLDS]
    most = files[0].labels.shape[1]
    assert f"fewer count there: 2 ({most - 1} of {most})" in " ".join(one.notes)
    expected = np.mean(
        [macro(roc_auc_score, file, slice(int(fold == 2), None)) for fold, file in zip(FOLDS, files, strict=True)]
    )
    assert one.evaluation.groups[0][1]["auroc"].value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("recipes", [2, 8])
def test_the_marks_of_a_fold_stay_nearer_to_its_place_than_to_the_next(crossed, recipes):
    many = [crossed[2][place % 2] for place in range(recipes)]
    [axes] = fold_figures._by_fold(many).axes
    marks = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == len(FOLDS)]
    assert len(marks) == recipes
    assert all(np.abs(places - np.arange(len(FOLDS))).max() < 0.5 for places in marks)

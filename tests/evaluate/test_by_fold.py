from dataclasses import replace

import numpy as np
import pytest
from predicted import predicted
from scipy.stats import kstest, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.bootstrap import patient_weights
from ecg_lightning.evaluate.by_fold import compare_by_fold, evaluate_by_fold
from ecg_lightning.evaluate.compare import compare
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.evaluate.judging import evaluate
from ecg_lightning.evaluate.protocols import Group

FIGURES = {"auroc": roc_auc_score, "auprc": average_precision_score}
ALL_FIVE = Group("superdiagnostic", "all", np.arange(5))
SIZES = {"draws": 100, "seed": 3}
FEW = {"draws": 8, "seed": 3}


def in_folds(one, num_folds=3):
    """The file and its parts; patients lie in one fold each, the last label has both classes in the first alone."""
    fold = one.patient_id % num_folds
    labels = one.labels.copy()
    labels[fold != 0, -1] = 0
    return replace(one, labels=labels, fold=fold.astype(np.int8)), [np.flatnonzero(fold == f) for f in range(num_folds)]


def made(*models, shift=1.5, num_folds=3, **arguments):
    files = [
        in_folds(predicted(150, model=m, shift=shift, num_patients=70, unknown=0.1, **arguments), num_folds)
        for m in models
    ]
    return [file for file, _ in files], files[0][1]


def by_loop(labels, scores, parts, figure, weights=None):
    """Mean over folds of the mean over the fold's labels, by scikit-learn."""
    folds = []
    for rows in parts:
        values = []
        for column in range(labels.shape[1]):
            its = rows[labels[rows, column] <= 1]
            if len(np.unique(labels[its, column])) == 2:
                weight = None if weights is None else weights[its]
                values.append(figure(labels[its, column], scores[its, column], sample_weight=weight))
        if values:
            folds.append(np.mean(values))
    return np.mean(folds)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_and_interval_equal_a_plain_loop_over_folds_and_their_labels(name):
    files, parts = made(0, 1)
    (one,) = evaluate_by_fold(files, [ALL_FIVE], parts, **FEW)
    patients, of_record = np.unique(files[0].patient_id, return_inverse=True)
    weights = np.concatenate([*patient_weights(len(patients), 8, 3)], axis=1)[of_record]

    def expected(weight=None):
        values = [by_loop(f.labels, f.probabilities.astype(float), parts, FIGURES[name], weight) for f in files]
        return np.mean(values)

    draws = [expected(weights[:, draw]) for draw in range(8)]
    assert one.figures[name].value == pytest.approx(expected(), abs=1e-12)
    low_and_high = one.figures[name].low, one.figures[name].high
    assert low_and_high == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-12)
    assert one.num_labels == (5, 4, 4)


@pytest.mark.parametrize("name", FIGURES)
def test_gain_and_both_p_equal_a_plain_loop_that_swaps_ranks_within_folds(name):
    (first,), parts = made(0)
    (second,), _ = made(1, shift=1.2)
    (one,) = compare_by_fold([first], [second], [ALL_FIVE], parts, permutations=20, **FEW)
    figure = FIGURES[name]
    real = by_loop(first.labels, first.probabilities.astype(float), parts, figure)
    real -= by_loop(first.labels, second.probabilities.astype(float), parts, figure)
    ranks = [np.full(first.labels.shape, np.nan) for _ in range(2)]
    for own, file in zip(ranks, (first, second), strict=True):
        for rows in parts:
            for column in range(5):
                its = rows[first.labels[rows, column] <= 1]
                own[its, column] = rankdata(file.probabilities[its, column])
    patients, of_record = np.unique(first.patient_id, return_inverse=True)
    coins = np.random.Generator(np.random.PCG64((3, 1))).random((20, len(patients))) < 0.5
    swapped = []
    for coin in coins:
        left = np.where(coin[of_record][:, None], ranks[1], ranks[0])
        right = np.where(coin[of_record][:, None], ranks[0], ranks[1])
        swapped.append(by_loop(first.labels, left, parts, figure) - by_loop(first.labels, right, parts, figure))
    extreme = (np.abs(swapped) >= abs(real) - 1e-12).sum()
    assert one.differences[name].value == pytest.approx(real, abs=1e-12)
    assert one.differences[name].p_permutation == (1 + extreme) / 21
    assert 1 / 21 <= one.differences[name].p_permutation < 1


def test_with_one_fold_all_is_that_of_the_plain_evaluation():
    first, parts = made(0, 1, num_folds=1)
    second, _ = made(2, 3, num_folds=1, shift=1.2)
    (figures,) = evaluate_by_fold(first, [ALL_FIVE], parts, **SIZES)
    (gains,) = compare_by_fold(first, second, [ALL_FIVE], parts, permutations=100, **SIZES)
    plain = evaluate(first, options=Options(**SIZES))
    compared = compare(first, second, [ALL_FIVE], names=("ab", "cd"), permutations=100, **SIZES)
    for name in FIGURES:
        one, other = figures.figures[name], plain.groups[0][1][name]
        got, expected = gains.differences[name], compared.groups[0][1][name]
        assert [one.value, one.low, one.high, one.spread] == pytest.approx(
            [other.value, other.low, other.high, other.spread], abs=1e-12
        )
        assert [got.value, got.low, got.high] == pytest.approx([expected.value, expected.low, expected.high], abs=1e-12)
        assert (got.p_bootstrap, got.p_permutation) == (expected.p_bootstrap, expected.p_permutation)


def test_networks_on_shifted_scales_change_the_pooled_figure_alone():
    files, parts = made(0, 1)
    shifted = []
    for file in files:
        probabilities = file.probabilities.astype(np.float64)
        for place, rows in enumerate(parts):
            probabilities[rows] = (probabilities[rows] + place) / 3
        shifted.append(replace(file, probabilities=probabilities))
    (one,), (other,) = (evaluate_by_fold(its, [ALL_FIVE], parts, **SIZES) for its in (files, shifted))
    assert one.figures == other.figures
    pooled = [evaluate(its, options=Options(**SIZES)).groups[0][1]["auroc"].value for its in (files, shifted)]
    assert pooled[0] > pooled[1] + 0.05
    (gain,) = compare_by_fold(files, shifted, [ALL_FIVE], parts, permutations=100, **SIZES)
    assert gain.differences["auroc"].p_permutation == 1


def test_folds_won_are_counted_in_the_mean_over_seeds_and_a_tie_is_no_win():
    first, parts = made(0, 1)
    second = [replace(one, probabilities=one.probabilities.copy()) for one in first]
    for file in second:
        file.probabilities[parts[1]] = 1 - file.probabilities[parts[1]]
    (gains,) = compare_by_fold(first, second, [ALL_FIVE], parts, permutations=100, **SIZES)
    assert (gains.won("auroc"), gains.num_folds("auroc")) == (1, 3)


def test_a_fold_without_any_label_of_both_classes_is_in_no_mean():
    (one,), parts = made(0)
    one.labels[parts[2]] = 0
    (without,) = evaluate_by_fold([one], [ALL_FIVE], parts, **SIZES)
    (alone,) = evaluate_by_fold([one], [ALL_FIVE], parts[:2], **SIZES)
    assert without.num_labels == (5, 4, 0)
    assert np.isnan(without.per_fold["auroc"][0, 2])
    for name in FIGURES:
        got, expected = without.figures[name], alone.figures[name]
        assert (got.value, got.low, got.high) == (expected.value, expected.low, expected.high)


def test_a_fold_without_a_figure_is_neither_won_nor_counted():
    ((one,), parts), ((other,), _) = made(0), made(1)
    for each in (one, other):
        each.labels[:] = one.labels
        each.labels[parts[2]] = 0
    (gains,) = compare_by_fold([one], [other], [ALL_FIVE], parts, permutations=20, **SIZES)
    assert gains.num_folds("auroc") == 2
    assert gains.won("auroc") == (gains.per_fold["auroc"][0, :2] > 0).sum()


def test_labels_that_have_both_classes_in_no_fold_are_refused():
    (one,), parts = made(0)
    one.labels[:] = 0
    with pytest.raises(InputError, match=r"none has both classes within any of the 3 test folds.*test larger folds"):
        evaluate_by_fold([one], [ALL_FIVE], parts, **SIZES)


@pytest.mark.slow
def test_under_exchange_of_equal_models_p_is_uniform():
    found = []
    for seed in range(200):
        arguments = {"names": ("A", "B"), "seed": seed, "num_patients": 60}
        first, second = (predicted(120, model=model, **arguments) for model in (0, 1))
        parts = [np.flatnonzero(first.patient_id % 3 == fold) for fold in range(3)]
        group = Group("clinic", "all", np.arange(2))
        (gains,) = compare_by_fold([first], [second], [group], parts, draws=100, permutations=199, seed=seed)
        found.append(gains.differences["auroc"].p_permutation)
    assert kstest(found, "uniform").pvalue > 0.01
    assert 0.05 < np.mean(np.array(found) <= 0.1) < 0.16

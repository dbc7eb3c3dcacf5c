import numpy as np
import pytest
import torch
from predicted import predicted
from scipy.special import ndtr
from scipy.stats import binom
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from ecg_lightning.evaluate.bootstrap import FIGURES, Judge, bootstrap, interval, patient_weights, student_interval


def all_weights(num_patients, draws, seed, **arguments):
    return np.concatenate([*patient_weights(num_patients, draws, seed, **arguments)], axis=1)


def test_weights_are_dirichlet_with_mean_one():
    weights = all_weights(50, 4000, 3)
    assert weights.shape == (50, 4000)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1)
    # Dirichlet(1 ... 1) times n: variance (n - 1) / (n + 1)
    assert weights.var() == pytest.approx(49 / 51, rel=0.03)
    assert weights[0].var() == pytest.approx(49 / 51, rel=0.15)


def test_the_draws_are_the_same_for_any_chunk_and_another_seed_gives_others():
    whole = all_weights(30, 100, 1, chunk=100)
    assert np.array_equal(whole, all_weights(30, 100, 1, chunk=7))
    assert not np.array_equal(whole, all_weights(30, 100, 2, chunk=100))
    assert np.array_equal(whole[:, :40], all_weights(30, 40, 1))


def expected_figures(one, weights, thresholds, column):
    """By scikit-learn, for one draw of weights (record,)."""
    known = one.labels[:, column] <= 1
    target, score, w = one.labels[known, column], one.probabilities[known, column].astype(float), weights[known]
    called = score >= thresholds[column]
    of_sklearn = {"sample_weight": w}
    return {
        "auroc": roc_auc_score(target, score, **of_sklearn),
        "auprc": average_precision_score(target, score, **of_sklearn),
        "f1": f1_score(target, called, **of_sklearn),
        "sensitivity": recall_score(target, called, **of_sklearn),
        "specificity": recall_score(target, called, pos_label=0, **of_sklearn),
        "brier": brier_score_loss(target, score, **of_sklearn),
    }


def test_every_figure_of_every_draw_equals_a_plain_loop_with_patients_weights():
    one = predicted(150, num_patients=60, unknown=0.1, decimals=2)
    thresholds = np.array([0.3, 0.4, 0.5, 0.6, 0.2])
    drawn = bootstrap([Judge(one.probabilities, one.labels, thresholds)], one.patient_id, draws=40, seed=5)
    patients = sorted(set(one.patient_id.tolist()))
    weights = all_weights(len(patients), 40, 5)
    for draw in (0, 17, 39):
        of_records = np.array([weights[patients.index(patient), draw] for patient in one.patient_id])
        for column in range(5):
            for name, value in expected_figures(one, of_records, thresholds, column).items():
                assert drawn[name][0, column, draw] == pytest.approx(value, abs=1e-9), name


def test_every_file_and_label_sees_the_same_draws():
    one = predicted(100, num_patients=50)
    judges = [Judge(one.probabilities, one.labels)] * 2
    drawn = bootstrap(judges, one.patient_id, draws=100, seed=0)
    for name in ("auroc", "auprc", "brier"):
        assert np.array_equal(drawn[name][0], drawn[name][1])
    alone = bootstrap([Judge(one.probabilities[:, 3:4], one.labels[:, 3:4])], one.patient_id, draws=100, seed=0)
    np.testing.assert_allclose(alone["auroc"][0, 0], drawn["auroc"][0, 3], rtol=0, atol=1e-12)


def test_no_label_with_both_classes_vanishes_from_a_draw():
    one = predicted(200, prevalence=0.0)
    one.labels[7, :] = 1
    drawn = bootstrap([Judge(one.probabilities, one.labels)], one.patient_id, draws=500, seed=0)
    assert np.isfinite(drawn["auroc"]).all()
    assert np.isfinite(drawn["auprc"]).all()


def test_figures_without_a_threshold_or_a_class_are_not_defined():
    one = predicted(50)
    one.labels[:, 0] = 0
    point = Judge(one.probabilities, one.labels, np.array([0.5, np.nan, 0.5, 0.5, 0.5])).point()
    assert np.isnan(point["auroc"][0])
    assert np.isnan([point[name][1] for name in ("f1", "sensitivity", "specificity")]).all()
    assert np.isfinite([point[name][2] for name in FIGURES]).all()
    assert all(np.isnan(Judge(one.probabilities, one.labels).point()["f1"]))


def test_the_interval_is_that_of_numpys_percentiles():
    drawn = np.random.default_rng(0).random(1000)
    assert interval(drawn) == (np.percentile(drawn, 2.5), np.percentile(drawn, 97.5))


@pytest.mark.parametrize(("point", "rarer"), [(1.0, 50), (0.8, 1), (0.8, 0), (0.0, 5)])
def test_one_patient_or_a_perfect_order_has_no_t_interval(point, rarer):
    assert np.isnan(student_interval(point, np.random.default_rng(0).random(100), rarer, 0.001)).all()


def test_the_t_interval_of_many_patients_is_close_to_the_percentiles_and_of_few_is_wider():
    random = np.random.default_rng(0)
    drawn = 1 / (1 + np.exp(-random.normal(1, 0.1, 4000)))
    many, few = (student_interval(float(np.median(drawn)), drawn, rarer, 1e-6) for rarer in (2000, 4))
    np.testing.assert_allclose(many, interval(drawn), atol=0.003)
    assert few[0] < many[0] < many[1] < few[1]
    assert all(0 < end < 1 for end in few)


# --- what the intervals cover; more of it: benchmarks/coverage.py ---


SIMULATIONS = 200


def covers(num_patients, expected_positives, *, draws=300, shift=1.5, records_of_patient=1):
    """How often the percentile interval, by patients and by records, and the t interval hold the true AUROC.

    Each label is a simulation of its own, all under the same draws.
    """
    random = np.random.default_rng(0)
    truth = float(ndtr(shift / np.sqrt(2)))
    labels = (random.random((num_patients, SIMULATIONS)) < expected_positives / num_patients).astype(np.uint8)
    labels[:2], labels[2] = 1, 0
    score = random.normal(size=labels.shape) + shift * labels
    rarer = labels.sum(axis=0)
    labels, score = (np.repeat(values, records_of_patient, axis=0) for values in (labels, score))
    judge = Judge(score, labels)
    point = judge.point()["auroc"]
    patients = np.repeat(np.arange(num_patients), records_of_patient)
    by_patient = bootstrap([judge], patients, draws=draws, seed=0)["auroc"][0]
    by_record = bootstrap([judge], np.arange(len(labels)), draws=draws, seed=0)["auroc"][0]
    hits = {"percentile": 0, "records": 0, "t": 0}
    for place in range(SIMULATIONS):
        pairs = int(labels[:, place].sum()) * int((labels[:, place] == 0).sum())
        intervals = {
            "percentile": interval(by_patient[place]),
            "records": interval(by_record[place]),
            "t": student_interval(float(point[place]), by_patient[place], int(rarer[place]), 0.5 / pairs),
        }
        for name, (low, high) in intervals.items():
            hits[name] += low <= truth <= high
    return hits


def test_the_interval_covers_the_truth_of_a_common_label_as_often_as_it_says():
    hits = covers(300, 100)
    low, high = binom.interval(0.999, SIMULATIONS, 0.95)
    assert low <= hits["percentile"] <= high
    assert low <= hits["t"] <= high


def test_of_rare_labels_the_t_interval_covers_and_the_percentiles_do_not():
    hits = covers(300, 5)
    low, _ = binom.interval(0.999, SIMULATIONS, 0.95)
    assert hits["t"] >= low
    assert hits["percentile"] < low


def test_records_taken_for_independent_give_intervals_that_are_too_narrow():
    hits = covers(200, 60, records_of_patient=3)
    low, _ = binom.interval(0.999, SIMULATIONS, 0.95)
    assert hits["percentile"] >= low
    assert hits["records"] < low


def test_patients_drawn_with_replacement_skew_the_macro_mean_and_these_weights_do_not():
    """Eight common labels that are hard, eight of two positives that are easy: draws without the latter sink."""
    random = np.random.default_rng(0)
    num = 400
    labels = (random.random((num, 16)) < 0.3).astype(np.uint8)
    labels[:, 8:] = 0
    for column in range(8, 16):
        labels[random.choice(num, 2, replace=False), column] = 1
    score = random.normal(size=(num, 16)) + labels * np.where(np.arange(16) < 8, 0.3, 4.0)
    judge = Judge(score, labels)
    truth = judge.point()["auroc"].mean()
    bayesian = judge(torch.from_numpy(all_weights(num, 400, 0)))["auroc"].numpy()
    naive = judge(torch.from_numpy(random.multinomial(num, np.ones(num) / num, 400).T.astype(float)))["auroc"].numpy()
    assert np.isnan(naive).any(axis=0).mean() > 0.5
    assert np.isfinite(bayesian).all()
    left_out, as_zero = np.nanmean(naive, axis=0), np.nan_to_num(naive).mean(axis=0)
    low, high = interval(bayesian.mean(axis=0))
    assert abs(bayesian.mean() - truth) < 0.1 * (high - low)
    assert truth - left_out.mean() > 0.25 * (high - low)  # easy labels missing
    assert as_zero.mean() < low < truth  # where they count as 0

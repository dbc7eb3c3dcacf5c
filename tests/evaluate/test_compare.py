from dataclasses import replace

import numpy as np
import pytest
from predicted import predicted
from scipy.stats import binom, false_discovery_control, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.bootstrap import patient_weights
from ecg_lightning.evaluate.compare import compare, holm, swap_differences
from ecg_lightning.evaluate.protocols import Group

ALL_FIVE = Group("superdiagnostic", "all", np.arange(5))
FIGURES = {"auroc": roc_auc_score, "auprc": average_precision_score}


def compared(first, second, *, draws=100, permutations=100, groups=(ALL_FIVE,), **arguments):
    names = [f"a{place}" for place in range(len(first))], [f"b{place}" for place in range(len(second))]
    return compare(first, second, groups, names=names, draws=draws, permutations=permutations, **arguments)


def expected_figures(one, weights=None):
    """(label,) each, by scikit-learn."""
    result = {}
    for name, figure in FIGURES.items():
        values = []
        for column in range(one.labels.shape[1]):
            known = one.labels[:, column] <= 1
            weight = None if weights is None else weights[known]
            target, score = one.labels[known, column], one.probabilities[known, column].astype(float)
            values.append(figure(target, score, sample_weight=weight))
        result[name] = np.array(values)
    return result


def test_the_difference_and_its_interval_equal_a_plain_loop_over_the_same_draws_mean_over_seeds():
    first = [predicted(80, model=m, num_patients=40, unknown=0.1) for m in (0, 1)]
    second = [predicted(80, model=m, shift=1.0, num_patients=40, unknown=0.1) for m in (2, 3)]
    comparison = compared(first, second, draws=12, seed=4)
    patients, of_record = np.unique(first[0].patient_id, return_inverse=True)
    weights = np.concatenate([*patient_weights(len(patients), 12, 4)], axis=1)[of_record]
    draws = []
    for draw in range(12):
        sides = [[expected_figures(one, weights[:, draw])["auroc"] for one in side] for side in (first, second)]
        draws.append(np.mean(sides[0], axis=0) - np.mean(sides[1], axis=0))
    real = np.mean(
        [expected_figures(a)["auroc"] - expected_figures(b)["auroc"] for a, b in zip(first, second, strict=True)],
        axis=0,
    )
    for column, name in enumerate(first[0].label_names):
        one = comparison.labels[name]["auroc"]
        assert one.value == pytest.approx(real[column], abs=1e-9)
        assert (one.low, one.high) == pytest.approx(np.percentile(np.array(draws)[:, column], [2.5, 97.5]), abs=1e-9)
    macro = comparison.groups[0][1]["auroc"]
    assert macro.value == pytest.approx(real.mean(), abs=1e-9)
    assert (macro.low, macro.high) == pytest.approx(np.percentile(np.mean(draws, axis=1), [2.5, 97.5]), abs=1e-9)


def test_swapped_differences_equal_a_plain_swap_of_ranks_per_patient():
    first, second = (predicted(60, model=m, num_patients=25, decimals=1, unknown=0.1) for m in (0, 1))
    got = swap_differences([first], [second], 30, seed=2)
    patients, of_record = np.unique(first.patient_id, return_inverse=True)
    coins = np.random.Generator(np.random.PCG64((2, 1))).random((30, len(patients))) < 0.5
    for column in range(5):
        known = first.labels[:, column] <= 1
        target = first.labels[known, column]
        a, b = (rankdata(one.probabilities[known, column]) for one in (first, second))
        for permutation in (0, 13, 29):
            swap = coins[permutation][of_record][known]
            left, right = np.where(swap, b, a), np.where(swap, a, b)
            for name, figure in FIGURES.items():
                expected = figure(target, left) - figure(target, right)
                assert got[name][column, permutation] == pytest.approx(expected, abs=1e-9)


def test_a_model_against_itself_differs_by_nothing_with_p_one():
    one = predicted(60)
    comparison = compared([one], [one])
    for figures in (*comparison.labels.values(), comparison.groups[0][1]):
        for difference in figures.values():
            assert (difference.value, difference.low, difference.high) == (0, 0, 0)
            assert difference.p_bootstrap == difference.p_permutation == 1


def test_the_scale_of_a_model_plays_no_part():
    first, second = predicted(100, model=0), predicted(100, model=1)
    squeezed = replace(second, probabilities=second.probabilities.astype(np.float64) ** 3 / 2)
    plain, other = compared([first], [second]), compared([first], [squeezed])
    assert plain.labels == other.labels


def test_no_p_is_smaller_than_one_of_all_permutations():
    first, second = predicted(150, model=0, shift=4.0), predicted(150, model=1, shift=0.0)
    comparison = compared([first], [second], permutations=200, draws=100)
    macro = comparison.groups[0][1]["auroc"]
    assert macro.p_permutation == 1 / 201
    assert macro.p_bootstrap == 2 / 101
    assert comparison.smallest_holm == 5 / 201
    assert min(one["auroc"].p_permutation_holm for one in comparison.labels.values()) == pytest.approx(5 / 201)


@pytest.mark.parametrize(("num_labels", "expected"), [(5, 1000), (26, 1040)])
def test_enough_permutations_for_the_number_of_labels_are_made_unless_told(num_labels, expected):
    names = [f"L{place}" for place in range(num_labels)]
    one = predicted(12, names, prevalence=0.5, seed=3)
    one.labels[0], one.labels[1] = 0, 1
    comparison = compared([one], [one], permutations=None, groups=())
    assert comparison.permutations == expected


def test_a_label_without_both_classes_is_not_compared():
    first, second = predicted(50, model=0), predicted(50, model=1)
    for one in (first, second):
        one.labels[:, 2] = 0
    group = Group("superdiagnostic", "all", np.array([0, 1, 3, 4]))
    comparison = compared([first], [second], groups=[group])
    assert "MI" not in comparison.labels
    assert np.isfinite([one.p_permutation for one in comparison.groups[0][1].values()]).all()


def test_sides_of_different_numbers_of_files_are_refused():
    one = predicted(30)
    with pytest.raises(UsageError, match=r"2 file\(s\) against 1: seeds are compared in pairs"):
        compared([one, one], [one])


def test_holm_is_the_step_down_of_its_paper():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    p = np.random.default_rng(0).random(20) ** 3
    corrected = np.array(holm(p.tolist()))
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * 20) + 1e-15).all()
    assert (corrected >= false_discovery_control(p) - 1e-15).all()


# --- false positives and power; more of it: benchmarks/comparison.py ---

SIMULATIONS = 150
ALPHA = 0.1
CLINIC = {"num_records": 90, "names": ("A", "B"), "num_patients": 45}


def share_found(*, shift):
    """How often p < `ALPHA` for the macro AUROC, of both tests, over simulated pairs of models."""
    found = {"p_bootstrap": 0, "p_permutation": 0}
    for seed in range(SIMULATIONS):
        first, second = predicted(seed=seed, model=0, **CLINIC), predicted(seed=seed, model=1, shift=shift, **CLINIC)
        group = Group("clinic", "all", np.arange(2))
        macro = compared([first], [second], groups=[group], seed=seed).groups[0][1]["auroc"]
        for name in found:
            found[name] += getattr(macro, name) < ALPHA
    return found


def test_equal_models_are_told_apart_as_seldom_as_alpha_says():
    low, high = binom.interval(0.999, SIMULATIONS, ALPHA)
    found = share_found(shift=1.5)
    assert low <= found["p_permutation"] <= high
    assert low <= found["p_bootstrap"] <= high


def test_a_clearly_better_model_is_found():
    found = share_found(shift=3.0)
    assert found["p_permutation"] > 0.8 * SIMULATIONS
    assert found["p_bootstrap"] > 0.8 * SIMULATIONS

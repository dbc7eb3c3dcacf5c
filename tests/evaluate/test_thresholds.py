import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.thresholds import choose_thresholds, parse_rule


def drawn(num_records, seed, decimals=None, unknown=0.2):
    random = np.random.default_rng(seed)
    labels = (random.random(num_records) < 0.3).astype(np.uint8)
    probabilities = ((random.random(num_records) + 0.4 * labels) / 1.4).astype(np.float32)
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    labels[random.random(num_records) < unknown] = 255
    labels[:2] = 0, 1
    return probabilities, labels


def sensitivity(target, called):
    return called[target == 1].mean()


def youden(target, called):
    return sensitivity(target, called) - called[target == 0].mean()


def f1(target, called):
    precision = target[called].mean()
    return 2 * precision * sensitivity(target, called) / max(precision + sensitivity(target, called), 1e-12)


def best_by_trying(probabilities, labels, quality):
    """The best quality of any threshold, and the highest threshold that has it."""
    known = labels <= 1
    tried = {float(cut): quality(labels[known], probabilities[known] >= cut) for cut in probabilities[known]}
    best = max(tried.values())
    return best, max(cut for cut, value in tried.items() if value >= best - 1e-12)


@given(seed=st.integers(0, 2**31), decimals=st.sampled_from([None, 1]), rule=st.sampled_from(["f1", "youden"]))
def test_the_threshold_is_the_highest_of_the_best_that_trying_all_finds(seed, decimals, rule):
    probabilities, labels = drawn(25, seed, decimals)
    chosen = choose_thresholds(probabilities[:, None], labels[:, None], parse_rule(rule))
    _, expected = best_by_trying(probabilities, labels, {"f1": f1, "youden": youden}[rule])
    assert chosen.tolist() == [expected]


@given(seed=st.integers(0, 2**31), least=st.sampled_from([0.5, 0.9, 1.0]), decimals=st.sampled_from([None, 1]))
def test_a_given_sensitivity_is_reached_by_the_highest_threshold_that_does(seed, least, decimals):
    probabilities, labels = drawn(25, seed, decimals)
    (chosen,) = choose_thresholds(probabilities[:, None], labels[:, None], parse_rule(f"sensitivity={least}"))
    known = labels <= 1
    reaching = [cut for cut in probabilities[known] if sensitivity(labels[known], probabilities[known] >= cut) >= least]
    assert chosen == max(reaching)


def test_a_label_without_both_classes_has_no_threshold():
    probabilities, labels = np.random.default_rng(0).random((20, 3)), np.zeros((20, 3), np.uint8)
    labels[:, 1], labels[:, 2], labels[0, 2] = 1, 255, 1
    assert np.isnan(choose_thresholds(probabilities, labels, parse_rule("f1"))).all()


@pytest.mark.parametrize("text", ["f2", "sensitivity", "sensitivity=0", "sensitivity=1.1", "sensitivity=high", "f1=2"])
def test_an_unknown_rule_is_refused_with_the_known(text):
    with pytest.raises(UsageError, match=r"--threshold is '.*', it must be f1, youden, or sensitivity=S"):
        parse_rule(text)

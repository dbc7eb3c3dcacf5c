import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.evaluate.ranking import ranked, scores, weight_sums, weighted_scores
from ecg_lightning.metrics import label_scores


def drawn(num_records, *, seed=0, decimals=None, prevalence=0.3, unknown=0.0):
    random = np.random.default_rng(seed)
    labels = (random.random(num_records) < prevalence).astype(np.uint8)
    probabilities = (random.random(num_records) + 0.4 * labels) / 1.4
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    labels[random.random(num_records) < unknown] = 255
    return torch.from_numpy(probabilities.astype(np.float32)), torch.from_numpy(labels)


def assert_equal_to_scikit_learn(probabilities, labels, weights):
    """Each draw of ``weights`` (record, draw) for itself."""
    label = ranked(probabilities, labels)
    known = labels.numpy() <= 1
    target, score = labels.numpy()[known], probabilities.double().numpy()[known]
    if len(set(target.tolist())) < 2:
        assert label is None
        return
    auroc, auprc = weighted_scores(label, torch.from_numpy(weights))
    for draw in range(weights.shape[1]):
        weight = weights[known, draw]
        assert auroc[draw] == pytest.approx(roc_auc_score(target, score, sample_weight=weight), abs=1e-9)
        assert auprc[draw] == pytest.approx(average_precision_score(target, score, sample_weight=weight), abs=1e-9)


@settings(max_examples=50)
@given(
    num_records=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    decimals=st.sampled_from([None, 0, 1, 2]),
    prevalence=st.sampled_from([0.03, 0.3, 0.97]),
    unknown=st.sampled_from([0.0, 0.5]),
)
def test_weighted_scores_equal_scikit_learn_with_ties_unknowns_and_degenerate_labels(
    num_records, seed, decimals, prevalence, unknown
):
    probabilities, labels = drawn(num_records, seed=seed, decimals=decimals, prevalence=prevalence, unknown=unknown)
    assert_equal_to_scikit_learn(
        probabilities, labels, np.random.default_rng(seed).standard_exponential((num_records, 3))
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), decimals=st.sampled_from([None, 1]))
def test_weights_of_zero_take_records_out(seed, decimals):
    probabilities, labels = drawn(40, seed=seed, decimals=decimals)
    weights = np.random.default_rng(seed).integers(0, 3, (40, 4)).astype(np.float64)
    weights[:3] = 1  # both classes stay in
    labels[0], labels[1] = 0, 1
    assert_equal_to_scikit_learn(probabilities, labels, weights)


def test_a_draw_without_weight_on_one_class_is_not_defined():
    probabilities, labels = drawn(40)
    label = ranked(probabilities, labels)
    for missing in (0, 1):
        auroc, auprc = weighted_scores(label, (labels != missing).double().unsqueeze(1))
        assert auroc.isnan().all()
        assert auprc.isnan().all()


def test_weights_of_one_give_the_figures_of_training():
    probabilities, labels = drawn(500, decimals=2, unknown=0.1)
    auroc, auprc = weighted_scores(ranked(probabilities, labels), torch.ones(500, 1, dtype=torch.float64))
    expected = label_scores(probabilities.unsqueeze(1), labels.unsqueeze(1), ["MI"])
    assert auroc.item() == pytest.approx(expected[0]["MI"], abs=1e-6)
    assert auprc.item() == pytest.approx(expected[1]["MI"], abs=1e-6)


@given(seed=st.integers(0, 2**31), decimals=st.sampled_from([None, 1]))
def test_sums_of_the_complement_are_those_of_its_weights(seed, decimals):
    probabilities, labels = drawn(50, seed=seed, decimals=decimals)
    labels[0], labels[1] = 0, 1
    label = ranked(probabilities, labels)
    taken = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (50, 3))).float()
    unit = weight_sums(label, torch.ones(50, 1, dtype=torch.float64))
    for ours, expected in zip(
        scores(weight_sums(label, taken).complement(unit)), weighted_scores(label, 1 - taken), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12, equal_nan=True)

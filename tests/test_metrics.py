import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.metrics import SplitScores, label_scores, macro

NAMES = ("CD", "HYP", "MI", "NORM", "STTC")


def drawn(num_records, num_labels=5, *, seed=0, decimals=None, prevalence=0.3):
    random = np.random.default_rng(seed)
    labels = (random.random((num_records, num_labels)) < prevalence).astype(np.uint8)
    probabilities = (random.random((num_records, num_labels)) + 0.4 * labels) / 1.4
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    return torch.from_numpy(probabilities.astype(np.float32)), torch.from_numpy(labels)


def scores_of(probabilities, labels, names=NAMES, batches=1, order=None, losses=None):
    """What `SplitScores` makes of records that arrive in ``order``, in so many batches."""
    metric = SplitScores(names[: labels.shape[1]])
    order = torch.arange(len(labels)) if order is None else order
    losses = torch.zeros(len(labels)) if losses is None else losses
    for rows in order.chunk(batches):
        metric.update(rows, probabilities[rows], labels[rows], losses[rows])
    return metric.scores()


def assert_equal_to_scikit_learn(auroc, auprc, probabilities, labels, names=NAMES):
    for column, name in enumerate(names[: labels.shape[1]]):
        target, score = labels[:, column].numpy(), probabilities[:, column].double().numpy()
        if 0 < target.sum() < len(target):
            assert auroc[name] == pytest.approx(roc_auc_score(target, score), abs=1e-6)
            assert auprc[name] == pytest.approx(average_precision_score(target, score), abs=1e-6)
        else:
            assert name not in auroc
            assert name not in auprc


@given(
    num_records=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    decimals=st.sampled_from([None, 0, 1, 2]),
    prevalence=st.sampled_from([0.02, 0.3, 0.98]),
    num_labels=st.integers(1, 5),
)
def test_scores_equal_scikit_learn_with_ties_and_degenerate_labels(num_records, seed, decimals, prevalence, num_labels):
    probabilities, labels = drawn(num_records, num_labels, seed=seed, decimals=decimals, prevalence=prevalence)
    assert_equal_to_scikit_learn(*label_scores(probabilities, labels, NAMES), probabilities, labels)


@given(
    num_records=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    decimals=st.sampled_from([None, 1]),
    unknown=st.sampled_from([0.1, 0.5, 0.95]),
)
def test_a_label_is_judged_on_the_records_where_it_is_known(num_records, seed, decimals, unknown):
    probabilities, labels = drawn(num_records, seed=seed, decimals=decimals)
    labels[torch.from_numpy(np.random.default_rng(seed).random(labels.shape) < unknown)] = 255
    auroc, auprc = label_scores(probabilities, labels, NAMES)
    for column, name in enumerate(NAMES):
        known = labels[:, column] <= 1
        one = slice(column, column + 1)
        assert_equal_to_scikit_learn(
            *({name: value for name, value in of.items() if name == NAMES[column]} for of in (auroc, auprc)),
            probabilities[known, one], labels[known, one], [name],
        )  # fmt: skip


def test_unknown_labels_stay_in_the_scores_and_are_counted():
    probabilities, labels = drawn(30)
    labels[:10, 2] = 255
    labels[:, 4] = 255
    scores = scores_of(probabilities, labels, batches=4)
    assert torch.equal(scores.labels, labels)
    assert scores.undefined == ("STTC",)
    assert (scores.known["MI"], scores.known["CD"], scores.known["STTC"]) == (20, 30, 0)
    assert scores.positives["MI"] == int((labels[10:, 2] == 1).sum())
    assert scores.positives["STTC"] == 0


def test_the_loss_leaves_out_the_records_of_which_nothing_is_known():
    probabilities, labels = drawn(5)
    labels[4], labels[3, 1:] = 255, 255
    losses = torch.tensor([1.0, 1.0, 1.0, 5.0, 0.0])
    assert scores_of(probabilities, labels, batches=2, losses=losses).loss == 2.0


def test_scores_of_many_records_equal_scikit_learn():
    probabilities, labels = drawn(20_000, 3, decimals=3, prevalence=0.01)
    assert_equal_to_scikit_learn(*label_scores(probabilities, labels, NAMES), probabilities, labels)


@pytest.mark.parametrize("at_once", [1, 120])
def test_labels_ranked_a_few_at_a_time_give_the_same_scores(monkeypatch, at_once):
    probabilities, labels = drawn(50, decimals=1)
    labels[:5, 2] = 255
    together = label_scores(probabilities, labels, NAMES)
    monkeypatch.setattr("ecg_lightning.metrics.AT_ONCE", at_once)
    assert label_scores(probabilities, labels, NAMES) == together


def test_the_macro_mean_is_that_of_scikit_learn_over_the_labels_with_both_classes():
    probabilities, labels = drawn(50)
    labels[:, 1], labels[:, 3] = 0, 1
    defined = [0, 2, 4]
    summary = scores_of(probabilities, labels).summary()
    assert summary["auroc"] == pytest.approx(roc_auc_score(labels[:, defined], probabilities[:, defined]), abs=1e-6)
    assert summary["auprc"] == pytest.approx(
        average_precision_score(labels[:, defined], probabilities[:, defined]), abs=1e-6
    )
    assert summary["num_labels"] == 3


def test_labels_without_both_classes_are_named():
    probabilities, labels = drawn(50)
    labels[:, 1], labels[:, 3] = 0, 1
    assert scores_of(probabilities, labels).undefined == ("HYP", "NORM")


def test_no_label_with_both_classes_gives_nan_and_no_warning():
    probabilities, labels = drawn(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = scores_of(probabilities, labels * 0).summary()
    assert math.isnan(summary["auroc"])
    assert math.isnan(summary["auprc"])
    assert summary["num_labels"] == 0


def test_the_macro_mean_over_nothing_is_nan():
    assert math.isnan(macro({}))


@pytest.mark.parametrize(("num_records", "num_labels"), [(1, 1), (1, 5), (30, 1)])
def test_one_label_or_one_record_keep_their_shapes(num_records, num_labels):
    probabilities, labels = drawn(num_records, num_labels, prevalence=0.5)
    scores = scores_of(probabilities, labels)
    assert torch.equal(scores.probabilities, probabilities)
    assert torch.equal(scores.labels, labels)
    assert scores.index.tolist() == list(range(num_records))
    assert_equal_to_scikit_learn(scores.auroc, scores.auprc, probabilities, labels)


def test_the_order_in_which_records_arrive_changes_no_bit():
    probabilities, labels = drawn(60, decimals=1)
    losses = torch.rand(60, generator=torch.Generator().manual_seed(0))
    one = scores_of(probabilities, labels, losses=losses)
    for seed in range(3):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        other = scores_of(probabilities, labels, batches=7, order=order, losses=losses)
        assert torch.equal(one.probabilities, other.probabilities)
        assert (one.auroc, one.auprc, one.loss) == (other.auroc, other.auprc, other.loss)


def test_the_loss_is_the_mean_over_records_not_over_batches():
    probabilities, labels = drawn(5)
    losses = torch.tensor([1.0, 1.0, 1.0, 1.0, 6.0])
    assert scores_of(probabilities, labels, batches=2, losses=losses).loss == 2.0


def test_probabilities_between_0_and_1_are_never_squashed_again():
    probabilities, labels = drawn(40)
    scores = scores_of(probabilities, labels, batches=40)
    assert torch.equal(scores.probabilities, probabilities)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_kept_and_ranked_in_float32(dtype):
    probabilities, labels = drawn(200, decimals=3)
    half = probabilities.to(dtype)
    scores = scores_of(half, labels)
    assert scores.probabilities.dtype == torch.float32
    assert_equal_to_scikit_learn(scores.auroc, scores.auprc, half.float(), labels)


def test_saturated_logits_count_as_the_ties_that_they_are_in_float32():
    logits = torch.tensor([[-30.0], [20.0], [25.0], [30.0], [-25.0], [0.0]])
    labels = torch.tensor([[0], [0], [1], [1], [0], [1]], dtype=torch.uint8)
    probabilities = logits.sigmoid()
    scores = scores_of(probabilities, labels)
    assert_equal_to_scikit_learn(scores.auroc, scores.auprc, probabilities, labels)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_probabilities_that_are_no_numbers_are_refused_with_what_to_do(value):
    probabilities, labels = drawn(10)
    probabilities[3, 2] = value
    with pytest.raises(
        FloatingPointError, match=r"diverged; lower the learning rate or set trainer\.gradient_clip_val"
    ):
        scores_of(probabilities, labels)


def test_a_reset_metric_starts_from_nothing():
    probabilities, labels = drawn(10)
    metric = SplitScores(NAMES)
    for _ in range(2):
        metric.update(torch.arange(10), probabilities, labels, torch.zeros(10))
        scores = metric.scores()
        metric.reset()
    assert len(scores.index) == 10

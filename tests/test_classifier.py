from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import NormNet, norm_net, tiny_classifier, tiny_data, tiny_vit
from torch.nn import functional as F

from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.labels import UNKNOWN_LABEL
from ecg_lightning.errors import InputError
from ecg_lightning.frozen_features import FrozenFeatures, SplitFeatures
from ecg_lightning.optim import HEAD
from ecg_lightning.signals import Windows
from ecg_lightning.stochastic_depth import branches, set_drop_path

RECORDS = 7


class Stage:
    """The few things that the classifier asks of its trainer."""

    def __init__(self, **said: Any) -> None:
        given = {"world_size": 1, "global_rank": 0, "current_epoch": 0, "datamodule": None}
        self.__dict__.update({**given, **said})


def on_stage(classifier, **said):
    """The classifier as a trainer of that state sees it; keep the trainer, the classifier holds a weak reference."""
    classifier.stage = Stage(**said)
    classifier.trainer = classifier.stage
    classifier.log = lambda *arguments, **options: None
    return classifier


def made_up_batch(num_records=RECORDS, num_windows=1, points=1000):
    random = torch.Generator().manual_seed(0)
    return {
        "index": torch.arange(num_records),
        "labels": torch.randint(0, 2, (num_records, 5), generator=random).to(torch.uint8),
        "ecg": torch.randn(num_records, num_windows, 12, points, generator=random),
        "num_global": num_records,
        "first": 0,
    }


def part_of(batch, first, end):
    cut = {key: batch[key][first:end] for key in ("index", "labels", "ecg")}
    return {**cut, "num_global": batch["num_global"], "first": first}


@pytest.mark.parametrize("cuts", [(0, 3, 7), (0, 1, 2, 7)])
def test_the_mean_over_uneven_processes_is_the_loss_of_the_global_batch(cuts):
    batch, classifier = made_up_batch(), tiny_classifier().double()
    batch["ecg"] = batch["ecg"].double()
    world_size = len(cuts) - 1
    parts = [part_of(batch, first, end) for first, end in pairwise(cuts)]
    losses = [on_stage(classifier, world_size=world_size).training_step(part, 0).item() for part in parts]
    whole = on_stage(classifier).training_step(batch, 0).item()
    assert sum(losses) / world_size == pytest.approx(whole, rel=1e-12)


def test_the_loss_is_the_mean_cross_entropy_over_records_and_labels():
    batch, classifier = made_up_batch(), tiny_classifier()
    expected = F.binary_cross_entropy_with_logits(classifier(batch["ecg"][:, 0]), batch["labels"].float())
    torch.testing.assert_close(on_stage(classifier).training_step(batch, 0), expected)


def some_unknown(labels, share, seed=3):
    """A copy of ``labels`` with about that share of them not known."""
    random = torch.Generator().manual_seed(seed)
    return labels.masked_fill(torch.rand(labels.shape, generator=random) < share, UNKNOWN_LABEL)


@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
@pytest.mark.parametrize("num_windows", [1, 3])
def test_the_loss_of_a_record_is_that_without_its_unknown_labels(num_windows, pos_weight):
    classifier = tiny_classifier().double()
    classifier.pos_weight.fill_(pos_weight)
    logits = torch.randn(RECORDS, num_windows, 5, dtype=torch.float64)
    labels = some_unknown(made_up_batch()["labels"], 0.5)
    labels[2] = UNKNOWN_LABEL
    losses = classifier.record_losses(logits, labels)
    for row, (record, label) in enumerate(zip(logits, labels, strict=True)):
        known = label <= 1
        weight = torch.tensor(pos_weight)
        of_known = [
            F.binary_cross_entropy_with_logits(window[known], label[known].double(), pos_weight=weight)
            for window in record
        ]
        expected = sum(of_known) / num_windows if known.any() else torch.tensor(0.0)
        assert losses[row].item() == pytest.approx(float(expected), rel=1e-12)


def test_unknown_labels_and_whatever_the_network_says_of_them_move_nothing():
    logits = torch.randn(RECORDS, 2, 5, requires_grad=True)
    labels = some_unknown(made_up_batch()["labels"], 0.5)
    unknown = (labels == UNKNOWN_LABEL).unsqueeze(1).expand_as(logits)
    with torch.no_grad():
        logits[unknown] *= 1e4
    tiny_classifier().record_losses(logits, labels).sum().backward()
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("num_labels", [5, 41, 71])
def test_where_all_labels_are_known_loss_and_gradient_are_the_plain_mean_to_the_bit(num_labels, dtype):
    """41: there 41 x (1 / 41) is not 1, and a weight that is not 1 would move every bit behind it."""
    classifier = tiny_classifier()
    classifier.pos_weight = torch.rand(num_labels) * 9
    labels = torch.randint(0, 2, (RECORDS, num_labels), dtype=torch.uint8)
    logits = torch.randn(RECORDS, 2, num_labels).to(dtype).requires_grad_()
    target = labels.to(dtype).unsqueeze(1).expand_as(logits)
    plain = F.binary_cross_entropy_with_logits(logits, target, pos_weight=classifier.pos_weight, reduction="none")
    plain = plain.mean(dim=(1, 2))
    losses = classifier.record_losses(logits, labels)
    assert torch.equal(losses, plain)
    gradients = [torch.autograd.grad(one.sum(), logits)[0] for one in (losses, plain)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("cuts", [(0, 3, 7), (0, 1, 2, 7)])
def test_unknown_labels_leave_the_mean_over_processes_that_of_the_global_batch(cuts):
    batch, classifier = made_up_batch(), tiny_classifier().double()
    batch["ecg"], batch["labels"] = batch["ecg"].double(), some_unknown(batch["labels"], 0.6)
    batch["labels"][1] = UNKNOWN_LABEL
    stages = [
        on_stage(classifier, world_size=len(cuts) - 1).training_step(part_of(batch, a, b), 0).item()
        for a, b in pairwise(cuts)
    ]
    whole = on_stage(classifier).training_step(batch, 0).item()
    assert sum(stages) / len(stages) == pytest.approx(whole, rel=1e-12)


def draws(*, epoch=2, batch_idx=3, seed=7, rank=0, first=0):
    """What dropout and coins make of one training step."""
    backbone = tiny_vit(dropout=0.3)
    classifier = on_stage(tiny_classifier(backbone, seed=seed, dropout=0.3), current_epoch=epoch, global_rank=rank)
    set_drop_path(backbone, 0.5, "uniform")
    batch = {**made_up_batch(), "num_global": 3 * RECORDS, "first": first}
    torch.seed()  # whatever was drawn before
    classifier.on_train_batch_start(batch, batch_idx)
    coins = torch.stack([drop.coins for drop in branches(backbone)])
    return coins, classifier.window_logits(batch).detach()


def test_the_same_seed_epoch_and_batch_draw_the_same():
    for one, other in zip(draws(), draws(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("other", [{"epoch": 3}, {"batch_idx": 2}, {"seed": 8}])
def test_another_seed_epoch_or_batch_draws_other_coins_and_dropout(other):
    for one, changed in zip(draws(), draws(**other), strict=True):
        assert not torch.equal(one, changed)


def test_processes_share_the_coins_of_a_step_but_not_its_dropout():
    (coins, logits), (same_coins, other_logits) = draws(), draws(rank=1)
    assert torch.equal(coins, same_coins)
    assert not torch.equal(logits, other_logits)


def test_a_process_takes_the_coins_of_its_place_in_the_global_batch():
    assert draws(first=0)[0].shape == draws(first=RECORDS)[0].shape == (4, RECORDS)
    assert not torch.equal(draws(first=0)[0], draws(first=RECORDS)[0])


def test_coins_are_forgotten_behind_the_step():
    classifier = on_stage(tiny_classifier())
    classifier.on_train_batch_start(made_up_batch(), 0)
    classifier.on_train_batch_end(None, made_up_batch(), 0)
    assert {drop.coins for drop in branches(classifier.backbone)} == {None}


def test_balanced_weights_are_negatives_over_positives_of_the_training_split(tiny_store):
    data = tiny_data(tiny_store)
    classifier = on_stage(tiny_classifier(pos_weight="balanced"), datamodule=data)
    classifier.setup("fit")
    positives = data.train_labels().sum(axis=0)
    assert classifier.pos_weight.tolist() == pytest.approx(((64 - positives) / positives).tolist())


def test_balanced_weights_count_the_known_labels_alone(tiny_store):
    data, classifier = tiny_data(tiny_store), tiny_classifier(pos_weight="balanced")
    train = some_unknown(torch.from_numpy(data.train_labels()), 0.3).numpy()
    data.train_labels = lambda: train
    on_stage(classifier, datamodule=data).setup("fit")
    expected = (train == 0).sum(axis=0) / (train == 1).sum(axis=0)
    assert classifier.pos_weight.tolist() == pytest.approx(expected.tolist())


def test_a_label_without_positives_has_a_finite_weight(tiny_store):
    data = tiny_data(tiny_store)
    data.task_labels[0].labels[:, 1] = 0
    classifier = on_stage(tiny_classifier(pos_weight="balanced"), datamodule=data)
    classifier.setup("fit")
    assert classifier.pos_weight[1] == len(data.rows("train"))


def test_weights_on_positives_enter_the_loss():
    classifier = tiny_classifier()
    classifier.pos_weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    logits, labels = torch.randn(2, 1, 5), torch.ones(2, 5, dtype=torch.uint8)
    expected = (F.softplus(-logits[:, 0]) * classifier.pos_weight).mean(dim=1)
    torch.testing.assert_close(classifier.record_losses(logits, labels), expected)


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_the_probabilities_of_a_records_windows_are_joined_as_the_spec_says(aggregate):
    backbone = tiny_vit(num_time_points=250)
    backbone.signal = replace(backbone.signal, windows=Windows(count=3, aggregate=aggregate))
    classifier, batch = tiny_classifier(backbone).eval(), made_up_batch(num_windows=3, points=250)
    with torch.no_grad():
        classifier.validation_step(batch, 0)
        each = torch.stack([classifier(batch["ecg"][:, window]) for window in range(3)], dim=1).sigmoid()
    expected = each.mean(dim=1) if aggregate == "mean" else each.amax(dim=1)
    torch.testing.assert_close(classifier.val_scores.scores().probabilities, expected)


def test_predictions_are_the_sigmoid_of_the_logits():
    classifier, batch = tiny_classifier().eval(), made_up_batch()
    with torch.no_grad():
        classifier.test_step(batch, 0)
        expected = classifier(batch["ecg"][:, 0]).sigmoid()
    torch.testing.assert_close(classifier.test_scores.scores().probabilities, expected)


def test_known_features_stand_in_for_the_backbone():
    classifier, batch = tiny_classifier(), made_up_batch()
    expected = classifier.window_logits(batch)
    features = classifier.backbone(batch.pop("ecg")[:, 0]).detach().unsqueeze(1)
    known = SplitFeatures(batch["index"].clone(), features)
    classifier.frozen_features = FrozenFeatures(train=known, val=known)
    batch["index"] = batch["index"].flip(0)
    for training in (True, False):
        torch.testing.assert_close(classifier.train(training).window_logits(batch), expected.flip(0))


def test_a_frozen_backbone_keeps_nothing_for_the_backward_pass():
    classifier = tiny_classifier(norm_net())
    seen = []
    classifier.backbone.register_forward_hook(lambda module, inputs, features: seen.append(features.requires_grad))
    for trained in (True, False):
        classifier.backbone.requires_grad_(trained)
        assert classifier.window_logits(made_up_batch()).requires_grad
    assert seen == [True, False]


def test_one_adamw_holds_all_parameters_in_every_phase():
    classifier = tiny_classifier()
    classifier.backbone.requires_grad_(False)
    optimizer = classifier.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len([*classifier.parameters()])
    assert optimizer.param_groups[-1]["layer"] == HEAD


def test_a_classifier_without_labels_is_refused():
    with pytest.raises(InputError, match=r"label_names is empty.*choose another data\.task"):
        ECGClassifier(tiny_vit(), ())


# --- checkpoints and weights ---


def checkpoint_of(classifier):
    checkpoint = {"state_dict": classifier.state_dict()}
    classifier.on_save_checkpoint(checkpoint)
    return checkpoint


def test_a_checkpoint_of_the_same_network_and_labels_is_taken():
    tiny_classifier().on_load_checkpoint(checkpoint_of(tiny_classifier()))


def test_a_checkpoint_holds_plain_types_and_tensors_alone(tmp_path):
    torch.save(checkpoint_of(tiny_classifier()), tmp_path / "some.ckpt")
    torch.load(tmp_path / "some.ckpt", weights_only=True)


def test_a_checkpoint_of_other_labels_is_refused_with_both_sides():
    theirs = ECGClassifier(tiny_vit(), ("CD", "HYP", "MI", "STTC", "NORM"))
    with pytest.raises(InputError, match=r"labels are \['CD'.*'STTC', 'NORM'\], the task's are.*data\.task"):
        tiny_classifier().on_load_checkpoint(checkpoint_of(theirs))


@pytest.mark.parametrize("other", [lambda: tiny_vit(dim=24), lambda: tiny_vit(depth=3), NormNet])
def test_a_checkpoint_of_another_network_is_refused_before_anything_is_loaded(other):
    with pytest.raises(
        InputError, match=r"another network: \d+ tensors differ, the first .*: use the config of its run"
    ):
        tiny_classifier().on_load_checkpoint(checkpoint_of(tiny_classifier(other())))


def weights_file(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    state = {name: torch.randn_like(tensor) for name, tensor in tiny_vit().state_dict().items()}
    torch.save(state, folder / "weights.pt")
    return str(folder / "weights.pt"), state


def test_pre_trained_weights_are_loaded_when_a_fit_starts(tmp_path):
    path, state = weights_file(tmp_path)
    classifier = on_stage(tiny_classifier(weights=path))
    classifier.setup("fit")
    assert all(torch.equal(tensor, state[name]) for name, tensor in classifier.backbone.state_dict().items())


@pytest.mark.parametrize(("stage", "resumes"), [("fit", True), ("test", False)])
def test_pre_trained_weights_are_left_alone_where_a_checkpoint_brings_its_own(tmp_path, stage, resumes):
    path, state = weights_file(tmp_path)
    classifier = on_stage(tiny_classifier(weights=path))
    classifier.resumes = resumes
    classifier.setup(stage)
    assert not torch.equal(classifier.backbone.pos_embed, state["pos_embed"])

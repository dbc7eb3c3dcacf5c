import logging
import math

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from made_up_scores import MadeUpScores
from tiny import (
    BATCHES,
    changed,
    norm_net,
    of_lightning,
    plan,
    state_of,
    tiny_classifier,
    tiny_trainer,
    tiny_vit,
    train,
)

from ecg_lightning.errors import UsageError
from ecg_lightning.optim import HEAD
from ecg_lightning.post_training import freeze
from ecg_lightning.stochastic_depth import StochasticDepth, branches

pytestmark = of_lightning


class Watch(Callback):
    """Notes, at each training step, what the phases promise."""

    def __init__(self):
        self.steps = []
        self.epochs = {}
        self.backbones = {}

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs[trainer.current_epoch] = state_of(pl_module.head)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        backbone = pl_module.backbone
        groups = {(group["layer"], group["decay"]): group for group in optimizer.param_groups}
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.steps.append(
            {
                "epoch": trainer.current_epoch,
                "trains": {name for name, module in backbone.named_modules() if module.training},
                "required": {name for name, p in backbone.named_parameters() if p.requires_grad},
                "rates": [drop.drop_prob for drop in branches(backbone)],
                "kept": [None if drop.coins is None else drop.coins.tolist() for drop in branches(backbone)],
                "state": len(optimizer.state),
                "lr": {layer: group["lr"] for (layer, _), group in groups.items()},
                "weight_decay": {decay: group["weight_decay"] for (_, decay), group in groups.items()},
                "norm": float(torch.stack([g.norm() for g in gradients]).norm()),
            }
        )

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs[("end", trainer.current_epoch)] = state_of(pl_module.head)
        self.backbones[trainer.current_epoch] = state_of(pl_module.backbone)

    def of_epoch(self, epoch, key):
        return [step[key] for step in self.steps if step["epoch"] == epoch]


# --- the probe ---


@pytest.mark.parametrize("precompute", [True, False])
def test_linear_probe_leaves_parameters_and_buffers_of_the_backbone_unchanged(tiny_store, tmp_path, precompute):
    classifier = tiny_classifier(norm_net())
    before, head = state_of(classifier.backbone), state_of(classifier.head)
    train(tmp_path, tiny_store, plan(2, 0, probe_precompute=precompute), classifier=classifier)
    assert changed(before, state_of(classifier.backbone)) == []
    assert changed(head, state_of(classifier.head)) == ["weight", "bias"]


@pytest.fixture(scope="module")
def both_phases(tiny_store, tmp_path_factory):
    """Two epochs of each phase on a network with batch statistics and dropout."""
    watch = Watch()
    post_training = plan(2, 2, drop_path_rate=0.6, probe_precompute=False, probe_keep="last", fine_tune_layer_decay=0.5)
    _, classifier = train(
        tmp_path_factory.mktemp("run"), tiny_store, post_training, watch, classifier=tiny_classifier(norm_net())
    )
    return watch, classifier


def test_the_probed_backbone_is_in_evaluation_mode_and_asks_for_no_gradient(both_phases):
    watch, _ = both_phases
    for epoch in (0, 1):
        assert watch.of_epoch(epoch, "trains") == [set()] * BATCHES
        assert watch.of_epoch(epoch, "required") == [set()] * BATCHES


def test_stochastic_depth_is_off_in_the_probe_and_on_behind_it(both_phases):
    watch, _ = both_phases
    assert watch.of_epoch(1, "rates") == [[0, 0]] * BATCHES
    assert watch.of_epoch(2, "rates") == [[0, 0.6]] * BATCHES


def test_fine_tuning_trains_every_parameter_and_module(both_phases):
    watch, classifier = both_phases
    everything = {name for name, _ in classifier.backbone.named_modules()}
    assert watch.of_epoch(2, "trains") == [everything] * BATCHES
    assert watch.of_epoch(3, "required") == [{n for n, _ in classifier.backbone.named_parameters()}] * BATCHES


def test_fine_tuning_moves_every_tensor_of_the_backbone(both_phases):
    watch, classifier = both_phases
    assert set(changed(watch.backbones[1], state_of(classifier.backbone))) == set(watch.backbones[1])


def test_validation_leaves_the_modes_of_the_phase_alone(both_phases):
    watch, _ = both_phases
    assert watch.of_epoch(0, "trains") == watch.of_epoch(1, "trains")
    assert watch.of_epoch(2, "trains") == watch.of_epoch(3, "trains")


def test_the_optimizer_starts_anew_at_the_switch(both_phases):
    watch, classifier = both_phases
    num_tensors = len([*classifier.parameters()])
    assert [step["state"] for step in watch.steps] == [0, *[2] * 7, 0, *[num_tensors] * 7]


def test_rates_follow_the_phase_and_the_layer(both_phases):
    watch, _ = both_phases
    assert watch.of_epoch(1, "lr")[0] == {0: 0.0, 1: 0.0, 2: 0.0, HEAD: 0.01}
    assert watch.of_epoch(2, "lr")[0] == pytest.approx({0: 0.00025, 1: 0.0005, 2: 0.001, HEAD: 0.001})


def test_weight_decay_follows_the_phase(both_phases):
    watch, _ = both_phases
    assert watch.of_epoch(1, "weight_decay")[0] == {True: 0.1, False: 0.0}
    assert watch.of_epoch(2, "weight_decay")[0] == {True: 0.05, False: 0.0}


def test_every_step_throws_coins_of_its_own(both_phases):
    watch, _ = both_phases
    kept = [tuple(map(tuple, coins)) for coins in watch.of_epoch(2, "kept") + watch.of_epoch(3, "kept")]
    assert len(set(kept)) == len(kept)


def test_dropout_rests_in_the_probe(tiny_store, tmp_path):
    seen = []
    net = norm_net()
    net.dropout.register_forward_hook(lambda module, inputs, output: seen.append(torch.equal(inputs[0], output)))
    train(tmp_path, tiny_store, plan(1, 0, probe_precompute=False), classifier=tiny_classifier(net))
    assert seen
    assert all(seen)


# --- the switch ---


@pytest.mark.parametrize(("keep", "epoch"), [("best", 1), ("last", 2)])
def test_fine_tuning_starts_from_the_head_asked_for(tiny_store, tmp_path, caplog, keep, epoch):
    watch = Watch()
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        train(tmp_path, tiny_store, plan(3, 1, probe_keep=keep), MadeUpScores(0.6, 0.9, 0.8, 0.5), watch)
    assert changed(watch.epochs[3], watch.epochs[("end", epoch)]) == []
    assert f"head of the probe kept: {keep}" in caplog.text


def test_of_two_equally_good_probe_epochs_the_earlier_is_kept(tiny_store, tmp_path):
    watch = Watch()
    train(tmp_path, tiny_store, plan(3, 1), MadeUpScores(0.7, 0.9, 0.9, 0.5), watch)
    assert changed(watch.epochs[3], watch.epochs[("end", 1)]) == []


def test_a_probe_whose_score_is_never_defined_keeps_its_last_head_and_says_so(tiny_store, tmp_path, caplog):
    watch = Watch()
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        train(tmp_path, tiny_store, plan(2, 1), MadeUpScores(math.nan, math.nan, math.nan), watch)
    assert changed(watch.epochs[2], watch.epochs[("end", 1)]) == []
    assert "head of the probe kept: last" in caplog.text


def test_without_a_probe_fine_tuning_starts_at_once(tiny_store, tmp_path, caplog):
    watch = Watch()
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        train(tmp_path, tiny_store, plan(0, 1, drop_path_rate=0.4), watch)
    assert watch.of_epoch(0, "rates")[0] == [0, 0, 0.4, 0.4]
    assert watch.of_epoch(0, "lr")[0] == {0: 0.001, 1: 0.001, 2: 0.001, 3: 0.001, HEAD: 0.001}
    assert "features" not in caplog.text


def test_without_fine_tuning_the_run_is_a_probe_to_its_end(tiny_store, tmp_path):
    watch = Watch()
    train(tmp_path, tiny_store, plan(2, 0, drop_path_rate=0.4), watch)
    assert {rate for step in watch.steps for rate in step["rates"]} == {0.0}
    assert len(watch.steps) == 2 * BATCHES


def test_a_schedule_restarts_with_its_phase(tiny_store, tmp_path):
    watch = Watch()
    arguments = {"probe_schedule": "cosine", "fine_tune_schedule": "cosine", "fine_tune_min_learning_rate": 1e-5}
    train(tmp_path, tiny_store, plan(2, 2, **arguments), watch)
    rates = [step["lr"][HEAD] for step in watch.steps]
    assert rates[0] == 0.01
    assert rates[7] == pytest.approx(0.0, abs=1e-12)
    assert rates[8] == 0.001
    assert rates[15] == pytest.approx(1e-5)


# --- fine-tuning ---


def test_frozen_layers_rest_and_the_others_move(tiny_store, tmp_path):
    classifier = tiny_classifier(norm_net())
    before = state_of(classifier.backbone)
    watch = Watch()
    train(tmp_path, tiny_store, plan(0, 1, fine_tune_freeze_layers=2), watch, classifier=classifier)
    of_last_layer = {name for name in before if name.startswith(("norms.1", "convs.1"))}
    assert set(changed(before, state_of(classifier.backbone))) == of_last_layer
    assert {"stem", "norms.0", "convs.0"}.isdisjoint(watch.steps[0]["trains"])


def test_the_branches_of_a_frozen_block_are_never_dropped():
    vit = tiny_vit().train()
    freeze(vit, 2)
    assert [drop.training for drop in branches(vit)] == [False, False, True, True]


def test_layer_decay_moves_the_layers_near_the_input_less(tiny_store, tmp_path):
    moved = {}
    for layer_decay in (1.0, 0.1):
        classifier = tiny_classifier()
        before = classifier.backbone.patch_embed.proj.weight.detach().clone()
        train(tmp_path, tiny_store, plan(0, 1, fine_tune_layer_decay=layer_decay), classifier=classifier)
        moved[layer_decay] = (classifier.backbone.patch_embed.proj.weight - before).abs().mean().item()
    assert 0 < moved[0.1] < 0.01 * moved[1.0]


def test_mask_and_subset_train_to_the_same_weights(tiny_store, tmp_path):
    ends = []
    for mode in ("mask", "subset"):
        post_training = plan(0, 1, drop_path_rate=0.6, drop_path_mode=mode)
        _, classifier = train(tmp_path, tiny_store, post_training, precision="64-true")
        ends.append(state_of(classifier))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-9, atol=1e-9)


def test_the_step_in_a_phase_counts_optimizer_steps_under_accumulation(tiny_store, tmp_path):
    watch = Watch()
    arguments = {"fine_tune_schedule": "cosine", "fine_tune_min_learning_rate": 1e-4}
    train(tmp_path, tiny_store, plan(1, 2, **arguments), watch, accumulate_grad_batches=3)
    assert len(watch.steps) == 3 * 2  # 4 batches: a step of 3 and one of what is left
    rates = [step["lr"][HEAD] for step in watch.steps[2:]]
    assert rates[0] == 0.001
    assert rates[-1] == pytest.approx(1e-4)
    assert len(set(rates)) == 4


def test_gradients_are_clipped_in_both_phases(tiny_store, tmp_path):
    class Clipped(Watch):
        """Behind the clipping."""

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            pass

        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if any(p.grad is not None for p in pl_module.parameters()):
                super().on_before_optimizer_step(trainer, pl_module, optimizer)

    free, clipped = Clipped(), Clipped()
    train(tmp_path, tiny_store, plan(1, 1), free)
    train(tmp_path, tiny_store, plan(1, 1), clipped, gradient_clip_val=0.01)
    assert min(step["norm"] for step in free.steps) > 0.02
    assert max(step["norm"] for step in clipped.steps) <= 0.01 * (1 + 1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_both_phases_run_in_another_precision(tiny_store, tmp_path, precision):
    before = state_of(tiny_classifier())
    trainer, classifier = train(tmp_path, tiny_store, plan(1, 1, drop_path_rate=0.3), precision=precision)
    assert (
        len(
            changed(
                {n: t.double() for n, t in before.items()}, {n: t.double() for n, t in state_of(classifier).items()}
            )
        )
        > 20
    )
    assert math.isfinite(trainer.callback_metrics["val/loss"])


def test_a_run_is_the_same_to_the_last_bit_when_it_is_run_again(tiny_store, tmp_path):
    ends = []
    for draws in range(2):
        torch.manual_seed(draws)  # whatever was drawn before the run
        classifier = tiny_classifier(tiny_vit(dropout=0.2), dropout=0.2)
        torch.manual_seed(100 + draws)
        _, classifier = train(tmp_path, tiny_store, plan(1, 1, drop_path_rate=0.5), classifier=classifier)
        ends.append(state_of(classifier))
    assert changed(*ends) == []


# --- what is refused ---


def test_another_number_of_epochs_than_the_phases_have_is_refused(tiny_store, tmp_path):
    with pytest.raises(UsageError, match=r"trainer.max_epochs is 5, it must be the sum.*2 \+ 1 = 3: set it so"):
        train(tmp_path, tiny_store, plan(2, 1), max_epochs=5)


def test_the_best_head_is_refused_without_validation(tiny_store, tmp_path):
    with pytest.raises(UsageError, match=r"set post_training.probe.keep=last"):
        train(tmp_path, tiny_store, plan(1, 1), limit_val_batches=0)


def test_the_last_head_needs_no_validation(tiny_store, tmp_path):
    train(tmp_path, tiny_store, plan(1, 1, probe_keep="last"), limit_val_batches=0)


def test_another_module_than_the_classifier_is_refused(tmp_path):
    with pytest.raises(UsageError, match="PostTraining trains an ECGClassifier, it was given a LightningModule"):
        plan(1, 1).setup(tiny_trainer(tmp_path, max_epochs=2), LightningModule(), "fit")


# --- a probe of another length ---


def resumed_with(post_training, past, epoch):
    """What the callback says to the state of a run with a probe of ``past`` epochs that stands at ``epoch``."""
    post_training._resumed_at = epoch
    post_training.load_state_dict({"probe_epochs": past, "best_auroc": 0.5, "best_head": {}})


@pytest.mark.parametrize(("ours", "past", "epoch"), [(3, 2, 2), (2, 3, 2), (1, 3, 2)])
def test_a_probe_of_another_length_is_refused_where_it_would_rewrite_the_past(ours, past, epoch):
    with pytest.raises(
        UsageError, match=rf"probe.epochs is {ours}, the run was trained with {past}.*keep {past}, or start"
    ):
        resumed_with(plan(ours, 1), past, epoch)


@pytest.mark.parametrize(("ours", "past", "epoch"), [(3, 2, 1), (2, 2, 4), (2, 3, 1)])
def test_a_probe_of_another_length_is_taken_before_it_makes_a_difference(ours, past, epoch):
    resumed_with(plan(ours, 1), past, epoch)


def test_the_phase_is_a_function_of_the_epoch_alone():
    post_training = plan(2, 2)
    assert [post_training.phase_at(epoch) for epoch in (3, 0, 2, 1)] == ["fine_tune", "probe", "fine_tune", "probe"]


def test_every_branch_is_a_stochastic_depth_module_that_the_phases_reach():
    assert all(isinstance(drop, StochasticDepth) for drop in branches(norm_net()))
    assert len(branches(norm_net())) == 2

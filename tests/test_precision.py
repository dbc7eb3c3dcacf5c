"""Other precisions: both phases train, gradients are clipped at their true size, figures stay in float32."""

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from tiny import (
    changed,
    norm_net,
    of_lightning_cli,
    plan,
    state_of,
    tiny_classifier,
    tiny_data,
    tiny_trainer,
    tiny_vit,
    train,
)

from ecg_lightning.trained_run import load_classifier

pytestmark = of_lightning_cli

PRECISIONS = pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])


class Seen(Callback):
    """What a run computed in, and how large its gradients were when the optimizer took them."""

    def __init__(self):
        self.logits, self.scores, self.features, self.norms, self.scales = set(), [], [], [], set()

    def on_train_start(self, trainer, pl_module):
        pl_module.head.register_forward_hook(lambda module, inputs, logits: self.logits.add(logits.dtype))
        if pl_module.frozen_features is not None:
            self.features.append(pl_module.frozen_features.train.features.clone())

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(float(torch.stack([gradient.float().norm() for gradient in gradients]).norm()))

    def on_validation_end(self, trainer, pl_module):
        self.scores.append(pl_module.scores)


def mixed(folder, store, precision, build=tiny_vit, **flags):
    """A run of both phases; Lightning takes bfloat16 for float16 on a CPU unless it is given the plugin."""
    seen, classifier = Seen(), tiny_classifier(build())
    before = state_of(classifier)
    plugin = MixedPrecision(precision, "cpu")
    train(folder, store, plan(1, 1, drop_path_rate=0.3), seen, classifier=classifier, plugins=[plugin], **flags)
    return seen, before, classifier


@PRECISIONS
@pytest.mark.parametrize("build", [tiny_vit, norm_net])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_both_phases_train_in_mixed_precision(tiny_store, tmp_path, precision, build, clip):
    seen, before, classifier = mixed(tmp_path, tiny_store, precision, build, gradient_clip_val=clip)
    half = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    assert seen.logits == {half}
    after = state_of(classifier)
    assert {tensor.dtype for tensor in after.values() if tensor.is_floating_point()} == {torch.float32}
    assert set(changed(before, after)) == set(before) - {"pos_weight"}
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


@PRECISIONS
def test_gradients_are_clipped_at_their_true_size(tiny_store, tmp_path, precision):
    """Those of float16 are 65,536 times as large until they are divided."""
    seen, _, _ = mixed(tmp_path, tiny_store, precision, gradient_clip_val=0.01)
    assert max(seen.norms) == pytest.approx(0.01, rel=1e-3)


@PRECISIONS
def test_figures_of_mixed_precision_are_float32(tiny_store, tmp_path, precision):
    seen, _, _ = mixed(tmp_path, tiny_store, precision)
    assert len(seen.scores) == 2
    for scores in seen.scores:
        assert scores.probabilities.dtype == torch.float32
        rounded = scores.probabilities.to(torch.bfloat16 if precision == "bf16-mixed" else torch.float16).float()
        assert not torch.equal(scores.probabilities, rounded)  # the sigmoid as well, or many would tie


@PRECISIONS
def test_known_features_train_the_head_that_features_computed_in_each_epoch_do(tiny_store, tmp_path, precision):
    heads = []
    for precompute in (True, False):
        classifier = tiny_classifier()
        plugins = [MixedPrecision(precision, "cpu")]
        post_training = plan(2, 0, probe_precompute=precompute)
        train(tmp_path, tiny_store, post_training, seen := Seen(), classifier=classifier, plugins=plugins)
        assert [features.dtype for features in seen.features] == [torch.float32] * precompute
        heads.append(classifier.head.weight.detach())
    torch.testing.assert_close(*heads, rtol=1e-2, atol=1e-3)


def test_the_moments_of_scaled_gradients_are_those_of_plain_ones(tiny_store, tmp_path):
    """Without clipping the optimizer divides them itself."""
    moments = []
    for plugins in ([MixedPrecision("16-mixed", "cpu")], []):
        trainer, _ = train(tmp_path, tiny_store, plan(0, 1), plugins=plugins)
        state = trainer.optimizers[0].state.values()
        moments.append(torch.cat([one["exp_avg"].flatten() for one in state]))
    assert 0.5 < float(moments[0].norm() / moments[1].norm()) < 2  # undivided 2^16 times as large


def test_weights_in_double_precision_come_back_to_the_last_bit(tiny_store, tmp_path):
    trained, path = tiny_classifier(), tmp_path / "double.ckpt"
    trainer, _ = train(tmp_path, tiny_store, plan(0, 1), classifier=trained, precision="64-true")
    trainer.save_checkpoint(path)
    again, post_training = tiny_classifier(), plan(0, 1)
    trainer = tiny_trainer(tmp_path, post_training, max_epochs=1, precision="64-true")
    trainer.validate(again, tiny_data(tiny_store), ckpt_path=path, weights_only=True, verbose=False)
    assert changed(state_of(trained), state_of(again)) == []


def test_a_run_in_double_precision_is_asked_in_single(plain_run, tmp_path):
    """Records come in float32, whatever the run was trained in."""
    model = yaml.safe_load((plain_run / "config.yaml").read_text())["model"]
    content = torch.load(plain_run / "checkpoints" / "finetune-best.ckpt", weights_only=True)
    path = tmp_path / "double.ckpt"
    torch.save({**content, "state_dict": {name: t.double() for name, t in content["state_dict"].items()}}, path)
    assert {p.dtype for p in load_classifier(model, path).parameters()} == {torch.float32}

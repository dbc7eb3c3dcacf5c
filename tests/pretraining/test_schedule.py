"""Rates and weight decay of a masked pre-training: functions of the step, the same for encoder and decoder."""

import math

import pytest
from lightning.pytorch import Callback
from test_autoencoder import autoencoder
from tiny import of_lightning, tiny_trainer

from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.errors import UsageError
from ecg_lightning.pretraining.schedule import MaskedPretraining

pytestmark = of_lightning


class Look(Callback):
    """What the optimizer has in each step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append([(one["lr"], one["weight_decay"], one["betas"]) for one in optimizer.param_groups])
        self.names = [(one["decay"], name) for one in optimizer.param_groups for name in one["names"]]


def steps_of(folder, store, plan, **flags):
    look, data = Look(), UnlabelledECGs(str(store), batch_size=16)
    trainer = tiny_trainer(folder, plan, look, max_epochs=plan.epochs, limit_val_batches=0, **flags)
    trainer.fit(autoencoder(), data)
    return look


def test_they_rise_over_the_warm_up_and_fall_along_half_a_cosine_to_the_floor(tiny_store, tmp_path):
    plan = MaskedPretraining(3, 1e-3, 1e-5, warmup_epochs=0.5, weight_decay=0.07, probe_every=0)
    look = steps_of(tmp_path, tiny_store, plan)  # 4 steps an epoch
    rise = [1e-3 * (step + 1) / 3 for step in range(2)]
    fall = [1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * step / 9)) for step in range(10)]
    assert [step[0][0] for step in look.steps] == pytest.approx(rise + fall)
    assert all({rate for rate, *_ in step} == {step[0][0]} for step in look.steps)
    assert {(decay, betas) for _, decay, betas in look.steps[-1]} == {(0.07, (0.9, 0.95)), (0.0, (0.9, 0.95))}


def test_no_weight_decay_on_biases_norms_tokens_and_places(tiny_store, tmp_path):
    look = steps_of(tmp_path, tiny_store, MaskedPretraining(1, probe_every=0), limit_train_batches=1)
    decays = {name for decay, name in look.names if decay}
    assert "decoder.predict.weight" in decays
    assert "backbone.patch_embed.proj.weight" in decays
    without = {name for decay, name in look.names if not decay}
    assert {"decoder.mask_token", "backbone.cls_token", "backbone.pos_embed", "decoder.norm.weight"} <= without
    assert not any(name.endswith("bias") for name in decays)


def test_accumulated_batches_are_one_step_of_a_constant_rate(tiny_store, tmp_path):
    plan = MaskedPretraining(2, 1e-3, schedule="constant", warmup_epochs=1, probe_every=0)
    look = steps_of(tmp_path, tiny_store, plan, accumulate_grad_batches=2)
    assert [step[0][0] for step in look.steps] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3])


def test_another_length_of_the_trainer_is_refused(tiny_store, tmp_path):
    trainer = tiny_trainer(tmp_path, MaskedPretraining(2, probe_every=0), max_epochs=3)
    with pytest.raises(UsageError, match=r"trainer\.max_epochs is 3, pretraining\.epochs 2: set one"):
        trainer.fit(autoencoder(), UnlabelledECGs(str(tiny_store)))

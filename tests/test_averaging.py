"""The average of the weights over fine-tuning: what is scored and kept is the average, what is trained is not."""

import pytest
import torch
from lightning.pytorch import Callback
from processes import differences, kill_at, run_cli
from test_strategies import AVERAGE, FLAGS
from tiny import changed, norm_net, of_lightning, plan, state_of, tiny_classifier, train

from ecg_lightning.averaging import EMA
from ecg_lightning.checkpointing import RunCheckpoints
from ecg_lightning.errors import UsageError
from ecg_lightning.runs import RunFolder

pytestmark = of_lightning


class Weights(Callback):
    """The weights behind each step, at the first batch of each validation, and behind it."""

    def __init__(self):
        self.trained, self.validated, self.taken_back = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append((trainer.current_epoch, state_of(pl_module)))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(state_of(pl_module))

    def on_validation_end(self, trainer, pl_module):
        self.taken_back.append(state_of(pl_module))


@pytest.fixture
def weights(tiny_store, tmp_path):
    seen = Weights()
    train(tmp_path, tiny_store, plan(2, 2, drop_path_rate=0.2), EMA(0.8), seen)
    return seen


def test_the_probe_validates_the_head_that_it_trains(weights):
    for epoch in (0, 1):
        trained = [state for at, state in weights.trained if at == epoch][-1]
        assert changed(trained, weights.validated[epoch]) == []


def test_fine_tuning_validates_the_mean_of_its_own_steps(weights):
    """From the first step of fine-tuning on, which the head of the probe went into."""
    steps = [state["head.weight"] for epoch, state in weights.trained if epoch >= 2]
    mean = steps[0]
    for step in steps[1:4]:
        mean = 0.8 * mean + 0.2 * step
    torch.testing.assert_close(weights.validated[2]["head.weight"], mean)
    assert not torch.equal(weights.validated[2]["head.weight"], steps[3])


def test_behind_a_validation_the_trained_weights_are_back(weights):
    assert_taken_back(weights)


def test_weights_in_double_precision_are_not_rounded_by_the_average(tiny_store, tmp_path):
    """It is made before the trainer makes them double."""
    seen = Weights()
    train(tmp_path, tiny_store, plan(2, 2, drop_path_rate=0.2), EMA(0.8), seen, precision="64-true")
    assert seen.taken_back[-1]["head.weight"].dtype == torch.float64
    assert_taken_back(seen)


def assert_taken_back(weights):
    for epoch in range(4):
        trained = [state for at, state in weights.trained if at == epoch][-1]
        assert changed(trained, weights.taken_back[epoch]) == []


def test_statistics_are_not_averaged(tiny_store, tmp_path):
    seen = Weights()
    train(tmp_path, tiny_store, plan(0, 1), EMA(0.8), seen, classifier=tiny_classifier(norm_net()))
    name = "backbone.norms.0.num_batches_tracked"
    assert int(seen.validated[0][name]) == 4
    assert changed(
        {key: value for key, value in seen.validated[0].items() if "running" in key},
        {key: value for key, value in seen.trained[-1][1].items() if "running" in key},
    ) == []  # fmt: skip


class FailIn(Callback):
    """Fails in a validation of fine-tuning, behind its first batch."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch == 2:
            raise LookupError("in a validation")


def test_an_error_in_a_validation_leaves_the_trained_weights(tiny_store, tmp_path):
    seen, classifier = Weights(), tiny_classifier()
    with pytest.raises(LookupError, match="in a validation"):
        train(tmp_path, tiny_store, plan(2, 2), EMA(0.8), seen, FailIn(), classifier=classifier)
    assert changed(seen.trained[-1][1], state_of(classifier)) == []


def test_a_checkpoint_of_fine_tuning_holds_the_average_and_the_trained_weights_beside_it(tiny_store, tmp_path):
    seen, run = Weights(), RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    saves = RunCheckpoints(run)
    train(tmp_path, tiny_store, plan(1, 1), EMA(0.8), seen, saves, enable_checkpointing=True)
    probe, last = (torch.load(run.checkpoints / f"{name}.ckpt", weights_only=True) for name in ("probe-best", "last"))
    assert "current_model_state" not in probe
    assert changed(seen.validated[-1], last["state_dict"]) == []
    assert changed(seen.trained[-1][1], last["current_model_state"]) == []


def test_a_decay_that_keeps_all_or_nothing_sensible_is_refused():
    with pytest.raises(UsageError, match=r"decay is 1.0, it must lie in 0..1, 1 left out"):
        EMA(1.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_of_two_processes_with_an_average_goes_on_at_the_switch_and_behind_it(tiny_store, tmp_path):
    """Killed at the end of the probe, and inside fine-tuning; with accumulation and clipping on."""
    flags = [*FLAGS, "--data.store", str(tiny_store), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    flags += ["--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "0.5", "--checkpoint_every", "2"]

    def fit(run, *kill):
        callbacks = [AVERAGE, *(flag[1:-1] for flag in kill[1:])]
        more = ["--resume", "auto", "--trainer.callbacks", f"[{', '.join(callbacks)}]"]
        return run_cli("fit", *flags, "--run", str(tmp_path / run), *more)

    for epoch, batch in ((2, None), (3, 3)):
        assert fit("killed", *kill_at(epoch, batch)).returncode == -9
    for run in ("killed", "undisturbed"):
        ended = fit(run)
        assert ended.returncode == 0, ended.stdout
    assert differences(tmp_path / "undisturbed", tmp_path / "killed") == []

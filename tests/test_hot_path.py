"""Training steps never wait for the device: nothing in them asks a tensor for its value, or sends it a number.

On a CPU nothing waits, so the questions themselves are counted; benchmarks/gpu_step.py asks CUDA.
"""

from collections import Counter
from contextlib import ExitStack

import pytest
import torch
from lightning.pytorch import Callback
from tiny import norm_net, of_lightning, plan, tiny_classifier, tiny_data, tiny_vit, train
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ecg_lightning import screen
from ecg_lightning.screen import LossBar
from ecg_lightning.tracking import MetricsFile

pytestmark = of_lightning

ASKING = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")
"""Operations whose outcome the host has to know."""


class Asked(TorchDispatchMode):
    """Counts the questions while it watches."""

    def __init__(self):
        super().__init__()
        self.watches, self.seen, self.operations = False, Counter(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.watches:
            self.operations += 1
            name = func.overloadpacket.__name__
            if name in ASKING:
                self.seen[name] += 1
        return func(*args, **kwargs or {})


FETCHING = (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy)


class Crossing(TorchFunctionMode):
    """Counts what the host waits for besides: numbers that become tensors on the device, and tensors taken from it."""

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.asked.watches and func is torch.tensor and kwargs.get("device") is not None:
            self.asked.seen["number to the device"] += 1
        if self.asked.watches and func in FETCHING:
            self.asked.seen[func.__name__] += 1
        return func(*args, **kwargs)


class Watching(Callback):
    """Watches whole turns of the loop: from one batch's start to that of a later one."""

    def __init__(self, asked, epoch, first, end):
        self.asked, self.epoch, self.first, self.end = asked, epoch, first, end

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.asked.watches = trainer.current_epoch == self.epoch and self.first <= batch_idx < self.end

    def on_train_epoch_end(self, trainer, pl_module):
        self.asked.watches = False


def questions(folder, store, epoch, *callbacks, build=tiny_vit, **flags):
    """What 13 steps of an epoch (of 16) asked, all callbacks and loggers at work."""
    asked = Asked()
    classifier = tiny_classifier(build(), dropout=0.1)
    plans = {name: flags.pop(name) for name in ("drop_path_mode", "probe_precompute") if name in flags}
    post_training = plan(1, 1, drop_path_rate=0.5, **plans)
    with ExitStack() as modes:
        modes.enter_context(asked)
        modes.enter_context(Crossing(asked))
        train(
            folder, store, post_training, Watching(asked, epoch, 1, 14), *callbacks,
            classifier=classifier, data=tiny_data(store, batch_size=4), logger=MetricsFile(folder / "metrics.csv"),
            **{"log_every_n_steps": 1000, "gradient_clip_val": 1.0, **flags},
        )  # fmt: skip
    assert asked.operations > 100
    return asked.seen


@pytest.mark.parametrize("build", [tiny_vit, norm_net])
@pytest.mark.parametrize(
    ("epoch", "flags"),
    [
        (0, {}),
        (0, {"probe_precompute": False}),
        (1, {}),
        (1, {"precision": "bf16-mixed"}),
        (1, {"accumulate_grad_batches": 2}),
    ],
    ids=["probe, features known", "probe", "fine-tuning", "in bfloat16", "accumulating"],
)
def test_a_training_step_asks_nothing(tiny_store, tmp_path, build, epoch, flags):
    assert questions(tmp_path, tiny_store, epoch, build=build, **flags) == {}


def test_subset_mode_asks_the_host_alone_where_the_coins_fell(tiny_store, tmp_path):
    """Once a step, before the coins are sent: not once a branch, of the device."""
    seen = questions(tmp_path, tiny_store, 1, drop_path_mode="subset")
    assert seen == {"nonzero": 13, "tolist": 13}


def test_the_progress_bar_asks_only_where_it_draws(tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr(screen, "BAR_SECONDS", 1000.0)
    assert questions(tmp_path, tiny_store, 1, LossBar(leave=False), enable_progress_bar=True) == {}
    monkeypatch.setattr(screen, "BAR_SECONDS", 0.0)
    seen = questions(tmp_path, tiny_store, 1, LossBar(leave=False), enable_progress_bar=True)
    assert seen == {"_local_scalar_dense": 13}


def test_figures_are_sent_and_read_where_they_are_logged_alone(tiny_store, tmp_path):
    """Steps 5, 10, 15: three figures sent, four read."""
    seen = questions(tmp_path, tiny_store, 1, log_every_n_steps=5)
    times = seen["number to the device"] // 3
    assert times in (2, 3)
    assert seen == {"number to the device": 3 * times, "_local_scalar_dense": 4 * times}


def test_the_bar_shows_the_loss(tiny_store, tmp_path):
    shown = []

    class Noting(LossBar):
        def get_metrics(self, trainer, pl_module):
            shown.append(super().get_metrics(trainer, pl_module))
            return shown[-1]

    train(tmp_path, tiny_store, plan(0, 1), Noting(leave=False), enable_progress_bar=True)
    assert shown[-1]["train/loss"] > 0
    assert isinstance(shown[-1]["train/loss"], float)

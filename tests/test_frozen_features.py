"""Features of the frozen backbone, computed once: the same head, the same scores, and nothing left behind."""

import logging
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from tiny import (
    norm_net,
    of_lightning,
    plan,
    state_of,
    tiny_classifier,
    tiny_data,
    tiny_trainer,
    tiny_vit,
    train,
)
from trained_runs import StrungNet

from ecg_lightning.chains import Crop, Standardise
from ecg_lightning.errors import UsageError
from ecg_lightning.frozen_features import fix_windows
from ecg_lightning.signals import Windows

pytestmark = of_lightning


def short_vit(**windows):
    """A ViT that sees 2.5 s of a record of 10 s."""
    vit = tiny_vit(num_time_points=250)
    vit.signal = replace(vit.signal, windows=Windows(**windows))
    return vit


def shifted_net():
    """Its chain moves and stretches what it gets: run twice it gives something else."""
    net = norm_net()
    net.signal = replace(net.signal, chain=(Crop(), Standardise(0.2, 0.5)))
    return net


PRECOMPUTED = {
    "a chain that is not its own repetition": (shifted_net, 0),
    "a chain that takes time points away": (StrungNet, 0),
    "whole records": (tiny_vit, 0),
    "one window": (short_vit, 1),
    "two windows in turn": (short_vit, 2),
    "more windows than epochs": (short_vit, 9),
    "the middle": (lambda: short_vit(train="centre"), 0),
    "several windows in evaluation": (lambda: short_vit(count=3, aggregate="max"), 2),
    "windows drawn anew": (lambda: short_vit(count=3), 0),
}


@pytest.mark.parametrize("case", PRECOMPUTED)
def test_precomputed_features_give_the_head_and_scores_that_computing_them_each_step_gives(tiny_store, tmp_path, case):
    make, windows = PRECOMPUTED[case]
    ends = []
    for precompute in (True, False):
        classifier = tiny_classifier(make(), dropout=0.2)
        post_training = plan(3, 0, probe_precompute=precompute, probe_windows=windows)
        train(tmp_path, tiny_store, post_training, classifier=classifier)
        ends.append({**state_of(classifier.head), "probabilities": classifier.scores.probabilities})
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=0, atol=1e-6)


def backbone_calls(store, folder, post_training, backbone):
    """How many windows the backbone was asked of."""
    classifier, calls = tiny_classifier(backbone), []
    classifier.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    train(folder, store, post_training, classifier=classifier)
    return sum(calls)


@pytest.mark.parametrize(("windows", "train_windows"), [(1, 1), (2, 2), (9, 3), (0, 3)])
def test_each_fixed_window_is_computed_once_and_those_of_validation_always(
    tiny_store, tmp_path, windows, train_windows
):
    calls = backbone_calls(tiny_store, tmp_path, plan(3, 0, probe_windows=windows), short_vit(count=3))
    assert calls == 64 * train_windows + 8 * 3


def test_fixed_windows_end_with_the_probe(tiny_store, tmp_path):
    """Fine-tuning from the same head sees the same windows, whatever the probe saw."""

    class Seen(Callback):
        def __init__(self):
            self.seen = {}

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if "ecg" in batch:
                self.seen.setdefault(trainer.current_epoch, []).append(batch["ecg"].clone())

    fixed, free = Seen(), Seen()
    for watch, windows in ((fixed, 1), (free, 0)):
        train(tmp_path, tiny_store, plan(2, 2, probe_windows=windows), watch, classifier=tiny_classifier(short_vit()))
    assert [*fixed.seen] == [2, 3]
    for epoch in (2, 3):
        assert all(map(torch.equal, fixed.seen[epoch], free.seen[epoch]))


def test_fixed_windows_without_the_data_module_are_refused(tmp_path):
    trainer = tiny_trainer(tmp_path, max_epochs=1)
    trainer.datamodule = None
    with pytest.raises(UsageError, match=r"probe\.windows needs a PTBXLDataModule.*set .*probe\.windows=0"):
        fix_windows(trainer, 2)


def test_precomputed_features_leave_the_signals_unread_and_the_backbone_uncalled(tiny_store, tmp_path):
    classifier, calls = tiny_classifier(), []
    classifier.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    train(tmp_path, tiny_store, plan(3, 0), classifier=classifier)
    assert sum(calls) == 64 + 8


def test_windows_drawn_anew_are_never_precomputed_and_it_is_said_with_the_way_out(tiny_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        assert backbone_calls(tiny_store, tmp_path, plan(2, 0), short_vit()) == 2 * 64 + 8
    assert "features are computed in every epoch anew (--post_training.probe.windows N" in caplog.text


@pytest.mark.parametrize(("windows", "said"), [({}, False), ({"train": "centre"}, True)])
def test_windows_that_cannot_move_are_said_to_be_asked_for_in_vain(tiny_store, tmp_path, caplog, windows, said):
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        train(tmp_path, tiny_store, plan(1, 0, probe_windows=2), classifier=tiny_classifier(short_vit(**windows)))
    assert ("probe.windows has no effect" in caplog.text) == said


def test_what_the_features_take_is_said_before_they_are_computed(tiny_store, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        backbone_calls(tiny_store, tmp_path, plan(1, 0), tiny_vit())
    assert "train: features of 64 records x 1 window(s), 12 numbers each, computed once: 0.0 MB in each" in caplog.text


def test_features_that_would_fill_the_memory_are_not_kept_and_it_is_said(tiny_store, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        "ecg_lightning.frozen_features.MOST_GIB", 71 * 12 * 4 / 2**30
    )  # 64 + 8 records of 12 float32 features
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        assert backbone_calls(tiny_store, tmp_path, plan(2, 0), tiny_vit()) == 2 * 64 + 8
    assert "train: features of 64 records x 1 window(s) would take" in caplog.text


def test_a_test_behind_a_probe_sees_the_signals_of_its_own_records(tiny_store, tmp_path):
    data = tiny_data(tiny_store)
    trainer, classifier = train(tmp_path, tiny_store, plan(1, 0), data=data)
    trainer.test(classifier, data, verbose=False)
    ecg = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)["ecg"][:, 0]
    with torch.no_grad():
        torch.testing.assert_close(classifier.scores.probabilities, classifier.eval()(ecg).sigmoid())


def test_features_of_a_probe_that_failed_are_forgotten(tiny_store, tmp_path):
    class Failing(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError("a wire is loose")

    classifier, data = tiny_classifier(), tiny_data(tiny_store)
    with pytest.raises(RuntimeError, match="a wire is loose"):
        train(tmp_path, tiny_store, plan(1, 0), Failing(), classifier=classifier, data=data)
    assert classifier.frozen_features is None
    assert "ecg" in next(iter(data.test_dataloader()))

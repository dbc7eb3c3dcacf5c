"""Which checkpoints a run of two phases keeps, and when it writes them."""

import math

import pytest
from made_up_scores import MadeUpScores
from tiny import (
    BATCHES,
    of_lightning,
    plan,
    train,
)

from ecg_lightning.checkpointing import AtomicCheckpointIO, RunCheckpoints
from ecg_lightning.errors import UsageError
from ecg_lightning.frozen_backbone import read_checkpoint
from ecg_lightning.progress import next_position
from ecg_lightning.runs import RunFolder

pytestmark = of_lightning


def checkpoints(store, folder, post_training, *aurocs, **flags):
    """A run with the project's own checkpoints; their paths."""
    run = RunFolder(folder / "run")
    scores = [MadeUpScores(*aurocs)] if aurocs else []
    train(
        folder, store, post_training, *scores, RunCheckpoints(run, flags.pop("every_n_steps", None)),
        enable_checkpointing=True, plugins=[AtomicCheckpointIO()], **flags,
    )  # fmt: skip
    return {path.name: read_checkpoint(path) for path in sorted(run.checkpoints.glob("*.ckpt"))}


def epochs_behind(files):
    return {name: next_position(content["loops"]["fit_loop"]).epoch for name, content in files.items()}


def test_the_best_checkpoint_is_the_phases_own_and_last_is_the_last(tiny_store, tmp_path):
    files = checkpoints(tiny_store, tmp_path, plan(2, 3), 0.9, 0.6, 0.7, 0.8, 0.75)
    assert epochs_behind(files) == {"probe-best.ckpt": 1, "finetune-best.ckpt": 4, "last.ckpt": 5}


@pytest.mark.parametrize("links", [True, False])
def test_an_epoch_that_is_the_best_is_written_once_under_both_names(tiny_store, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    checkpoints(tiny_store, tmp_path, plan(0, 2), 0.8, 0.9)
    best, last = (tmp_path / "run" / "checkpoints" / name for name in ("finetune-best.ckpt", "last.ckpt"))
    assert best.read_bytes() == last.read_bytes()
    assert best.samefile(last) == links


def refused(path, target):
    raise OSError("this file system knows no links")


def test_a_best_checkpoint_stays_as_it_is_when_the_last_goes_on(tiny_store, tmp_path):
    files = checkpoints(tiny_store, tmp_path, plan(0, 3), 0.8, 0.7, 0.6)
    assert epochs_behind(files) == {"finetune-best.ckpt": 1, "last.ckpt": 3}


def test_a_tie_keeps_the_earlier_epoch(tiny_store, tmp_path):
    assert epochs_behind(checkpoints(tiny_store, tmp_path, plan(0, 3), 0.8, 0.9, 0.9))["finetune-best.ckpt"] == 2


def test_a_score_that_is_not_defined_never_shadows_one_that_is(tiny_store, tmp_path):
    files = checkpoints(tiny_store, tmp_path, plan(0, 3), math.nan, 0.6, 0.5)
    assert epochs_behind(files)["finetune-best.ckpt"] == 2


@pytest.mark.parametrize("probe", [0, 2])
def test_without_validation_the_best_checkpoint_is_the_phases_last(tiny_store, tmp_path, probe):
    files = checkpoints(tiny_store, tmp_path, plan(probe, 2, probe_keep="last"), limit_val_batches=0)
    assert epochs_behind(files)["finetune-best.ckpt"] == probe + 2


def test_an_epoch_without_validation_is_not_judged_by_an_older_score(tiny_store, tmp_path):
    files = checkpoints(tiny_store, tmp_path, plan(2, 2), 0.0, 0.9, 0.0, 0.7, check_val_every_n_epoch=2)
    assert epochs_behind(files) == {"probe-best.ckpt": 2, "finetune-best.ckpt": 4, "last.ckpt": 4}


def test_a_checkpoint_knows_of_the_best_scores_so_far(tiny_store, tmp_path):
    last = checkpoints(tiny_store, tmp_path, plan(1, 1), 0.7, 0.8)["last.ckpt"]
    assert last["callbacks"]["RunCheckpoints"]["best"] == pytest.approx({"probe": 0.7, "fine_tune": 0.8})


def test_a_limit_inside_an_epoch_leaves_a_checkpoint_inside_it(tiny_store, tmp_path):
    files = checkpoints(tiny_store, tmp_path, plan(1, 1), max_steps=BATCHES + 2)
    assert {name: next_position(c["loops"]["fit_loop"]) for name, c in files.items()} == {
        "probe-best.ckpt": (1, 0),
        "last.ckpt": (1, 2),
    }


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2]), (None, [])])
def test_checkpoints_inside_an_epoch_come_as_often_as_asked(tiny_store, tmp_path, every, expected):
    written = []

    class Io(AtomicCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            written.append(next_position(checkpoint["loops"]["fit_loop"]))
            super().save_checkpoint(checkpoint, path, storage_options)

    train(
        tmp_path, tiny_store, plan(0, 1), RunCheckpoints(RunFolder(tmp_path / "run"), every),
        enable_checkpointing=True, plugins=[Io()],
    )  # fmt: skip
    assert [batch for epoch, batch in written if epoch == 0] == expected


def test_a_checkpoint_interval_below_1_is_refused_by_its_flag(tmp_path):
    with pytest.raises(UsageError, match=r"--checkpoint_every is 0, it must be 1 or more"):
        RunCheckpoints(RunFolder(tmp_path), 0)

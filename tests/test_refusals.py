"""What would train something else than it says is refused before it starts."""

import os
import subprocess
import sys

import pytest
from command_line import called
from lightning.pytorch.callbacks import EarlyStopping
from tiny import of_lightning, plan, train

from ecg_lightning.errors import UsageError

pytestmark = of_lightning


def test_early_stopping_over_both_phases_is_refused(tiny_store, tmp_path):
    with pytest.raises(UsageError, match=r"EarlyStopping would hold fine-tuning against the probe's best score"):
        train(tmp_path, tiny_store, plan(1, 1), EarlyStopping("val/auroc", mode="max"))


def test_early_stopping_of_one_phase_is_accepted(tiny_store, tmp_path):
    train(tmp_path, tiny_store, plan(0, 1), EarlyStopping("val/auroc", mode="max"))


def test_freezing_more_layers_than_there_are_is_refused(tiny_store, tmp_path):
    with pytest.raises(UsageError, match=r"freeze_layers is 50, the backbone has \d+: nothing of it would be trained"):
        train(tmp_path, tiny_store, plan(1, 1, fine_tune_freeze_layers=50))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--data.tasks=rhythm", "--data.task"),
        ("--post_training.probe.epoch=2", "--post_training.probe.epochs"),
        ("--batch_size=32", "--data.batch_size"),
        ("--max_time=00:01:00:00", "--trainer.max_time"),
        ("--colour=red", None),
    ],
)
def test_a_flag_that_is_a_slip_is_answered_with_the_one_that_was_meant(capsys, typed, meant):
    code, _, err = called(capsys, "fit", "--model.backbone=vit", "--data.store=s.h5", "--run=run", typed)
    assert code == 2
    assert f"unrecognized arguments: {typed.partition('=')[0]}" in err
    hint = f"; for {typed.partition('=')[0]} there is {meant}\n"
    assert (hint in err) == (meant is not None)
    assert ("there is" in err) == (meant is not None)


def test_going_on_with_a_run_that_is_not_there_says_so(capsys, tmp_path):
    run = tmp_path / "typo"
    code, _, err = called(capsys, "fit", "--run", run, "--resume", "auto")
    assert code == 2
    assert f"{run} holds no run yet: the first call names all that it is made of" in err
    assert not run.exists()


def test_waiting_threads_are_told_not_to_spin():
    code = "import os; from ecg_lightning.cli import main; main(['inspect', '--backbone', 'vit', '--json']); "
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ended = subprocess.run(
        [sys.executable, "-c", code + "print(os.environ['OMP_WAIT_POLICY'])"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "PASSIVE"

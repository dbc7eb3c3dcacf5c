"""What would train something else than it says is refused before it starts."""

import os
import subprocess
import sys

import pytest
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


def test_waiting_threads_are_told_not_to_spin():
    code = "import os; from ecg_lightning.cli import main; main(['inspect', '--backbone', 'vit', '--json']); "
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ended = subprocess.run(
        [sys.executable, "-c", code + "print(os.environ['OMP_WAIT_POLICY'])"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "PASSIVE"

"""A terminated run is no success, and can be gone on with."""

import json
from collections.abc import Callable
from pathlib import Path

from processes import run_cli

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.data.prepare import prepare


def test_a_terminated_fit_ends_with_143_and_says_how_to_go_on(make_ptbxl: Callable[..., Path], tmp_path: Path) -> None:
    store, run = tmp_path / "store.h5", tmp_path / "run"
    prepare(make_ptbxl(), store, backbone_signal("vit"), workers=1, progress=False)
    terminate = '[{"class_path": "processes.TerminateAt", "init_args": {"epoch": 1}}]'
    ended = run_cli(
        *("fit", "--model.backbone", "vit", "--model.backbone.depth", "1", "--model.backbone.dim", "12"),
        *("--data.store", str(store), "--data.task", "superdiagnostic", "--data.batch_size", "7", "--run", str(run)),
        *("--post_training.probe.epochs", "1", "--post_training.fine_tune.epochs", "2", "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false", "--trainer.callbacks", terminate),
    )
    assert ended.returncode == 143, ended.stdout
    assert "--resume auto" in ended.stdout
    assert json.loads((run / "state.json").read_text())["state"] == "interrupted"

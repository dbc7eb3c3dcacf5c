"""A terminated run is no success, and can be gone on with."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from processes import kill_at, run_cli
from tiny import of_lightning_cli

import ecg_lightning
from ecg_lightning.backbones import backbone_signal
from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare

pytestmark = of_lightning_cli


@pytest.fixture(scope="module")
def terminated(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> CompletedProcess[str]:
    """A fit that was terminated in its first epoch of fine-tuning; its folder is the last argument."""
    folder = tmp_path_factory.mktemp("terminated")
    store, run = folder / "store.h5", folder / "run"
    prepare(make_ptbxl(), store, backbone_signal("vit"), workers=1, progress=False)
    terminate = '[{"class_path": "processes.TerminateAt", "init_args": {"epoch": 1}}]'
    return run_cli(
        *("fit", "--model.backbone", "vit", "--model.backbone.depth", "1", "--model.backbone.dim", "12"),
        *("--data.store", str(store), "--data.task", "superdiagnostic", "--data.batch_size", "7"),
        *("--post_training.probe.epochs", "1", "--post_training.fine_tune.epochs", "2", "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false", "--trainer.callbacks", terminate),
        *("--run", str(run)),
    )


def test_a_terminated_fit_ends_with_143_and_says_how_to_go_on(terminated: CompletedProcess[str]) -> None:
    assert terminated.returncode == 143, terminated.stdout
    assert "--resume auto" in terminated.stdout
    state = json.loads((Path(terminated.args[-1]) / "state.json").read_text())
    assert state["state"] == "interrupted"


def test_a_run_that_is_not_complete_is_judged_under_the_name_of_its_checkpoint(
    terminated: CompletedProcess[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures are not those of its recipe, and must not stand where those will."""
    run = Path(terminated.args[-1])
    assert main(["test", "--run", str(run)]) == 0
    assert "is not complete: it is judged with probe-best.ckpt" in capsys.readouterr().err
    assert [path.name for path in (run / "predictions").iterdir()] == ["test-probe-best.npz"]
    assert (run / "metrics_test-probe-best.json").exists()


def test_a_run_that_is_not_complete_says_so_when_it_is_asked(
    terminated: CompletedProcess[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(terminated.args[-1])
    ecg_lightning.load_run(run)
    assert f"{run} is not complete: what follows is of probe-best.ckpt; go on with: ecg-lightning fit" in caplog.text


def test_a_run_killed_before_its_first_checkpoint_begins_its_figures_anew(
    make_ptbxl: Callable[..., Path], tmp_path: Path
) -> None:
    store, run = tmp_path / "store.h5", tmp_path / "run"
    prepare(make_ptbxl(), store, backbone_signal("vit"), workers=1, progress=False)
    flags = [
        *("fit", "--model.backbone", "vit", "--model.backbone.depth", "1", "--model.backbone.dim", "12"),
        *("--data.store", str(store), "--data.task", "superdiagnostic", "--data.batch_size", "7", "--run", str(run)),
        *("--post_training.probe.epochs", "0", "--post_training.fine_tune.epochs", "1", "--trainer.accelerator", "cpu"),
        *("--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false", "--resume", "auto"),
    ]
    assert run_cli(*flags, *kill_at(0, 2)).returncode == -9
    # As if it had died between writing the figures of its first epoch and the checkpoint behind them.
    (run / "metrics.csv").write_text("step,epoch,train/loss\n0,0,9.0\n1,0,9.0\n2,0,9.0\n")
    assert not [*(run / "checkpoints").glob("*.ckpt")]
    ended = run_cli(*flags, "--trainer.callbacks", "null")
    assert ended.returncode == 0, ended.stdout
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [0, 1, 2, 3, 4]

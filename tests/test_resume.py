"""A run that was killed and resumed is, bit for bit, the run that was never killed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from processes import differences, kill_at, run_cli

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.data.prepare import prepare

PROBE, FINE_TUNE = 2, 2
# 40 records, 24 train in batches of 7: 4 batches an epoch, the last one short.
COMMON = [
    *("--model.backbone", "vit", "--model.backbone.depth", "2", "--model.backbone.dim", "12"),
    *("--model.backbone.patch", "[12, 50]", "--model.dropout", "0.2", "--model.backbone.dropout", "0.1"),
    *("--data.task", "superdiagnostic", "--data.batch_size", "7", "--trainer.accelerator", "cpu"),
    *("--data.train_folds", "[1, 2, 3, 4, 5, 6]", "--data.val_folds", "[7, 8, 9]"),
    *("--post_training.probe.epochs", str(PROBE), "--post_training.probe.learning_rate", "0.01"),
    *("--post_training.fine_tune.epochs", str(FINE_TUNE), "--post_training.drop_path_rate", "0.5"),
    *("--post_training.fine_tune.learning_rate", "0.001", "--trainer.gradient_clip_val", "1.0"),
    *("--trainer.enable_progress_bar", "false", "--checkpoint_every", "1", "--trainer.log_every_n_steps", "1"),
]
KILLS = {
    "inside the probe": kill_at(1, 2),
    "at the end of the probe": kill_at(PROBE),
    "at the first batch of fine-tuning": kill_at(PROBE, 0),
    "inside a fine-tuning epoch": kill_at(PROBE, 3),
    "between fine-tuning epochs": kill_at(PROBE + 1),
}
WINDOWS = ["--model.backbone.num_time_points", "500"]  # random windows: features cannot be computed once


@pytest.fixture(scope="session")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(), path, backbone_signal("vit"), workers=1, progress=False)
    return path


@pytest.fixture(scope="session")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int, bool], Path]:
    """The run that was never killed, made once for each way of running."""
    runs: dict[tuple[int, int, bool], Path] = {}

    def make(processes: int, workers: int, windows: bool) -> Path:
        key = (processes, workers, windows)
        if key not in runs:
            runs[key] = tmp_path_factory.mktemp("run") / "undisturbed"
            ended = fit(store, runs[key], *key)
            assert ended.returncode == 0, ended.stdout
        return runs[key]

    return make


def fit(store: Path, run: Path, processes: int, workers: int, windows: bool, *more: str):
    flags = [*COMMON, *(WINDOWS if windows else []), "--data.store", str(store), "--run", str(run)]
    flags += ["--trainer.devices", str(processes), "--data.num_workers", str(workers)]
    flags += ["--trainer.strategy", "ddp"] if processes > 1 else []
    return run_cli("fit", *flags, *more)


def kill(store: Path, run: Path, way: tuple[int, int, bool], moment: str) -> None:
    """Starts a run, or goes on with it, and kills it."""
    ended = fit(store, run, *way, "--resume", "auto", *KILLS[moment])
    assert ended.returncode == -9, ended.stdout


def finish(store: Path, run: Path, way: tuple[int, int, bool]) -> None:
    ended = fit(store, run, *way, "--resume", "auto", "--trainer.callbacks", "null")
    assert ended.returncode == 0, ended.stdout
    assert "going on from" in ended.stdout


@pytest.mark.parametrize("moment", ["at the end of the probe", "inside a fine-tuning epoch"])
def test_a_killed_run_goes_on_to_the_same_weights(
    moment: str, store: Path, undisturbed: Callable[[int, int, bool], Path], tmp_path: Path
) -> None:
    kill(store, tmp_path / "run", (1, 0, True), moment)
    finish(store, tmp_path / "run", (1, 0, True))
    assert differences(undisturbed(1, 0, True), tmp_path / "run") == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_goes_on_with_its_signals_elsewhere(
    processes: int, store: Path, undisturbed: Callable[[int, int, bool], Path], tmp_path: Path
) -> None:
    """Begun with its signals on the device, killed, ended with them in memory, as one that read the store."""
    way, run = (processes, 0, True), tmp_path / "run"
    killed = fit(store, run, *way, "--data.residency", "device", *KILLS["inside a fine-tuning epoch"])
    assert killed.returncode == -9, killed.stdout
    elsewhere = ["--data.residency", "memory", "--resume", "auto", "--trainer.callbacks", "null"]
    ended = fit(store, run, *way, *elsewhere)
    assert ended.returncode == 0, ended.stdout
    assert "signals of 36 records on cpu" in killed.stdout
    assert "signals of 36 records on cpu" in ended.stdout
    assert differences(undisturbed(*way), run) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("workers", "windows"), [(0, False), (2, True)], ids=["features once", "random windows"])
def test_a_run_killed_five_times_leaves_no_trace(
    processes: int,
    workers: int,
    windows: bool,
    store: Path,
    undisturbed: Callable[[int, int, bool], Path],
    tmp_path: Path,
) -> None:
    """Killed in the probe, at its end, and three times in fine-tuning, each time after it had been resumed."""
    way = (processes, workers, windows)
    for moment in KILLS:
        kill(store, tmp_path / "run", way, moment)
    finish(store, tmp_path / "run", way)
    assert differences(undisturbed(*way), tmp_path / "run") == []

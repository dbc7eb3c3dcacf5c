"""A short run of both phases by the real command line, in real processes: what tests stop, kill and go on with."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import pytest
from processes import run_cli

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare

PROBE, FINE_TUNE, BATCHES = 2, 2, 4
# 40 records, 24 train in batches of 7: 4 batches an epoch, the last one short.
COMMON = [
    *("--model.backbone", "vit", "--model.backbone.depth", "2", "--model.backbone.dim", "12"),
    *("--model.backbone.patch", "[12, 50]", "--model.dropout", "0.2", "--model.backbone.dropout", "0.1"),
    *("--data.task", "superdiagnostic", "--data.batch_size", "7", "--trainer.accelerator", "cpu"),
    *("--data.train_folds", "[1, 2, 3, 4, 5, 6]", "--data.val_folds", "[7, 8, 9]"),
    *("--post_training.probe.epochs", str(PROBE), "--post_training.probe.learning_rate", "0.01"),
    *("--post_training.fine_tune.epochs", str(FINE_TUNE), "--post_training.drop_path_rate", "0.5"),
    *("--post_training.fine_tune.learning_rate", "0.001", "--trainer.gradient_clip_val", "1.0"),
    *("--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"),
]
WINDOWS = ["--model.backbone.num_time_points", "500"]  # random windows: features cannot be computed once


class Way(NamedTuple):
    """How a run is run: processes, threads that read ahead, and whether each epoch draws windows of its own."""

    processes: int = 1
    workers: int = 0
    windows: bool = False

    @property
    def flags(self) -> list[str]:
        several = ["--trainer.strategy", "ddp"] if self.processes > 1 else []
        numbers = ["--trainer.devices", str(self.processes), "--data.num_workers", str(self.workers)]
        return [*(WINDOWS if self.windows else []), *numbers, *several]


def make_store(ptbxl: Path, store: Path) -> Path:
    prepare(ptbxl, store, backbone_signal("vit"), workers=1, progress=False)
    return store


def fit(store: Path, run: Path, way: Way, *more: str, **limits: float) -> CompletedProcess[str]:
    """``fit`` with a checkpoint behind every batch, unless ``more`` says otherwise."""
    given = ["--data.store", str(store), "--run", str(run), "--checkpoint_every", "1"]
    return run_cli("fit", *COMMON, *way.flags, *given, *more, **limits)


def finish(store: Path, run: Path, way: Way, *more: str) -> str:
    """Goes on with a run to its end, without the callbacks that disturbed it; what it said."""
    ended = fit(store, run, way, "--resume", "auto", "--trainer.callbacks", "null", *more)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def undisturbed_runs(store: Path, folder: Path) -> Callable[[int, bool], Path]:
    """The runs that nothing happened to, each made once: for so many processes, with or without windows."""
    runs: dict[tuple[int, bool], Path] = {}

    def make(processes: int, windows: bool) -> Path:
        key = (processes, windows)
        if key not in runs:
            runs[key] = folder / f"undisturbed-{processes}-{windows}"
            ended = fit(store, runs[key], Way(processes, 0, windows))
            assert ended.returncode == 0, ended.stdout
        return runs[key]

    return make


@pytest.fixture(scope="session")
def short_store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 made-up records, of which 24 train."""
    return make_store(make_ptbxl(), tmp_path_factory.mktemp("short") / "store.h5")


@pytest.fixture(scope="session")
def undisturbed(short_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, bool], Path]:
    """``undisturbed(processes, windows)`` -> the run that nothing happened to."""
    return undisturbed_runs(short_store, tmp_path_factory.mktemp("undisturbed"))


def fit_here(store: Path, run: Path, *more: str) -> int:
    """The same in this process, with windows drawn anew in each epoch and checkpoints at its ends; its exit code."""
    given = ["--data.store", str(store), "--run", str(run)]
    return main(["fit", *COMMON, *Way(windows=True).flags, *given, *more])


def finish_here(store: Path, run: Path, *more: str) -> None:
    """Goes on with a run to its end."""
    assert fit_here(store, run, "--resume", "auto", "--trainer.callbacks", "null", *more) == 0

"""`metrics.csv` and the Weights & Biases run are one curve, however often the run was killed: each step once, whole."""

import csv
from pathlib import Path
from typing import Any

import pytest
from disturbances import disturbed
from processes import kill_at
from short_run import PROBE, Way, finish, fit, fit_here
from tiny import of_lightning_cli
from wandb_files import history, rows

from ecg_lightning.tracking import WandbTracker

pytestmark = of_lightning_cli
WANDB = ["--trainer.logger", "ecg_lightning.tracking.WandbTracker", "--trainer.logger.offline", "true"]


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def csv_rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def curve(found: list[dict[str, Any]]) -> list[dict[str, float]]:
    """What of Weights & Biases' rows comes from `metrics.csv`."""
    own = ("_", "trainer/", "val/labels")
    return [
        {"step": float(row["_step"]), **{name: value for name, value in row.items() if not name.startswith(own)}}
        for row in found
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_kills_leave_one_curve_in_both(no_account: None, short_store: Path, tmp_path: Path) -> None:
    """Between a checkpoint and the next, at the switch, and in the last epoch, whose rows a resume makes anew."""
    run, way = tmp_path / "run", Way(windows=True)
    for kill in (kill_at(1, 2), kill_at(PROBE), kill_at(PROBE + 1, 3)):
        ended = fit(short_store, run, way, *WANDB, "--checkpoint_every", "2", "--resume", "auto", *kill)
        assert ended.returncode == -9, ended.stdout
    finish(short_store, run, way)
    tracked = history(run)
    assert [row["_step"] for row in tracked] == [row["trainer/global_step"] for row in tracked] == [*range(16)]
    assert curve(tracked) == csv_rows(run)
    assert [row["_step"] for row in tracked if "val/labels" in row or "val/labels.path" in row] == [15]
    assert len([*(run / "wandb" / "superseded").glob("offline-run-*")]) == 3
    assert len({path.name.rpartition("-")[2] for path in (run / "wandb").rglob("offline-run-*")}) == 1


def test_a_signal_leaves_the_row_that_is_not_whole_to_the_resume(
    no_account: None, short_store: Path, tmp_path: Path
) -> None:
    """In validation the step has its loss, but not yet the scores that belong into the same row."""
    run = tmp_path / "run"
    flags = disturbed("Signalled", epoch=1, batch=1, number=15)
    assert fit_here(short_store, run, *WANDB, *flags) == 143
    assert [row["_step"] for row in history(run)] == [*range(5)]
    assert fit_here(short_store, run, "--resume", "auto", "--trainer.callbacks", "null") == 0
    assert curve(history(run)) == csv_rows(run)
    assert all("val/auroc" in row for row in history(run)[3::4])


@pytest.fixture
def tracker(no_account: None, tmp_path: Path) -> WandbTracker:
    return WandbTracker(folder=str(tmp_path / "run"), offline=True)


def test_what_the_server_has_is_not_sent_again(tracker: WandbTracker, tmp_path: Path) -> None:
    """Online, wandb says from which step on it takes rows."""
    tracker.experiment._starting_step = 3
    tracker.go_on([{"step": str(step), "train/loss": "0.5"} for step in range(5)])
    tracker.log_metrics({"train/loss": 0.25}, 5)
    tracker.close()
    assert [(row["_step"], row["train/loss"]) for row in history(tmp_path / "run")] == [(3, 0.5), (4, 0.5), (5, 0.25)]


def test_a_step_that_the_server_has_and_the_checkpoint_has_not_is_not_sent_twice(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    """Killed behind step 2, gone on with from a checkpoint behind step 1."""
    tracker.experiment._starting_step = 3
    tracker.go_on([{"step": str(step), "train/loss": "0.5"} for step in range(2)])
    for step in (2, 3, 4):
        tracker.log_metrics({"train/loss": 0.25}, step)
    tracker.close()
    assert [row["_step"] for row in history(tmp_path / "run")] == [3, 4]


def test_a_row_is_sent_whole_when_the_next_begins(tracker: WandbTracker, tmp_path: Path) -> None:
    tracker.go_on([])
    tracker.log_metrics({"train/loss": 0.5}, 0)
    tracker.log_metrics({"val/auroc": 0.75}, 0)
    tracker.log_metrics({"train/loss": 0.4}, 1)
    tracker.close(1)  # of a run that goes on
    assert curve(history(tmp_path / "run")) == [{"step": 0.0, "train/loss": 0.5, "val/auroc": 0.75}]


def test_another_runs_offline_folder_is_left_where_it_is(tracker: WandbTracker, tmp_path: Path) -> None:
    other = tmp_path / "run" / "wandb" / "offline-run-20260101_000000-other"
    other.mkdir(parents=True)
    tracker.go_on([])
    tracker.close()
    assert other.is_dir()
    assert rows(next((tmp_path / "run" / "wandb").glob(f"offline-run-*-{tracker.version}/*.wandb"))) == []

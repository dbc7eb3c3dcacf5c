"""A run that was killed and resumed is, bit for bit, the run that was never killed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import differences, kill_at
from short_run import BATCHES, FINE_TUNE, PROBE, Way, finish, finish_here, fit, fit_here
from tiny import of_lightning_cli

pytestmark = of_lightning_cli
KILLS = {
    "inside the probe": kill_at(1, 2),
    "at the end of the probe": kill_at(PROBE),
    "at the first batch of fine-tuning": kill_at(PROBE, 0),
    "inside a fine-tuning epoch": kill_at(PROBE, 3),
    "between fine-tuning epochs": kill_at(PROBE + 1),
}


def kill(short_store: Path, run: Path, way: Way, moment: str) -> None:
    """Starts a run, or goes on with it, and kills it."""
    ended = fit(short_store, run, way, "--resume", "auto", *KILLS[moment])
    assert ended.returncode == -9, ended.stdout


@pytest.mark.parametrize("moment", ["at the end of the probe", "inside a fine-tuning epoch"])
def test_a_killed_run_goes_on_to_the_same_weights(
    moment: str, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    kill(short_store, tmp_path / "run", Way(windows=True), moment)
    assert "going on from" in finish(short_store, tmp_path / "run", Way(windows=True))
    assert differences(undisturbed(1, True), tmp_path / "run") == []


def test_a_run_killed_before_its_best_and_last_epoch_had_its_second_name_ends_with_it_as_the_last(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", undisturbed(1, True)
    assert fit_here(short_store, run, "--trainer.max_steps", str((PROBE + FINE_TUNE) * BATCHES - 1)) != 0
    shutil.copy(whole / "checkpoints" / "last.ckpt", run / "checkpoints" / "finetune-best.ckpt")
    finish_here(short_store, run, "--trainer.max_steps", "-1")
    found = [one for one in differences(whole, run) if not one.startswith("predictions")]  # of another best epoch
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_goes_on_with_its_signals_elsewhere(
    processes: int, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    """Begun with its signals on the device, killed, ended with them in memory, as one that read the store."""
    way, run = Way(processes, 0, True), tmp_path / "run"
    killed = fit(short_store, run, way, "--data.residency", "device", *KILLS["inside a fine-tuning epoch"])
    assert killed.returncode == -9, killed.stdout
    said = finish(short_store, run, way, "--data.residency", "memory")
    assert "signals of 36 records on cpu" in killed.stdout
    assert "signals of 36 records on cpu" in said
    assert differences(undisturbed(processes, True), run) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("workers", "windows"), [(0, False), (2, True)], ids=["features once", "random windows"])
def test_a_run_killed_five_times_leaves_no_trace(
    processes: int,
    workers: int,
    windows: bool,
    short_store: Path,
    undisturbed: Callable[[int, bool], Path],
    tmp_path: Path,
) -> None:
    """Killed in the probe, at its end, and three times in fine-tuning, each time after it had been resumed."""
    way = Way(processes, workers, windows)
    for moment in KILLS:
        kill(short_store, tmp_path / "run", way, moment)
    finish(short_store, tmp_path / "run", way)
    assert differences(undisturbed(processes, windows), tmp_path / "run") == []

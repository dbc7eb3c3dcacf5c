"""A signal ends a run behind a checkpoint that it has written at once: no epoch is lost, and nothing of it shows."""

import csv
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from disturbances import disturbed
from lightning.pytorch.callbacks import Timer
from processes import differences
from short_run import BATCHES, PROBE, Way, finish, finish_here, fit, fit_here
from tiny import of_lightning_cli

from ecg_lightning.checkpointing import RunCheckpoints
from ecg_lightning.experiment.contained import Stops
from ecg_lightning.runs import RunFolder
from ecg_lightning.termination import requeue

pytestmark = of_lightning_cli
ENDS_OF_EPOCHS = ["--checkpoint_every", "null"]
TWO, TWO_READ_AHEAD = Way(2, 0, True), Way(2, 2, True)


def state_of(run: Path) -> str:
    state: str = json.loads((run / "state.json").read_text())["state"]
    return state


def steps_behind(run: Path) -> int:
    return RunFolder(run).survey().step


# --- one process; its own real process for each way in which a shell or a scheduler sees it ---


@pytest.mark.parametrize(
    ("number", "epoch", "batch"),
    [
        pytest.param(signal.SIGTERM, PROBE, 2, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 1, 0, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 3, 1, id="SIGUSR1"),
    ],
)
def test_a_signal_ends_the_process_by_its_number_behind_a_checkpoint_inside_the_epoch(
    number: int, epoch: int, batch: int, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    way, run = Way(windows=True), tmp_path / "run"
    flags = disturbed("Signalled", epoch=epoch, batch=batch, number=number)
    ended = fit(short_store, run, way, *ENDS_OF_EPOCHS, *flags)
    assert ended.returncode == 128 + number, ended.stdout
    assert "Traceback" not in ended.stdout
    assert f"go on with: ecg-lightning fit --run {run} --resume auto" in ended.stdout
    assert state_of(run) == "interrupted"
    assert steps_behind(run) == epoch * BATCHES + batch + 1
    finish(short_store, run, way)
    assert differences(undisturbed(1, True), run) == []


def test_a_signal_in_validation_waits_for_the_checkpoint_of_the_epoch(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = disturbed("SignalledInValidation", epoch=1, number=signal.SIGTERM)
    assert fit_here(short_store, run, *flags) == 143
    assert state_of(run) == "interrupted"
    assert steps_behind(run) == 2 * BATCHES
    finish_here(short_store, run)
    assert differences(undisturbed(1, True), run) == []


def test_a_second_ctrl_c_ends_at_once_and_costs_the_epoch_alone(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = disturbed("Signalled", epoch=1, batch=2, number=signal.SIGINT, times=2)
    assert fit_here(short_store, run, *flags) == 130
    assert "SIGINT: ending behind the next checkpoint; Ctrl-C once more ends at once" in capfd.readouterr().err
    assert state_of(run) == "interrupted"
    assert steps_behind(run) == BATCHES
    finish_here(short_store, run)
    assert differences(undisturbed(1, True), run) == []


def test_a_second_sigterm_changes_nothing(short_store: Path, tmp_path: Path) -> None:
    """Schedulers send it more than once."""
    flags = disturbed("Signalled", epoch=1, batch=2, number=signal.SIGTERM, times=3)
    assert fit_here(short_store, tmp_path / "run", *flags) == 143
    assert steps_behind(tmp_path / "run") == BATCHES + 3


def test_a_signal_inside_an_accumulated_step_waits_for_its_end(short_store: Path, tmp_path: Path) -> None:
    flags = disturbed("Signalled", epoch=1, batch=0, number=signal.SIGTERM)
    assert fit_here(short_store, tmp_path / "run", *flags, "--trainer.accumulate_grad_batches", "2") == 143
    assert steps_behind(tmp_path / "run") == BATCHES // 2 + 1


def test_the_handlers_are_those_of_before_when_a_fit_has_ended(short_store: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    flags = disturbed("Signalled", epoch=0, batch=0, number=signal.SIGUSR1)
    assert fit_here(short_store, tmp_path / "run", *flags) == 138
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_an_ignored_signal_stays_ignored(short_store: Path, tmp_path: Path) -> None:
    """As `nohup` and a pool of runs have it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        flags = disturbed("Signalled", epoch=0, batch=0, number=signal.SIGINT)
        assert fit_here(short_store, tmp_path / "run", *flags) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_grid_learns_of_a_signal_that_a_fit_took(short_store: Path, tmp_path: Path, number: int) -> None:
    with Stops() as stops:
        stops.fitting = True
        flags = disturbed("Signalled", epoch=0, batch=1, number=number)
        assert fit_here(short_store, tmp_path / "run", *flags) == 128 + number
    assert stops.received == number
    assert steps_behind(tmp_path / "run") == 2


# --- max_time ---


def test_a_time_limit_ends_a_run_as_a_signal_does(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    limits = [*disturbed("Slow", seconds=0.45), "--trainer.max_time", "00:00:00:01", "--resume", "auto"]
    assert fit_here(short_store, run, *limits) == 1
    assert state_of(run) == "interrupted"
    assert steps_behind(run) >= 1
    with (run / "metrics.csv").open(newline="") as file:
        judged = [int(row["step"]) for row in csv.DictReader(file) if row.get("val/auroc")]
    assert all((step + 1) % BATCHES == 0 for step in judged)  # no epoch that was cut short
    finish_here(short_store, run, "--trainer.max_time", "null")
    assert differences(undisturbed(1, True), run) == []


def test_a_resume_has_the_whole_time_limit_for_itself(tmp_path: Path) -> None:
    """A run that has used it up would end behind one batch, each time."""
    spent = {"time_elapsed": {"train": 3600.0}}
    checkpoint: dict[str, Any] = {"callbacks": {Timer("00:01:00:00").state_key: spent, "PostTraining": {}}}
    RunCheckpoints(RunFolder(tmp_path)).on_load_checkpoint(SimpleNamespace(), SimpleNamespace(), checkpoint)  # type: ignore[arg-type]
    assert checkpoint == {"callbacks": {"PostTraining": {}}}


# --- several processes ---


@pytest.mark.slow
@pytest.mark.parametrize(("number", "rank"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 1)], ids=["the first", "another"])
def test_of_two_processes_either_may_get_the_signal(
    number: int, rank: int, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = disturbed("Signalled", epoch=PROBE, batch=1, number=number, rank=rank)
    ended = fit(short_store, run, TWO, *ENDS_OF_EPOCHS, *flags, timeout=400)
    assert ended.returncode == 128 + number, ended.stdout
    assert "Traceback" not in ended.stdout
    assert state_of(run) == "interrupted"
    assert steps_behind(run) > PROBE * BATCHES
    finish(short_store, run, TWO)
    assert differences(undisturbed(2, True), run) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "number"),
    [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)],
    ids=["SIGTERM to one", "SIGTERM to two", "Ctrl-C to two"],
)
def test_a_signal_to_the_whole_group_leaves_the_workers_to_their_processes(
    processes: int, number: int, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    """As a terminal and some schedulers send it: to those that train, their workers and what these are forked from."""
    way, run = Way(processes, 2, True), tmp_path / "run"
    flags = disturbed("Signalled", epoch=PROBE, batch=1, number=number, to_group=True)
    ended = fit(short_store, run, way, *ENDS_OF_EPOCHS, *flags, timeout=400)
    assert ended.returncode == 128 + number, ended.stdout
    assert "Traceback" not in ended.stdout
    assert "Warning" not in ended.stdout
    assert state_of(run) == "interrupted"
    assert steps_behind(run) > PROBE * BATCHES
    finish(short_store, run, way)
    assert differences(undisturbed(processes, True), run) == []


@pytest.mark.slow
def test_the_workers_of_a_killed_process_end_with_it_and_with_those_that_follow_it(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = disturbed("Signalled", epoch=PROBE, batch=1, number=signal.SIGKILL, rank=1)
    ended = fit(short_store, run, TWO_READ_AHEAD, *flags, timeout=400)  # waits for all that hold its output
    assert ended.returncode == 1, ended.stdout
    assert "process 1 (pid" in ended.stdout
    assert "has ended (killed" in ended.stdout
    assert state_of(run) == "interrupted"
    finish(short_store, run, TWO_READ_AHEAD)
    assert differences(undisturbed(2, True), run) == []


@pytest.mark.slow
def test_a_time_limit_ends_two_processes_together(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    limits = [*ENDS_OF_EPOCHS, *disturbed("Slow", seconds=0.5), "--trainer.max_time", "00:00:00:01"]
    ended = fit(short_store, run, TWO, *limits, timeout=400)
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stdout
    assert state_of(run) == "interrupted"
    finish(short_store, run, TWO, "--trainer.max_time", "null")
    assert differences(undisturbed(2, True), run) == []


@pytest.mark.slow
def test_a_process_that_waits_for_a_stopped_one_ends_all_the_same(short_store: Path, tmp_path: Path) -> None:
    """Its main thread is in a collective, where no handler of Python's is ever called."""
    ended = fit(short_store, tmp_path / "run", TWO, *disturbed("Stopped", epoch=1, batch=1), timeout=400)
    assert ended.returncode == 143, ended.stdout
    assert state_of(tmp_path / "run") == "interrupted"
    assert not RunFolder(tmp_path / "run").in_use


@pytest.mark.slow
def test_a_first_process_that_cannot_start_leaves_no_other_waiting_for_it(
    short_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port was taken between its choice and its use; the second process would wait there for half an hour."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        ended = fit(short_store, tmp_path / "run", TWO, timeout=400)
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stdout
    assert f"port {port} of this machine, on which the processes would have met, is taken" in ended.stdout
    assert "leave MASTER_PORT unset" in ended.stdout


# --- SLURM ---


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of one task, and a `scontrol` that notes what it was asked."""
    asked = tmp_path / "asked.txt"
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    of_job = {"NTASKS": "1", "JOB_NAME": "probe", "JOB_ID": "4711", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in of_job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return asked


def test_slurm_requeues_a_job_behind_its_checkpoint(
    slurm: Path, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert fit_here(short_store, run, *disturbed("Signalled", epoch=1, batch=1, number=signal.SIGUSR1)) == 138
    assert slurm.read_text() == "requeue 4711\n"
    assert steps_behind(run) == BATCHES + 2
    assert [*run.rglob("hpc_ckpt*")] == []  # Lightning's own, written amid a step
    finish_here(short_store, run)
    assert differences(undisturbed(1, True), run) == []


def test_slurm_does_not_requeue_what_it_terminates(slurm: Path, short_store: Path, tmp_path: Path) -> None:
    flags = disturbed("Signalled", epoch=0, batch=0, number=signal.SIGTERM)
    assert fit_here(short_store, tmp_path / "run", *flags) == 143
    assert not slurm.exists()


def test_a_task_of_an_array_is_requeued_by_its_own_number(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue()
    assert slurm.read_text() == "requeue 4700_3\n"


def test_a_requeue_that_fails_says_what_to_do(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (slurm.parent / "bin" / "scontrol").write_text(
        "#!/bin/sh\necho 'slurm_requeue error: Job is pending' >&2\nexit 1\n"
    )
    requeue()
    assert "SLURM job 4711 could not be requeued (slurm_requeue error: Job is pending)" in caplog.text
    monkeypatch.setenv("PATH", str(slurm.parent))
    requeue()
    assert "submit it again, it goes on by --resume auto" in caplog.text

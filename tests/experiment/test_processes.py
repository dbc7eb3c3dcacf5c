"""Grids in real processes: what comes out hangs neither on the way they run nor on when they are stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import differences, environment, run_cli
from small_grid import with_flags, write_grid

from ecg_lightning.experiment.progress import standing_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMES = ("method-seed1", "plain-seed1")


@pytest.fixture(scope="module")
def command(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """The command that runs a grid with dropped branches and dropout."""
    folder = tmp_path_factory.mktemp("grid")
    flags = with_flags(model__dropout=0.2, model__backbone__dropout=0.1, post_training__fine_tune__epochs=3)
    grid = write_grid(folder, flags=flags)

    def make(output: Path, *more: str) -> list[str]:
        return ["experiment", str(grid), "--data.store", str(tiny_store), "--output", str(output), *more]

    return make


@pytest.fixture(scope="module")
def undisturbed(command: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs, one after the other in one process."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    ended = run_cli(*command(output))
    assert ended.returncode == 0, ended.stdout
    return output


def started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ecg_lightning", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=environment(),
    )  # fmt: skip


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> None:
    begin = time.monotonic()
    while not [*folder.glob(pattern)]:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - begin < 240
        time.sleep(0.05)


def nobody_is_left(group: int) -> bool:
    """Python's own tracker of shared memory ends a moment behind the process that it served."""
    begin = time.monotonic()
    while time.monotonic() - begin < 60:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_two_runs_in_one_process_are_those_of_two_processes(undisturbed: Path, tmp_path: Path) -> None:
    """By the command lines that the record names."""
    for run in json.loads((undisturbed / "experiment.json").read_text())["runs"]:
        apart = tmp_path / run["name"]
        arguments = [str(apart) if part == run["name"] else part for part in run["command"][1:]]
        for given in (arguments, ["test", "--run", str(apart)]):
            ended = run_cli(*given)
            assert ended.returncode == 0, ended.stdout
        assert differences(undisturbed / run["name"], apart) == []
        ours, theirs = (
            json.loads((one / "metrics_test.json").read_text()) for one in (undisturbed / run["name"], apart)
        )
        assert ours["labels"] == theirs["labels"]


def test_runs_side_by_side_are_those_one_after_another(
    undisturbed: Path, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    ended = run_cli(*command(tmp_path / "output", "--parallel", "2"))
    assert ended.returncode == 0, ended.stdout
    assert "2 of 2 runs are complete" in ended.stdout
    for name in NAMES:
        assert differences(undisturbed / name, tmp_path / "output" / name) == []
        assert "macro AUROC" in (tmp_path / "output" / "logs" / f"{name}.txt").read_text()
        environment = json.loads((tmp_path / "output" / name / "environment.json").read_text())
        assert environment["command"][1] == "fit"


@pytest.mark.parametrize("parallel", ["1", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_grid_goes_on_by_the_same_command(
    undisturbed: Path, command: Callable[..., list[str]], tmp_path: Path, number: int, code: int, parallel: str
) -> None:
    output = tmp_path / "output"
    process = started(command(output, "--parallel", parallel))
    wait_for("*/checkpoints/last.ckpt", output, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == code, said
    assert "stopped; the same command goes on" in said
    standings = [standing_of(output / name) for name in NAMES]
    assert "in use" not in standings
    assert standings != ["complete", "complete"]
    assert nobody_is_left(process.pid)
    ended = run_cli(*command(output))
    assert ended.returncode == 0, ended.stdout
    for name in NAMES:
        assert differences(undisturbed / name, output / name) == []


def test_a_worker_that_dies_takes_its_own_run_along_and_no_other(tiny_store: Path, tmp_path: Path) -> None:
    die = [{"class_path": "processes.SignalAt", "init_args": {"epoch": 1, "number": int(signal.SIGKILL)}}]
    parts = {
        "dies": {"flags": {"trainer.callbacks": die}},
        **{name: {"flags": {"data.keep": name}} for name in ["all"]},
    }
    parts |= {"labelled": {"flags": {"data.keep": "labelled"}}}
    grid = write_grid(tmp_path, axes={"part": {"values": parts}})
    output = tmp_path / "output"
    ended = run_cli(
        "experiment", str(grid), "--data.store", str(tiny_store), "--output", str(output), "--parallel", "2"
    )
    assert ended.returncode == 1, ended.stdout
    assert "failed: dies: its process ended by SIGKILL" in ended.stdout
    assert [standing_of(output / name) for name in parts] == ["to resume", "complete", "complete"]


def test_workers_end_with_the_process_that_started_them(command: Callable[..., list[str]], tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = started(command(output, "--parallel", "2"))
    wait_for("*/checkpoints/last.ckpt", output, process)
    process.kill()
    process.communicate(timeout=240)  # the workers hold its output open until they end
    assert all(standing_of(output / name) in ("to resume", "to test", "complete", "to do") for name in NAMES)


def test_an_array_job_trains_its_run(undisturbed: Path, command: Callable[..., list[str]], tmp_path: Path) -> None:
    output, script = tmp_path / "output", tmp_path / "array.sh"
    ended = run_cli(*command(output, "--write", str(script)))
    assert ended.returncode == 0, ended.stdout
    (tmp_path / "ecg-lightning").write_text(f'#!/bin/bash\nexec {sys.executable} -m ecg_lightning "$@"\n')
    (tmp_path / "ecg-lightning").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "1"}
    subprocess.run([script], env={**environment, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    assert [standing_of(output / name) for name in NAMES] == ["to do", "complete"]
    assert differences(undisturbed / NAMES[1], output / NAMES[1]) == []


def test_two_tracked_runs_in_one_process_are_two_runs_of_the_tracker(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    ended = run_cli(*command(tmp_path / "output", "--config", "logger/wandb"))
    assert ended.returncode == 0, ended.stdout
    folders = [tmp_path / "output" / name for name in NAMES]
    ids = [(folder / "wandb_run_id").read_text() for folder in folders]
    assert ids[0] != ids[1]
    for folder, one in zip(folders, ids, strict=True):
        assert [path.name.endswith(one) for path in (folder / "wandb").glob("offline-run-*")] == [True]

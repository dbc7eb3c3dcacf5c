"""One of two processes dies, is stopped, hangs or fails: the other ends as well, names it, and the run can go on."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import differences, fault_at, run_python, torchrun
from test_strategies import FLAGS

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.data.prepare import prepare
from ecg_lightning.runs import global_step
from ecg_lightning.termination import TERMINATED

PROBE, FINE_TUNE = 1, 3
"""Epochs in the middle of either phase."""
PATIENCE = 12
# Behind `--`: torchrun takes `--run` for a part of its own `--run-path`.
LAUNCHERS = {"lightning": ["-m"], "torchrun": [*torchrun(2), "-m", "--"]}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(num_records=38), path, backbone_signal("vit"), workers=1, progress=False)
    return path


def fit(store: Path, run: Path, launcher: str, *more: str) -> tuple[int, str]:
    """Exit code and output of a fit of two processes; none of them outlives it."""
    arguments = [*FLAGS, "--data.store", str(store), "--run", str(run), "--checkpoint_every", "1"]
    arguments += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--patience", str(PATIENCE)]
    ended = run_python(*LAUNCHERS[launcher], "ecg_lightning", "fit", *arguments, *more, timeout=200)
    until = time.monotonic() + 30  # a process that is being killed
    while time.monotonic() < until and processes_of(run):
        time.sleep(0.2)
    assert processes_of(run) == [], ended.stdout
    return ended.returncode, ended.stdout


def processes_of(run: Path) -> list[str]:
    """Command lines of the processes that still work on a run."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if str(run) in words and state != "Z":
            lines.append(f"{folder.name} {state} {' '.join(words)}")
    return lines


def assert_interrupted(run: Path, said: str) -> None:
    """The state says so, and the last checkpoint, of the batch before, is whole."""
    assert json.loads((run / "state.json").read_text())["state"] == "interrupted", said
    assert global_step(run / "checkpoints" / "last.ckpt") is not None


CASES = [
    ("kill", 1, PROBE, "lightning", "has ended (killed"),
    ("kill", 0, FINE_TUNE, "lightning", "has ended (killed"),
    ("kill", 1, FINE_TUNE, "torchrun", None),
    ("kill", 0, PROBE, "torchrun", None),
    ("stop", 1, FINE_TUNE, "lightning", "gave no sign for"),
    ("stop", 0, PROBE, "lightning", "does not answer"),
    ("stop", 0, FINE_TUNE, "torchrun", "gave no sign for"),
    ("loop", 1, PROBE, "lightning", "has stood still for"),
    ("loop", 0, FINE_TUNE, "torchrun", "has stood still for"),
    ("error", 1, FINE_TUNE, "lightning", "has ended with LookupError: a fault of one process"),
]


@pytest.mark.parametrize(
    ("fault", "rank", "epoch", "launcher", "reason"), CASES, ids=lambda value: str(value).replace(" ", "-")
)
def test_when_one_process_cannot_go_on_both_end_and_it_is_named(
    fault: str, rank: int, epoch: int, launcher: str, reason: str | None, store: Path, tmp_path: Path
) -> None:
    """Under torchrun, whose agent sees a killed process at once, it is the agent that names it."""
    run = tmp_path / "run"
    code, said = fit(store, run, launcher, *fault_at(rank, epoch, fault))
    assert code != 0
    if reason is None:
        assert f"rank      : {rank} (local_rank: {rank})" in said.partition("Root Cause")[2]
    else:
        named = [line for line in said.splitlines() if reason in line]
        assert named, said
        assert f"process {rank} (pid " in named[0]
    if fault == "loop":
        assert "processes.py" in said
        assert "in loop" in said
    assert_interrupted(run, said)


def test_a_run_that_ended_for_a_dead_process_goes_on_as_if_nothing_had_been(store: Path, tmp_path: Path) -> None:
    fit(store, tmp_path / "killed", "lightning", *fault_at(1, FINE_TUNE, "kill"))
    code, said = fit(store, tmp_path / "killed", "lightning", "--resume", "auto", "--trainer.callbacks", "null")
    assert code == 0, said
    code, said = fit(store, tmp_path / "undisturbed", "lightning")
    assert code == 0, said
    assert differences(tmp_path / "undisturbed", tmp_path / "killed") == []


def test_a_slow_process_is_waited_for(store: Path, tmp_path: Path) -> None:
    code, said = fit(store, tmp_path / "run", "lightning", *fault_at(1, PROBE, "slow"))
    assert code == 0, said
    assert "fault: slow of process 1" in said
    assert "process 1 (pid" not in said


def test_when_all_hang_one_of_them_says_so_before_it_ends(store: Path, tmp_path: Path) -> None:
    both = [*fault_at(0, PROBE, "loop"), "--trainer.callbacks+", fault_at(1, PROBE, "loop")[1][1:-1]]
    code, said = fit(store, tmp_path / "run", "lightning", *both)
    assert code != 0
    assert "all 2 processes have stood still for" in said
    assert_interrupted(tmp_path / "run", said)


@pytest.mark.parametrize("every", ["1", "3"])
def test_a_signal_to_one_process_ends_both_behind_the_next_checkpoint(every: str, store: Path, tmp_path: Path) -> None:
    """Under torchrun, whose agent ends the others when the first has ended; whether or not all save at that batch."""
    terminate = '[{"class_path": "processes.TerminateAt", "init_args": {"epoch": 3}}]'
    flags = ["--trainer.callbacks", terminate, "--checkpoint_every", every]
    code, said = fit(store, tmp_path / "run", "torchrun", *flags)
    assert code != 0
    assert f"exitcode  : {TERMINATED} " in said.partition("Root Cause")[2]
    assert "process 0 (pid" not in said
    assert "stood still" not in said
    assert "no checkpoint within" not in said
    assert_interrupted(tmp_path / "run", said)

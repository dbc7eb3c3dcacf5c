"""What goes wrong amid a run, and what lies in its folder afterwards: said in our words, and gone on from."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disturbances import disturbed
from processes import differences, kill_at
from short_run import BATCHES, PROBE, Way, finish, finish_here, fit, fit_here
from tiny import of_lightning_cli

from ecg_lightning.runs import RunFolder

pytestmark = of_lightning_cli


def state_of(run: Path) -> str:
    state: str = json.loads((run / "state.json").read_text())["state"]
    return state


# --- errors in a step ---


@pytest.mark.parametrize("kind", ["of device", "of machine", "of python"])
def test_a_step_without_memory_says_where_and_what_takes_less(
    kind: str, short_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert fit_here(short_store, run, *disturbed("Failing", epoch=PROBE, batch=1, kind=kind)) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "out of memory on cpu in epoch 2, batch 1, with 7 records a process" in said
    assert "--trainer.precision bf16-mixed" in said
    assert f"then go on with: ecg-lightning fit --run {run} --resume auto" in said
    assert "out of memory on cpu in epoch 2, batch 1" in (run / "log.txt").read_text()
    assert state_of(run) == "interrupted"


def test_behind_any_error_in_a_step_the_run_goes_on_from_its_last_epoch(
    short_store: Path,
    undisturbed: Callable[[int, bool], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    assert fit_here(short_store, run, *disturbed("Failing", epoch=PROBE, batch=1, kind="of mind")) == 1
    assert "ZeroDivisionError: division by zero in a step (--debug shows where)" in capsys.readouterr().err
    log = (run / "log.txt").read_text()
    assert "ERROR ecg_lightning: ZeroDivisionError: division by zero in a step\nTraceback (most recent" in log
    assert "disturbances.py" in log
    assert state_of(run) == "interrupted"
    assert RunFolder(run).survey().step == PROBE * BATCHES
    finish_here(short_store, run)
    assert differences(undisturbed(1, True), run) == []


# --- a disk that is full ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # whatever a failing test left open


def test_a_disk_that_fills_up_ends_the_run_which_goes_on_when_there_is_space(
    small_disk: Path,
    short_store: Path,
    undisturbed: Callable[[int, bool], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = small_disk / "run"
    full = disturbed("FullDisk", epoch=PROBE + 1, batch=1, folder=str(small_disk))
    assert fit_here(short_store, run, *full) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "cannot be written to" in said
    assert "0.00 MB are free there: make space; then go on with: ecg-lightning fit --run" in said
    assert [*run.rglob("*.tmp")] == []
    survey = RunFolder(run).survey()
    assert (survey.step, survey.damaged) == ((PROBE + 1) * BATCHES, [])
    (small_disk / "filler").unlink()
    finish_here(short_store, run)
    assert differences(undisturbed(1, True), run) == []


@pytest.mark.slow
def test_a_checkpoint_that_is_larger_than_files_may_be_leaves_the_previous_one(
    short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    """As a quota does; where no disk can be mounted, this one is run."""
    way, run = Way(windows=True), tmp_path / "run"
    ended = fit(short_store, run, way, *disturbed("SmallFiles", epoch=PROBE, batch=0))
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stdout
    assert "cannot be written to" in ended.stdout
    assert "--resume auto" in ended.stdout
    assert state_of(run) == "interrupted"
    assert [*run.rglob("*.tmp")] == []
    assert RunFolder(run).survey().damaged == []
    finish(short_store, run, way)
    assert differences(undisturbed(1, True), run) == []


# --- files that are half there ---


@pytest.fixture(scope="module")
def killed(short_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in fine-tuning, with a checkpoint behind every batch; not to be changed."""
    run = tmp_path_factory.mktemp("killed") / "run"
    assert fit(short_store, run, Way(windows=True), *kill_at(PROBE, 3)).returncode == -9
    return run


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def cut_last_checkpoint(run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[: len(content) // 2])


def leave_a_temporary(run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    (last.parent / ".last.ckpt.1234.tmp").write_bytes(last.read_bytes()[:1000])


def cut_last_figures(run: Path) -> None:
    """In the middle of a number, so that what is left looks like one."""
    text = (run / "metrics.csv").read_text().rstrip("\n")
    (run / "metrics.csv").write_text(text[:-4])


HALF = {
    "the newest checkpoint": cut_last_checkpoint,
    "a temporary file": leave_a_temporary,
    "the state": lambda run: cut(run / "state.json"),
    "the last line of metrics.csv": cut_last_figures,
    "the first line of metrics.csv": lambda run: (run / "metrics.csv").write_text("step,epo"),
    "the sign of life": lambda run: cut(run / "heartbeat.json"),
    "the environment": lambda run: cut(run / "environment.json"),
}


@pytest.mark.parametrize("half", HALF)
def test_a_half_written_file_in_the_folder_leaves_no_trace(
    half: str,
    killed: Path,
    short_store: Path,
    undisturbed: Callable[[int, bool], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    subprocess.run(["cp", "-a", str(killed), str(run)], check=True)  # with its hard links
    HALF[half](run)
    finish_here(short_store, run)
    said = capsys.readouterr().err
    assert ("last.ckpt is damaged and passed over" in said) == (half == "the newest checkpoint")
    assert [*run.rglob("*.tmp")] == []
    assert differences(undisturbed(1, True), run) == []


def of_another_run(figures: str) -> str:
    """The same steps and columns; one loss is another's."""
    head, first, *rest = figures.splitlines(keepends=True)
    step, epoch, *values = first.split(",")
    return "".join([head, ",".join([step, epoch, *("9.5" if value.strip() else value for value in values)]), *rest])


def longer(figures: str) -> str:
    """As a run that was killed behind its checkpoint leaves them."""
    row = figures.splitlines()[-1].split(",")
    return figures + ",".join([str(int(row[0]) + 1), *row[1:]]) + "\n"


@pytest.mark.parametrize(("change", "said_so"), [(of_another_run, True), (longer, False)])
def test_figures_that_are_not_the_checkpoints_are_put_back_and_it_is_said(
    change: Callable[[str], str],
    said_so: bool,
    killed: Path,
    short_store: Path,
    undisturbed: Callable[[int, bool], Path],
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    subprocess.run(["cp", "-a", str(killed), str(run)], check=True)
    figures = (run / "metrics.csv").read_text()
    assert change(figures) != figures
    (run / "metrics.csv").write_text(change(figures))
    finish_here(short_store, run)
    lines = [line for line in (run / "log.txt").read_text().splitlines() if "is not what the checkpoint knows" in line]
    assert len(lines) == said_so
    assert all(f"{run / 'metrics.csv'} is not what the checkpoint knows of 1 of its" in line for line in lines)
    assert differences(undisturbed(1, True), run) == []

"""A live run is told from a dead one by its signs of life, on this machine and on others, with locks or without."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disturbances import disturbed
from processes import environment, run_cli
from short_run import BATCHES, COMMON, Way, fit_here
from tiny import of_lightning_cli

from ecg_lightning.errors import InputError, StoppedError
from ecg_lightning.heartbeat import FILE, PERIODS_TO_LIVE, Heartbeat, last_beat
from ecg_lightning.runs import RunFolder
from ecg_lightning.whole_files import write_json

pytestmark = of_lightning_cli
PERIOD = 0.5
HOLDER = """
import sys, time
{before}
from pathlib import Path
from ecg_lightning.runs import RunFolder
RunFolder(Path(sys.argv[1]), period={period}).claim("auto")
print("held", flush=True)
time.sleep(600)
"""
ELSEWHERE = """
import ecg_lightning.heartbeat as heartbeat
heartbeat.socket.gethostname = lambda: "elsewhere"
here = heartbeat._process
heartbeat._process = lambda pid: "another-boot/" + here(pid).partition("/")[2]
"""
"""A process of another machine, as far as anybody can see: another name, started at another time."""
LOCKLESS = """
import fcntl
def flock(file, how):
    raise OSError(38, "Function not implemented")
fcntl.flock = flock
"""
EVERYBODY_LOCKS = """
import fcntl
fcntl.flock = lambda file, how: None
"""
"""A file system that grants every lock, as some that are mounted over a network do."""

Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    run = RunFolder(tmp_path / "run", period=PERIOD)
    yield run
    run.release()


@pytest.fixture
def hold(run: RunFolder) -> Iterator[Hold]:
    """Starts a process that claims the folder and stays."""
    started = []

    def start(before: str = "") -> subprocess.Popen[str]:
        program = HOLDER.format(before=before, period=PERIOD)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(run.path)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(params=["locks", "no locks", "locks for everybody"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the file system locks: what both processes do before they begin."""
    before = {"locks": "", "no locks": LOCKLESS, "locks for everybody": EVERYBODY_LOCKS}[request.param]
    if before:
        import fcntl

        monkeypatch.setattr(fcntl, "flock", fcntl.flock)  # put back behind the test
        exec(before, {})
    return before


# --- on this machine ---


def test_a_live_run_is_refused_and_its_process_named(run: RunFolder, hold: Hold, locks: str) -> None:
    holder = hold(locks)
    assert run.in_use
    with pytest.raises(InputError, match=rf"in use by another process .*process {holder.pid}, last heard of"):
        run.claim("auto")
    assert run.state == "running"


def test_a_killed_run_is_taken_over_at_once(
    run: RunFolder, hold: Hold, locks: str, caplog: pytest.LogCaptureFixture
) -> None:
    holder = hold(locks)
    holder.kill()
    holder.wait()
    assert not run.in_use
    with caplog.at_level("INFO", "ecg_lightning"):
        run.claim("auto")
    assert f"taken over from a process that has ended (host {os.uname().nodename}, process {holder.pid}" in caplog.text
    assert "waiting" not in caplog.text


def test_a_process_id_given_anew_is_not_taken_for_the_run(run: RunFolder, hold: Hold) -> None:
    """After a restart of a container ids come again: it is the time of the start that tells them apart."""
    holder = hold(LOCKLESS)
    holder.kill()
    holder.wait()
    beat = json.loads((run.path / FILE).read_text())
    write_json(run.path / FILE, {**beat, "pid": os.getpid()})
    run.claim("auto")


# --- on another machine ---


def test_a_live_run_of_another_machine_is_watched_and_refused(run: RunFolder, hold: Hold, locks: str) -> None:
    hold(ELSEWHERE + (locks or EVERYBODY_LOCKS))
    assert run.in_use
    with pytest.raises(InputError, match=r"in use by another process .*host elsewhere"):
        run.claim("auto")


def test_a_dead_run_of_another_machine_is_taken_over_when_it_stays_silent(
    run: RunFolder, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    holder = hold(ELSEWHERE + EVERYBODY_LOCKS)
    holder.kill()
    holder.wait()
    begin = time.monotonic()
    with caplog.at_level("INFO", "ecg_lightning"):
        run.claim("auto")
    assert time.monotonic() - begin > PERIODS_TO_LIVE * PERIOD / 2
    assert "to see whether host elsewhere, process" in caplog.text
    assert "taken over from a process that has ended (host elsewhere" in caplog.text


def long_dead(run: RunFolder, seconds: float = 0.0) -> None:
    """The last sign of life of a machine whose clock was wrong by so many seconds, an hour ago."""
    beat = {"token": "theirs", "host": "elsewhere", "pid": 7, "process": "boot/pid 1", "period": 10.0}
    write_json(run.path / FILE, {**beat, "time": time.time() + seconds})
    hour_ago = time.time() - 3600
    os.utime(run.path / FILE, (hour_ago, hour_ago))


@pytest.mark.parametrize("wrong", [-7200, 0, 7200])
def test_a_run_that_died_long_ago_is_taken_over_at_once_whatever_its_clock_said(
    run: RunFolder, wrong: float, caplog: pytest.LogCaptureFixture
) -> None:
    run.set_state("running")
    long_dead(run, wrong)
    (run.path / ".lock").touch()
    assert not run.in_use
    begin = time.monotonic()
    with caplog.at_level("INFO", "ecg_lightning"):
        run.claim("auto")
    assert time.monotonic() - begin < PERIODS_TO_LIVE * 10.0 / 2
    assert "waiting" not in caplog.text


def test_age_is_by_the_clock_of_the_file_system_not_by_ours(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.claim("never")
    monkeypatch.setattr(time, "time", lambda: 1e12)
    beat = last_beat(run.path)
    assert beat is not None
    assert abs(beat.age) < 100


# --- a process that was suspended ---


def test_a_run_that_was_taken_over_writes_no_checkpoint(run: RunFolder, hold: Hold) -> None:
    run.claim("never")
    run.check_kept()
    write_json(run.path / FILE, {**json.loads((run.path / FILE).read_text()), "token": "theirs", "host": "elsewhere"})
    with pytest.raises(StoppedError, match=r"taken over by another process \(host elsewhere.*this process ends"):
        run.check_kept()
    run.release()
    assert json.loads((run.path / FILE).read_text())["token"] == "theirs"


def test_a_suspended_process_does_not_overwrite_the_signs_of_life_of_its_successor(run: RunFolder, hold: Hold) -> None:
    holder = hold(ELSEWHERE + EVERYBODY_LOCKS)
    os.kill(holder.pid, signal.SIGSTOP)
    run.claim("auto")
    os.kill(holder.pid, signal.SIGCONT)
    for _ in range(4):
        time.sleep(PERIOD)
        run.check_kept()


def test_a_fit_whose_run_was_taken_over_ends_and_leaves_it_to_the_other(
    short_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert fit_here(short_store, run, *disturbed("TakenOver", epoch=1, batch=1, folder=str(run))) == 1
    said = capsys.readouterr().err
    assert f"--run {run} was taken over by another process (host elsewhere" in said
    assert RunFolder(run).survey().step == BATCHES
    assert json.loads((run / "state.json").read_text()) == {"state": "running", "host": "elsewhere"}
    assert json.loads((run / FILE).read_text())["token"] == "theirs"


# --- the file ---


def test_it_beats_until_it_is_stopped_and_says_goodbye(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, period=0.05)
    heart.start()
    first = last_beat(tmp_path)
    assert first is not None
    assert first.runs_here
    end = time.monotonic() + 60
    while (now := last_beat(tmp_path)) is None or now.written == first.written:
        assert time.monotonic() < end
        time.sleep(0.05)
    heart.stop()
    assert [*tmp_path.iterdir()] == []
    heart.stop()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "a"}', "null"])
def test_a_sign_of_life_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert last_beat(tmp_path) is None


def test_a_disk_that_is_away_is_said_once_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    heart = Heartbeat(folder, period=0.02)
    heart.start()
    real, heart.path = heart.path, Path("/proc/nowhere") / FILE
    end = time.monotonic() + 60
    while "no sign of life could be written" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.2)
    assert caplog.text.count("no sign of life could be written") == 1
    before = real.stat().st_mtime_ns
    heart.path = real
    while real.stat().st_mtime_ns == before:
        assert time.monotonic() < end
        time.sleep(0.02)
    heart.stop()


# Python 3.12 and later, where threads are about: the child touches no lock of theirs.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_workers_end_leaves_the_heart_of_its_parent_alone(run: RunFolder) -> None:
    """Nor does it hold the lock, should it outlive its parent."""
    run.claim("never")
    child = os.fork()
    if child == 0:
        run.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert (run.path / FILE).exists()


# --- the command line ---


@pytest.mark.slow
def test_fit_refuses_a_run_of_another_machine_and_goes_on_when_that_is_dead(
    run: RunFolder, hold: Hold, short_store: Path
) -> None:
    flags = [*COMMON, *Way().flags, "--data.store", str(short_store), "--run", str(run.path), "--resume", "auto"]
    holder = hold(ELSEWHERE + EVERYBODY_LOCKS)
    refused = run_cli("fit", *flags)
    assert refused.returncode == 1
    assert "host elsewhere" in refused.stdout
    holder.kill()
    holder.wait()
    ended = run_cli("fit", *flags)
    assert ended.returncode == 0, ended.stdout
    assert "taken over from a process that has ended (host elsewhere" in ended.stdout
    assert run.state == "complete"


def test_a_loaders_worker_that_outlives_its_killed_parent_does_not_hold_the_folder(run: RunFolder) -> None:
    program = """
import os, sys, time
from ecg_lightning.runs import RunFolder
RunFolder(sys.argv[1]).claim("never")
begun, begins = os.pipe()
child = os.fork()
if child == 0:
    os.write(begins, b".")
    time.sleep(600)
os.read(begun, 1)  # killed before, it would not have come as far as to let the folder go
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(run.path)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    try:
        parent.wait()
        run.claim("auto")
    finally:
        os.kill(worker, signal.SIGKILL)
        parent.stdout.close()

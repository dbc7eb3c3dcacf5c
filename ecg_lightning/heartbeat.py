"""Who trains in a run folder, on whatever machine: a file that its process writes anew every few seconds.

A lock says so on one machine; on a network file system it may be unknown, or known to each machine for itself.
"""

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from ecg_lightning.whole_files import write_json

log = logging.getLogger(__name__)
FILE = "heartbeat.json"
PERIOD = 10.0
"""Seconds between two beats."""
PERIODS_TO_LIVE = 6
"""A process of which so many beats are missing is dead."""


class Beat(NamedTuple):
    """The last sign of life in a folder; ``written`` at that time, ``age`` seconds ago, by its file system's clock."""

    token: str
    host: str
    pid: int
    process: str
    period: float
    written: float
    age: float

    @property
    def stale(self) -> bool:
        """Whether its process has been silent for too long to live."""
        return self.age >= self.lifetime

    @property
    def lifetime(self) -> float:
        """Seconds that a sign of life is good for."""
        return PERIODS_TO_LIVE * self.period

    @property
    def of_this_machine(self) -> bool:
        """Whether its process id means something here."""
        return self.process.partition(" ")[0] == _process(os.getpid()).partition(" ")[0]

    @property
    def runs_here(self) -> bool:
        """Whether its process is one of this machine that has not ended; an id given anew is another's."""
        return self.of_this_machine and self.process == _process(self.pid)

    def __str__(self) -> str:
        return f"host {self.host}, process {self.pid}, last heard of {max(0.0, self.age):.0f} s ago"


class Heartbeat:
    """Writes a sign of life into ``folder`` from a thread, until `stop`, or until another process takes the folder.

    Args:
        folder: the run's.
        period: seconds between two beats.
    """

    def __init__(self, folder: Path, period: float = PERIOD) -> None:
        self.path, self.period = folder / FILE, period
        self.token = uuid4().hex
        self._process = os.getpid()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Writes the first beat at once: an error is the caller's."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and takes the file away, unless it is another's by now."""
        if os.getpid() != self._process:  # a child, forked from the process that beats
            return
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5)  # it may wait for a network
        if self.taken_by() is None:
            self.path.unlink(missing_ok=True)

    def taken_by(self) -> Beat | None:
        """The process that took the folder meanwhile; None while it is ours."""
        beat = last_beat(self.path.parent)
        return None if beat is None or beat.token == self.token else beat

    def _beat(self) -> None:
        pid = os.getpid()
        content = {"token": self.token, "host": socket.gethostname(), "pid": pid, "process": _process(pid)}
        write_json(self.path, {**content, "period": self.period})

    def _run(self) -> None:
        silent = False
        while not self._stopped.wait(self.period):
            try:
                if self.taken_by() is not None:
                    return  # the next checkpoint says so
                self._beat()
                silent = False
            except OSError as error:  # a full disk, a network that is away
                if not silent:
                    log.warning("no sign of life could be written to %s (%s); trying on", self.path, error)
                silent = True


def last_beat(folder: Path) -> Beat | None:
    """The last sign of life in ``folder``; None where its process said goodbye, or nothing can be read."""
    try:
        with (folder / FILE).open() as file:  # opened first: a network file system looks at the server then
            content: dict[str, Any] = json.load(file)
            written = os.fstat(file.fileno()).st_mtime
        known = {name: content[name] for name in ("token", "host", "pid", "process", "period")}
        return Beat(**known, written=written, age=_now_of(folder) - written)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def await_end(folder: Path, beat: Beat) -> Beat | None:
    """Watches a process of another machine for as long as its last sign of life is good for.

    Returns:
        The sign of life that it gave meanwhile; None when it gave none, and is dead.
    """
    end = time.monotonic() + beat.lifetime - max(0.0, beat.age) + beat.period / 2
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(beat.period / 4, left))
        now = last_beat(folder)
        if now is None:
            return None
        if (now.token, now.written) != (beat.token, beat.written):
            return now
    return None


def _now_of(folder: Path) -> float:
    """Time of the file system: two machines' clocks may differ by minutes, and so may ours and its server's."""
    clock = folder / f".clock.{uuid4().hex}.tmp"
    try:
        clock.write_text("now")
        return clock.stat().st_mtime
    except OSError:  # read only
        return time.time()
    finally:
        clock.unlink(missing_ok=True)


def _process(pid: int) -> str:
    """Names a process beyond its id: machine since its start, container, and when it began; "" where it has ended."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        container = Path("/proc/self/ns/pid").readlink()
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended, or this is no Linux
        return "" if Path("/proc/self/stat").exists() else _named_by_id(pid)
    return "" if began[0] == "Z" else f"{machine}/{container} {began[19]}"


def _named_by_id(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return f"{socket.gethostname()} {pid}"

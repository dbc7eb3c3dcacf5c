"""The run folder: decided first, found again, told apart from one that is in use, complete or somebody else's."""

import fcntl
import json
import logging
import os
import platform
import shutil
import socket
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import ecg_lightning
from ecg_lightning.errors import InputError, StoppedError, UsageError
from ecg_lightning.heartbeat import PERIOD, Beat, Heartbeat, await_end, last_beat
from ecg_lightning.whole_files import file_sha256, whole_file, write_json

__all__ = ["BEST", "NO_DEVICE", "PHASES", "RunFolder", "existing_run", "file_sha256", "whole_file", "write_json"]

Resume = Literal["never", "auto"]
State = Literal["running", "interrupted", "complete"]
PHASES = ("fine_tune", "probe")
"""The last first: the best checkpoint of a run is that of its last phase."""
BEST = {"probe": "probe-best.ckpt", "fine_tune": "finetune-best.ckpt"}
LAST = "last.ckpt"
log = logging.getLogger(__name__)
NO_DEVICE = "Research software: not a medical device, not for diagnosis."


_locks: set[TextIO] = set()


class Survey(NamedTuple):
    """What the checkpoints of a run are good for: each was read once, to its last byte.

    Attributes:
        newest: the complete one that is furthest on; None where there is none.
        step: optimizer steps behind it; 0 where there is none.
        damaged: those that cannot be read.
    """

    newest: Path | None
    step: int
    damaged: list[Path]


class RunFolder:
    """Everything that a run writes: config, checkpoints, metrics, predictions, environment, log, state.

    Args:
        path: the folder.
        period: seconds between two signs of life in it, while this process trains there.
    """

    def __init__(self, path: str | Path, *, period: float = PERIOD) -> None:
        self.path, self.period = Path(path), period
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self._lock: TextIO | None = None
        self._heartbeat: Heartbeat | None = None
        self._new = False

    @property
    def encoder(self) -> Path:
        """The backbone that a pre-training leaves."""
        return self.path / "encoder.safetensors"

    @property
    def is_pretraining(self) -> bool:
        """Whether `pretrain` wrote it."""
        return self.config.exists() and b"\npretraining:\n" in self.config.read_bytes()

    # --- the state ---

    @property
    def state(self) -> State | None:
        """What the folder says of itself; None where there is no run."""
        try:
            state: State = json.loads((self.path / "state.json").read_text())["state"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            return "interrupted"
        return state

    def set_state(self, state: State) -> None:
        """Writes the state, whole or not at all."""
        write_json(self.path / "state.json", {"state": state, "host": socket.gethostname(), "pid": os.getpid()})

    @property
    def in_use(self) -> bool:
        """Whether a process trains in it now, this one included, here or on another machine."""
        try:
            with (self.path / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            pass
        beat = last_beat(self.path)
        return beat is not None and (beat.runs_here if beat.of_this_machine else not beat.stale)

    def claim(self, resume: Resume) -> None:
        """Takes the folder for this process, until `release` or `give_up`.

        A process of another machine that gave its last sign of life a moment ago is watched for up to a minute.

        Raises:
            InputError: when another process trains in it, or it holds something that must not be trained over.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--run {self.path} is a file, a run is a folder: choose another name")
        refuse_unwritable(self.path, "--run")
        self._new = not self.path.exists() or not any(self.path.iterdir())
        if self.state is None and not self._new and not (self.path / ".lock").exists():
            raise InputError(f"--run {self.path} is a folder without a run in it, and not empty: choose another name")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            former = last_beat(self.path)
            if former is not None and former.runs_here:  # it has the lock, where the file system knows locks
                raise self._in_use_by(former)
            self.refuse_existing(resume)
            if former is not None:
                self._outlive(former)
        except InputError:
            self.release()
            raise
        for left in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        self._heartbeat = Heartbeat(self.path, self.period)
        self._heartbeat.start()
        self.set_state("running")

    def _outlive(self, former: Beat) -> None:
        """Says that the process which trained here is dead, once it is certain.

        Raises:
            InputError: when it lives.
        """
        if not former.of_this_machine and not former.stale:
            log.info(
                "%s: waiting up to %.0f s to see whether %s still trains in it", self.path, former.lifetime, former
            )
            if (alive := await_end(self.path, former)) is not None:
                raise self._in_use_by(alive)
        log.info("%s: taken over from a process that has ended (%s)", self.path, former)

    def _in_use_by(self, beat: Beat | None) -> InputError:
        who = "" if beat is None else f" ({beat})"
        return InputError(
            f"--run {self.path} is in use by another process that trains in it{who}: wait for it, stop it, or choose "
            "another name"
        )

    def taken_by(self) -> Beat | None:
        """The process that has taken the folder from this one; None while it is ours."""
        return None if self._heartbeat is None else self._heartbeat.taken_by()

    def check_kept(self) -> None:
        """To be called before a checkpoint is written.

        Raises:
            StoppedError: when another process has taken the folder: this one was silent for so long that it was held
                for dead, as a machine that was suspended.
        """
        if (other := self.taken_by()) is not None:
            raise StoppedError(
                f"--run {self.path} was taken over by another process ({other}) while this one gave no sign of life: "
                "it goes on there, this process ends"
            )

    def refuse_existing(self, resume: Resume) -> None:
        """Refuses a run that is there already, unless it may be gone on with.

        Raises:
            InputError: saying what to do instead.
        """
        state = self.state
        if state is not None and (resume == "never" or state == "complete"):
            way_out = "go on with it: add --resume auto"
            if state == "complete":
                way_out = f"test it: ecg-lightning test --run {self.path}"
            raise InputError(f"--run {self.path} holds a run already ({state}): choose another name, or {way_out}")

    def claim_on_rank_zero(self, resume: Resume) -> None:
        """`claim`, by the one process that writes."""
        from lightning.fabric.utilities.rank_zero import rank_zero_only  # what reads runs must not wait for it

        rank_zero_only(self.claim)(resume)

    def _take_lock(self) -> None:
        self._lock = (self.path / ".lock").open("a+")
        _locks.add(self._lock)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise self._in_use_by(last_beat(self.path)) from None
        except OSError as error:  # a file system without locks
            log.info("%s: no file locks here (%s), its signs of life alone tell who trains in it", self.path, error)

    def release(self) -> None:
        """Lets the folder go; its lock ends with the process anyway."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._lock is not None:
            _locks.discard(self._lock)
            self._lock.close()
            self._lock = None

    def give_up(self) -> None:
        """Takes away what `claim` made, when nothing could be started in it."""
        if self._lock is None:
            return
        if self._new and not any(self.checkpoints.iterdir()):
            self.release()
            shutil.rmtree(self.path)
        else:
            self.set_state("interrupted")
            self.release()

    # --- checkpoints ---

    def survey(self) -> Survey:
        """Reads all checkpoints; two names of one file are read once."""
        steps: dict[Path, int | None] = {}
        known: dict[tuple[int, int], int | None] = {}
        for path in sorted(self.checkpoints.glob("*.ckpt")):
            place = path.stat()
            file = (place.st_dev, place.st_ino)
            if file not in known:
                known[file] = global_step(path)
            steps[path] = known[file]
        readable = {path: step for path, step in steps.items() if step is not None}
        # last.ckpt before a best one of the same step: it was written behind it
        newest = max(readable, key=lambda p: (readable[p], p.name == LAST), default=None)
        step = 0 if newest is None else readable[newest]
        return Survey(newest, step, [path for path in steps if path not in readable])

    def best_checkpoint(self) -> Path:
        """The best checkpoint of the last phase that has one.

        Raises:
            InputError: when the run has none yet.
        """
        for phase in PHASES:
            if (path := self.checkpoints / BEST[phase]).exists():
                return path
        raise InputError(f"--run {self.path} has no checkpoint in {self.checkpoints}: train it first with `fit`")

    def named_checkpoint(self, name: str) -> Path:
        """A checkpoint by path, or by its name in this run (``last``).

        Raises:
            InputError: when there is none, or it is damaged or something else.
        """
        places = (Path(name), self.checkpoints / name, self.checkpoints / f"{name}.ckpt")
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            have = ", ".join(sorted(one.name for one in self.checkpoints.glob("*.ckpt")))
            raise UsageError(f"--checkpoint {name} does not exist: the run has {have}")
        if global_step(path) is None:
            raise InputError(f"--checkpoint {path} is no checkpoint, or damaged: the run's are in {self.checkpoints}")
        return path

    def readable_checkpoint(self, name: str | None) -> Path:
        """The checkpoint called ``name``, the best of the last phase for None.

        Raises:
            InputError: when there is none, or it is damaged, or could run code.
        """
        path = self.named_checkpoint(name) if name else self.best_checkpoint()
        if global_step(path) is None:
            raise InputError(f"{path} is damaged: name another with --checkpoint, or go on with `fit --resume auto`")
        return path

    # --- what a run writes once ---

    @property
    def store_sha256(self) -> str | None:
        """Hash of the store that the run was trained on."""
        try:
            return str(json.loads(self.environment.read_text())["store_sha256"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    @property
    def record_seconds(self) -> float | None:
        """Length of the records that the run was trained on."""
        try:
            return float(json.loads(self.environment.read_text())["record_seconds"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write_environment(
        self,
        stores: list[str],
        store_sha256: str,
        *,
        record_seconds: float | None = None,
        weights: str | None = None,
        weights_sha256: str | None = None,
        pretrained_on: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Versions, machine, command, stores, their records' length and weights, for whoever asks how this came about.

        ``pretrained_on`` is what the weights' own file says (`Pretraining.to_json`).

        What is given by name is written under its name.
        """
        import torch

        packages = ("torch", "lightning", "torchmetrics", "numpy", "scipy", "h5py", "wfdb", "jsonargparse")
        write_json(
            self.environment,
            {
                "ecg_lightning": ecg_lightning.__version__,
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": {name: version(name) for name in packages},
                "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
                "threads": torch.get_num_threads(),
                "store": stores[0] if len(stores) == 1 else stores,
                "store_sha256": store_sha256,
                "record_seconds": record_seconds,
                "weights": weights,
                "weights_sha256": weights_sha256,
                "pretrained_on": [*pretrained_on],
                "note": NO_DEVICE,
            },
        )


def existing_run(path: str | Path) -> RunFolder:
    """The run folder at ``path``.

    Raises:
        UsageError: when there is none.
    """
    run = RunFolder(path)
    if run.state is None or not run.config.exists():
        raise UsageError(f"--run {run.path} holds no run: give the folder that `ecg-lightning fit --run` wrote")
    if run.is_pretraining:
        raise UsageError(
            f"--run {run.path} is a pre-training, it knows no labels: fine-tune its encoder first, with "
            f"`ecg-lightning fit --model.weights {run.encoder} ...`, and name that run"
        )
    return run


def global_step(checkpoint: Path) -> int | None:
    """Optimizer steps behind a checkpoint; None where the file is damaged."""
    import torch

    try:
        with zipfile.ZipFile(checkpoint) as archive:
            if archive.testzip() is not None:  # torch reads a flipped bit without a word
                return None
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(content["global_step"])
    except Exception:  # whatever a torn file makes of the reader, it is not a checkpoint to resume from
        return None


def _let_go() -> None:
    """A forked child that outlives its killed parent must not hold the parent's lock."""
    while _locks:
        _locks.pop().close()


def refuse_unwritable(path: Path, flag: str = "--output") -> None:
    """Refuses, before anything is computed, a place where nothing can be written.

    Raises:
        InputError: where a file stands in a folder's place, or the folder is read-only.
    """
    folder = next(one for one in path.absolute().parents if one.exists())
    if not folder.is_dir():
        raise InputError(f"{flag} {path}: {folder} is a file, it would have to be a folder: choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{flag} {path}: {folder} is read-only: choose another place, or mend its permissions")


os.register_at_fork(after_in_child=_let_go)

"""The run folder: decided first, found again, told apart from one that is in use, complete or somebody else's."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TextIO

import ecg_lightning
from ecg_lightning.errors import InputError, UsageError

Resume = Literal["never", "auto"]
State = Literal["running", "interrupted", "complete"]
PHASES = ("fine_tune", "probe")
"""The last first: the best checkpoint of a run is that of its last phase."""
BEST = {"probe": "probe-best.ckpt", "fine_tune": "finetune-best.ckpt"}
NO_DEVICE = "Research software: not a medical device, not for diagnosis."


class RunFolder:
    """Everything that a run writes: config, checkpoints, metrics, predictions, environment, log, state."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self._lock: TextIO | None = None
        self._new = False

    @property
    def encoder(self) -> Path:
        """The backbone that a pre-training leaves."""
        return self.path / "encoder.safetensors"

    @property
    def is_pretraining(self) -> bool:
        """Whether `pretrain` wrote it."""
        return self.config.exists() and "\npretraining:\n" in self.config.read_text()

    # --- the state ---

    @property
    def state(self) -> State | None:
        """What the folder says of itself; None where there is no run."""
        try:
            state: State = json.loads((self.path / "state.json").read_text())["state"]
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, KeyError, TypeError):
            return "interrupted"
        return state

    def set_state(self, state: State) -> None:
        """Writes the state, whole or not at all."""
        write_json(self.path / "state.json", {"state": state, "host": socket.gethostname(), "pid": os.getpid()})

    @property
    def in_use(self) -> bool:
        """Whether a process trains in it now, this one included."""
        try:
            with (self.path / ".lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def claim(self, resume: Resume) -> None:
        """Takes the folder for this process, until `release` or `give_up`.

        Raises:
            InputError: when another process trains in it, or it holds something that must not be trained over.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--run {self.path} is a file, a run is a folder: choose another name")
        self._new = not self.path.exists() or not any(self.path.iterdir())
        if self.state is None and not self._new and not (self.path / ".lock").exists():
            raise InputError(f"--run {self.path} is a folder without a run in it, and not empty: choose another name")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self.refuse_existing(resume)
        except InputError:
            self.release()
            raise
        for left in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        self.set_state("running")

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
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise InputError(
                f"--run {self.path} is in use by another process that trains in it: wait for it, stop it, or choose "
                "another name"
            ) from None

    def release(self) -> None:
        """Lets the folder go; its lock ends with the process anyway."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def give_up(self) -> None:
        """Takes away what `claim` made, when nothing could be started in it."""
        if self._lock is None:
            return
        if self._new and not any(self.checkpoints.iterdir()):
            shutil.rmtree(self.path)
        else:
            self.set_state("interrupted")
        self.release()

    # --- checkpoints ---

    def newest_checkpoint(self) -> Path | None:
        """The complete checkpoint that is furthest on; damaged files are passed over."""
        steps = {path: global_step(path) for path in sorted(self.checkpoints.glob("*.ckpt"))}
        readable = {path: step for path, step in steps.items() if step is not None}
        # last.ckpt before a best one of the same step: it was written behind it
        return max(readable, key=lambda p: (readable[p], p.name == "last.ckpt"), default=None)

    def damaged_checkpoints(self) -> list[Path]:
        """Those that cannot be read."""
        return [path for path in sorted(self.checkpoints.glob("*.ckpt")) if global_step(path) is None]

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

    # --- what a run writes once ---

    @property
    def store_sha256(self) -> str | None:
        """Hash of the store that the run was trained on."""
        try:
            return str(json.loads(self.environment.read_text())["store_sha256"])
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None

    @property
    def record_seconds(self) -> float | None:
        """Length of the records that the run was trained on."""
        try:
            return float(json.loads(self.environment.read_text())["record_seconds"])
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            return None

    def write_environment(
        self,
        stores: list[str],
        store_sha256: str,
        *,
        record_seconds: float | None = None,
        weights: str | None = None,
        weights_sha256: str | None = None,
    ) -> None:
        """Versions, machine, command, stores, their records' length and weights, for whoever asks how this came about.

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


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes it when all went well: fsync, replace, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")

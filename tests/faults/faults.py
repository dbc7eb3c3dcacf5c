"""Kills a fit at one chosen moment, from inside its own process: named on the command line, unknown to the package."""

import os
import stat
import threading
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from processes import kill_group

Moment = Literal["batch", "time", "torn", "written", "synced", "named"]
WRITES: tuple[Moment, ...] = ("torn", "written", "synced", "named")


class Fault(NamedTuple):
    """A moment: before the `at`-th batch, `at` seconds behind the start, or in the `at`-th write of a whole file.

    `torn` cuts the temporary file as a kill amid its writing would leave it, `written` is before the data is forced
    to the disk, `synced` before the file takes its name, `named` behind that.
    """

    moment: Moment
    at: float
    rank: int = 0

    @property
    def flags(self) -> list[str]:
        values = f'"moment": "{self.moment}", "at": {self.at}, "rank": {self.rank}'
        return ["--trainer.callbacks", f'[{{"class_path": "faults.Killer", "init_args": {{{values}}}}}]']


class Killer(Callback):
    """Kills the whole process group, as a power cut would."""

    def __init__(self, moment: str, at: float, rank: int = 0) -> None:
        self.moment, self.at, self.rank = moment, at, rank
        self.batches = 0
        if moment in WRITES and int(os.environ.get("LOCAL_RANK", "0")) == rank == 0:
            InWrite(moment, int(at))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.moment == "time" and trainer.global_rank == self.rank:
            timer = threading.Timer(self.at, kill_group)
            timer.daemon = True
            timer.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches += 1
        if self.moment == "batch" and trainer.global_rank == self.rank and self.batches == int(self.at):
            kill_group()


class InWrite:
    """Stands between the package and the system's calls, and counts the files that are about to be renamed."""

    def __init__(self, moment: str, number: int) -> None:
        self.moment, self.left = moment, number
        self.fsync, self.replace = os.fsync, Path.replace
        os.fsync = self._fsync  # type: ignore[assignment]
        Path.replace = lambda path, target: self._replace(path, target)  # type: ignore[method-assign,assignment]

    def _fsync(self, file: int) -> None:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode):
            self.left -= 1
            if self.left == 0 and self.moment == "torn":
                if status.st_nlink == 1:  # else it is another name of a file that is complete
                    os.ftruncate(file, status.st_size // 3)
                kill_group()
            if self.left == 0 and self.moment == "written":
                kill_group()
        self.fsync(file)
        if self.left == 0 and self.moment == "synced":
            kill_group()

    def _replace(self, path: Path, target: Path) -> Path:
        done = self.replace(path, target)
        if self.left == 0 and self.moment == "named":
            kill_group()
        return done

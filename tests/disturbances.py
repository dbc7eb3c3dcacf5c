"""What happens to a run: callbacks for the command line that signal, raise, fill a disk or slow a step down."""

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from processes import signal_from_elsewhere

from ecg_lightning.heartbeat import FILE
from ecg_lightning.whole_files import write_json


def disturbed(name: str, **arguments: Any) -> list[str]:
    """Flags of a fit with the callback ``name`` of this file."""
    spec = [{"class_path": f"disturbances.{name}", "init_args": arguments}]
    return ["--trainer.callbacks", json.dumps(spec)]


class _At(Callback):
    """Something at the start of one batch of one epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.place = (epoch, batch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.place:
            self.happen(trainer)

    def happen(self, trainer: Trainer) -> None:
        raise NotImplementedError


class Signalled(_At):
    """A signal to one process, or to the whole group as a terminal sends it, so many times, some time apart."""

    def __init__(
        self, epoch: int, batch: int, number: int, rank: int = 0, times: int = 1, to_group: bool = False
    ) -> None:
        super().__init__(epoch, batch)
        self.number, self.rank, self.times, self.to_group = number, rank, times, to_group

    def happen(self, trainer: Trainer) -> None:
        if trainer.global_rank == self.rank:
            for _ in range(self.times):
                if self.to_group:
                    signal_from_elsewhere(-os.getpgrp(), self.number)
                else:
                    os.kill(os.getpid(), self.number)
                time.sleep(0.1)


class SignalledInValidation(Callback):
    """A signal while an epoch is judged."""

    def __init__(self, epoch: int, number: int) -> None:
        self.epoch, self.number = epoch, number

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch and not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)


class Stopped(_At):
    """The second process stands still for ever, and the first gets a SIGTERM while it waits for it."""

    def happen(self, trainer: Trainer) -> None:
        if trainer.global_rank == 1:
            os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGSTOP)


class Failing(_At):
    """An error amid training: `of device`, `of machine`, `of python` lack memory, `of mind` is any other."""

    def __init__(self, epoch: int, batch: int, kind: str) -> None:
        super().__init__(epoch, batch)
        self.kind = kind

    def happen(self, trainer: Trainer) -> None:
        if self.kind == "of device":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if self.kind == "of machine":
            torch.empty(2**60, dtype=torch.uint8)
        if self.kind == "of python":
            raise MemoryError
        raise ZeroDivisionError("division by zero in a step")


class FullDisk(_At):
    """Fills the disk of ``folder`` to its last byte."""

    def __init__(self, epoch: int, batch: int, folder: str) -> None:
        super().__init__(epoch, batch)
        self.folder = Path(folder)

    def happen(self, trainer: Trainer) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass


class SmallFiles(_At):
    """No file may grow beyond 8 kB from here on."""

    def happen(self, trainer: Trainer) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))


class Slow(Callback):
    """Every batch takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        time.sleep(self.seconds)


class TakenOver(_At):
    """Another machine takes the run in ``folder``: this one was suspended for so long."""

    def __init__(self, epoch: int, batch: int, folder: str) -> None:
        super().__init__(epoch, batch)
        self.folder = Path(folder)

    def happen(self, trainer: Trainer) -> None:
        beat = json.loads((self.folder / FILE).read_text())
        write_json(self.folder / FILE, {**beat, "token": "theirs", "host": "elsewhere"})
        write_json(self.folder / "state.json", {"state": "running", "host": "elsewhere"})

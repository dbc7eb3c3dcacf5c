"""SIGTERM with several processes: all of them end at once, and the run says that it can go on."""

import os
import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ecg_lightning.runs import RunFolder
from ecg_lightning.watch import Watch

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a terminated fit."""


class EndTogether(Callback):
    """On SIGTERM, ends this process and those that it launched, at once.

    Lightning's own way waits for the other processes, which may wait in a collective for this one: two processes
    outlived a SIGTERM to the first by minutes. Ending at once is safe: checkpoints are written whole or not at all.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signal over from Lightning, which set its own handler at the start of the fit."""
        if trainer.world_size == 1:
            return  # nobody to wait for: Lightning ends between two batches

        def end(number: int, frame: FrameType | None) -> None:
            launcher: Any = trainer.strategy.launcher
            for process in getattr(launcher, "procs", None) or []:
                process.kill()
            watch = Watch.of(trainer)
            if watch is not None:
                watch.leave()
            if trainer.is_global_zero or (watch is not None and watch.first_has_ended()):
                self.run.set_state("interrupted")
            os._exit(TERMINATED)

        signal.signal(signal.SIGTERM, end)

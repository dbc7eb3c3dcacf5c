"""Checkpoints of a run: the best of each phase, the last always; written whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from ecg_lightning.errors import UsageError
from ecg_lightning.frozen_backbone import PREFIX, FrozenBackbone, completed
from ecg_lightning.post_training import PostTraining
from ecg_lightning.progress import next_position
from ecg_lightning.runs import BEST, RunFolder, whole_file
from ecg_lightning.tracking import MetricsFile

FROZEN = "frozen backbone"
"""Storage option of a checkpoint whose backbone is frozen: it is written once, not with every checkpoint."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames: a kill at any moment leaves the previous file."""

    def __init__(self) -> None:
        self._frozen = FrozenBackbone()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """As `CheckpointIO` says; ``storage_options`` is `FROZEN` or None."""
        path = Path(path)
        if storage_options == FROZEN:
            checkpoint = self._frozen.taken_out(checkpoint, path.parent)
        with whole_file(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As `CheckpointIO` says, with the backbone that the file may name."""
        return completed(super().load_checkpoint(path, map_location, weights_only), Path(path))


class RunCheckpoints(Checkpoint):
    """Writes `last.ckpt` behind every epoch, `probe-best.ckpt` and `finetune-best.ckpt` where validation says so.

    Selection is by validation macro AUROC, each phase for itself; a tie keeps the earlier epoch. While the backbone is
    frozen they hold all but it, and name it: a large one is not written with every epoch.

    Args:
        run: the run's folder.
        every_n_steps: writes `last.ckpt` inside the epochs as well, each so many batches; None: at their ends only.
    """

    def __init__(self, run: RunFolder, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UsageError(f"--checkpoint_every is {every_n_steps}, it must be 1 or more, or left out")
        self.run, self.every_n_steps = run, every_n_steps
        self.best: dict[str, float] = {}
        self._auroc: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Inside an epoch; its last batch is left to the epoch's end, which follows at once."""
        last = batch_idx + 1 == trainer.num_training_batches
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        due = self.every_n_steps is not None and (batch_idx + 1) % self.every_n_steps == 0
        stopping = trainer.should_stop or trainer.global_step == trainer.max_steps  # max_time, max_steps
        if not last and not accumulating and (due or stopping):
            self.save(trainer, "last.ckpt")
            for file in _metrics_files(trainer):
                file.write_next()  # the trainer logs the row of this step behind its callbacks

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the score of this epoch: `callback_metrics` would give an older one where validation was skipped."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._auroc = float(trainer.callback_metrics.get("val/auroc", float("nan")))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The best first, so that `last.ckpt` knows of it; an epoch that a limit cut short is not judged."""
        if self.is_cut_short(trainer):
            return
        phase = PostTraining.of(trainer).phase_at(trainer.current_epoch)
        auroc, self._auroc = self._auroc, None
        better = auroc is not None and auroc > self.best.get(phase, float("-inf"))
        if auroc is not None and better:
            self.best[phase] = auroc
        if better or phase not in self.best:  # nothing to choose by, so far: the latest
            self.save(trainer, BEST[phase])
            self._link(BEST[phase], "last.ckpt")
        else:
            self.save(trainer, "last.ckpt")

    @staticmethod
    def is_cut_short(trainer: Trainer) -> bool:
        """Whether a limit ended the epoch inside it."""
        return bool(next_position(trainer.fit_loop.state_dict()).batch)

    def save(self, trainer: Trainer, name: str) -> None:
        """Writes a checkpoint, and the figures that belong to it."""
        for file in _metrics_files(trainer):
            file.write()  # a resume goes on behind the rows of its checkpoint
        module = trainer.lightning_module
        trained = any(p.requires_grad for n, p in module.named_parameters() if n.startswith(PREFIX))
        ours = isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
        trainer.save_checkpoint(
            self.run.checkpoints / name, weights_only=False, storage_options=FROZEN if ours and not trained else None
        )

    def state_dict(self) -> dict[str, Any]:
        """Best validation macro AUROC per phase."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """So that a resumed run does not take a worse epoch for its best."""
        self.best = dict(state_dict["best"])

    @rank_zero_only
    def _link(self, name: str, other: str) -> None:
        """Two names of one file, where the file system knows such: what is the same is not written twice."""
        with whole_file(self.run.checkpoints / other) as temporary:
            try:
                temporary.hardlink_to(self.run.checkpoints / name)
            except OSError:
                shutil.copyfile(self.run.checkpoints / name, temporary)


def _metrics_files(trainer: Trainer) -> list[MetricsFile]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]

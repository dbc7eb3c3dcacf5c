"""Checkpoints of a run: the best of each phase, the last always; written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ecg_lightning.errors import UsageError
from ecg_lightning.post_training import PostTraining
from ecg_lightning.progress import next_position
from ecg_lightning.runs import BEST, RunFolder, whole_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames: a kill at any moment leaves the previous file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """As `CheckpointIO` says."""
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class RunCheckpoints(Checkpoint):
    """Writes `last.ckpt` behind every epoch, `probe-best.ckpt` and `finetune-best.ckpt` where validation says so.

    Selection is by validation macro AUROC, each phase for itself; a tie keeps the earlier epoch.

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
            trainer.save_checkpoint(self.run.checkpoints / "last.ckpt", weights_only=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the score of this epoch: `callback_metrics` would give an older one where validation was skipped."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._auroc = float(trainer.callback_metrics.get("val/auroc", float("nan")))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The best first, so that `last.ckpt` knows of it; an epoch that a limit cut short is not judged."""
        if next_position(trainer.fit_loop.state_dict()).batch:
            return
        phase = PostTraining.of(trainer).phase_at(trainer.current_epoch)
        auroc, self._auroc = self._auroc, None
        if auroc is not None and auroc > self.best.get(phase, float("-inf")):
            self.best[phase] = auroc
            trainer.save_checkpoint(self.run.checkpoints / BEST[phase], weights_only=False)
        elif phase not in self.best:  # nothing to choose by, so far: the latest
            trainer.save_checkpoint(self.run.checkpoints / BEST[phase], weights_only=False)
        trainer.save_checkpoint(self.run.checkpoints / "last.ckpt", weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Best validation macro AUROC per phase."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """So that a resumed run does not take a worse epoch for its best."""
        self.best = dict(state_dict["best"])

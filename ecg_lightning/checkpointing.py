"""Checkpoints of a run: the best of each phase, the last always; written whole or not at all."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError

from ecg_lightning.disk_space import out_of_space
from ecg_lightning.errors import UsageError
from ecg_lightning.frozen_backbone import PREFIX, FrozenBackbone, completed
from ecg_lightning.post_training import PostTraining
from ecg_lightning.progress import Position, next_position
from ecg_lightning.runs import BEST, LAST, RunFolder, whole_file
from ecg_lightning.termination import EndOnSignal
from ecg_lightning.tracking import MetricsFile

FROZEN = "frozen backbone"
"""Storage option of a checkpoint whose backbone is frozen: it is written once, not with every checkpoint."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk, then renames: a kill at any moment leaves the previous file."""

    def __init__(self) -> None:
        self._frozen = FrozenBackbone()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """As `CheckpointIO` says; ``storage_options`` is `FROZEN` or None.

        Raises:
            StoppedError: when it cannot be written, as on a full disk.
        """
        path = Path(path)
        try:
            if storage_options == FROZEN:
                checkpoint = self._frozen.taken_out(checkpoint, path.parent)
            with whole_file(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's writer knows no error numbers
            raise out_of_space(error, path.parent) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As `CheckpointIO` says, with the backbone that the file may name."""
        return completed(super().load_checkpoint(path, map_location, weights_only), Path(path))


class Resumed(NamedTuple):
    """What a resume has to know of its checkpoint before it builds anything.

    Attributes:
        position: what is trained next.
        metrics: `metrics.csv` as it was; None in a checkpoint of an older version.
    """

    position: Position
    metrics: str | None


def resumed(checkpoint: Path) -> Resumed:
    """Reads it, not the weights: those stay on the disk."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    state = content["callbacks"].get(RunCheckpoints.__qualname__, {})
    return Resumed(next_position(content["loops"]["fit_loop"]), state.get("metrics"))


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
        self._metrics: MetricsFile | None = None

    @property
    def state_key(self) -> str:
        """Where its state lies in a checkpoint, whichever form of it wrote that."""
        return RunCheckpoints.__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the run's own figures among the trainer's loggers."""
        self._metrics = next((one for one in trainer.loggers if isinstance(one, MetricsFile)), None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Inside an epoch; its last batch is left to the epoch's end, which follows at once."""
        last = batch_idx + 1 == trainer.num_training_batches
        accumulating = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        due = self.every_n_steps is not None and (batch_idx + 1) % self.every_n_steps == 0
        ending = EndOnSignal.of(trainer)
        ends = ending is not None and ending.wants_checkpoint(trainer)
        stopping = trainer.should_stop or trainer.global_step == trainer.max_steps
        if not last and not accumulating and (due or ends or stopping):
            self._log_step(trainer)
            # The others do not know of a signal to this process: they save where all do, and must be met only there.
            self.save(trainer, LAST, alone=not (due or stopping))

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
            give_name(self.run.checkpoints / BEST[phase], LAST)
        else:
            self.save(trainer, LAST)

    @staticmethod
    def is_cut_short(trainer: Trainer) -> bool:
        """Whether a limit ended the epoch inside it."""
        return bool(next_position(trainer.fit_loop.state_dict()).batch)

    def save(self, trainer: Trainer, name: str, *, alone: bool = False) -> None:
        """Writes a checkpoint; ``alone`` leaves out the barrier at its end: weights are equal on all processes."""
        self._check_kept()
        if self._metrics is not None:
            self._metrics.write()
        module = trainer.lightning_module
        trained = any(p.requires_grad for n, p in module.named_parameters() if n.startswith(PREFIX))
        ours = isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
        path, options = self.run.checkpoints / name, FROZEN if ours and not trained else None
        if alone:
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.save_checkpoint(content, path, storage_options=options)
        else:
            trainer.save_checkpoint(path, weights_only=False, storage_options=options)
        if (ending := EndOnSignal.of(trainer)) is not None:
            ending.saved()

    def _log_step(self, trainer: Trainer) -> None:
        """Notes the figures of this step, which the trainer logs behind its callbacks: the checkpoint counts it."""
        others, trainer.loggers = trainer.loggers, [] if self._metrics is None else [self._metrics]
        try:
            trainer._logger_connector.update_train_step_metrics()
        finally:
            trainer.loggers = others

    @rank_zero_only
    def _check_kept(self) -> None:
        self.run.check_kept()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Each call of fit has `trainer.max_time` for itself: a resume of a run that used it up would end at once."""
        for name in [name for name in checkpoint.get("callbacks", ()) if name.startswith(Timer.__qualname__)]:
            del checkpoint["callbacks"][name]

    def state_dict(self) -> dict[str, Any]:
        """Best validation macro AUROC per phase, and the figures so far: no kill can part them from their weights."""
        return {"best": self.best, "metrics": self._metrics.text if self._metrics is not None else ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """So that a resumed run does not take a worse epoch for its best."""
        self.best = dict(state_dict["best"])


@rank_zero_only
def give_name(checkpoint: Path, name: str) -> None:
    """A second name in its folder for a checkpoint, where the file system knows such: it is not written twice."""
    with whole_file(checkpoint.with_name(name)) as temporary:
        try:
            temporary.hardlink_to(checkpoint)
        except OSError:
            shutil.copyfile(checkpoint, temporary)

"""An exponential moving average of the weights over fine-tuning: what is validated, kept as best, and judged.

Source: `EMAWeightAveraging` of Lightning 2.6.
Differs: the average starts with fine-tuning, from the head that the probe leaves: before that nothing is swapped in, so
that the probe's best head is the one that was scored; it is taken from the weights as they are trained (loaded, on
their device, in their precision); an exception inside a validation leaves the trained weights in place.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel

from ecg_lightning.errors import UsageError
from ecg_lightning.post_training import PostTraining


class EMA(EMAWeightAveraging):
    """Averages the weights behind every optimizer step of fine-tuning; buffers (statistics) are the trained ones.

    Args:
        decay: share of the average that stays at each step; over about ``1 / (1 - decay)`` steps.
    """

    knows_phases = True
    """Says so to `ecg_lightning.strategies`."""
    _average_model: AveragedModel

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"EMA's decay is {decay}, it must lie in 0..1, 1 left out")
        super().__init__(use_buffers=False, decay=decay)
        self._averages = self._swapped = False

    @property
    def _begun(self) -> bool:
        """Whether there is an average: behind the first step of fine-tuning."""
        return bool(self._average_model.n_averaged)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """To where the weights are now, in their precision."""
        self._like(pl_module)

    def _like(self, pl_module: LightningModule) -> None:
        parameter = next(pl_module.parameters())
        self._average_model.to(device=parameter.device, dtype=parameter.dtype)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Settles whether the step counts."""
        self._averages = PostTraining.of(trainer).phase_at(trainer.current_epoch) == "fine_tune"

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Behind the steps of fine-tuning."""
        return step_idx is not None and self._averages

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In a fit, validates the average."""
        if trainer.state.fn == "fit" and self._begun:
            self._swap_models(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the trained weights back."""
        self._take_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the trained weights back: a checkpoint that is written now must not hold one for the other."""
        self._take_back(pl_module)

    def _take_back(self, pl_module: LightningModule) -> None:
        if self._swapped:
            self._swap_models(pl_module)

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the network."""
        if self._begun:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The average as the network's weights, the trained ones beside it; in the probe there is nothing to add."""
        if self._begun:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """In a fit, takes up both; what judges a run reads the average alone."""
        if trainer.state.fn == "fit" and "averaging_state" in checkpoint:
            self._like(pl_module)
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

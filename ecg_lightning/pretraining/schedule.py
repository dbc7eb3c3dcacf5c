"""MaskedPretraining: how long, at which rates, and how often a linear probe says what the features are worth."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ecg_lightning.errors import UsageError, joined
from ecg_lightning.optim import HEAD, Shape, scheduled, set_rates
from ecg_lightning.pretraining.autoencoder import MaskedAutoencoder


class MaskedPretraining(Callback):
    """The schedule of a masked pre-training; rates are functions of the step, so that nothing has to be resumed.

    Args:
        epochs: over the training folds of all stores.
        learning_rate: largest rate, of encoder and decoder.
        min_learning_rate: where a cosine ends.
        schedule: constant, or half a cosine over all epochs.
        warmup_epochs: linear rise at the start; fractions are allowed.
        weight_decay: of all weights but biases, norms, tokens and position tables.
        probe_every: every so many epochs, and behind the last, a linear probe on frozen features of the training folds
            is judged on the validation folds: `val/probe_auroc`, `val/probe_auprc`. Nothing is chosen by it. 0: never.
        probe_task: whose labels it reads, of the first entry of data.stores that has them.
        pictures: so many records of the validation folds are drawn at the end, on ECG paper: original, what the encoder
            saw, what was made of the rest. They stay in the run folder.
        share_pictures: they go to Weights & Biases as well, without ids; an ECG is a patient's.
    """

    def __init__(
        self,
        epochs: int = 100,
        learning_rate: float = 1e-3,
        min_learning_rate: float = 0.0,
        schedule: Shape = "cosine",
        warmup_epochs: float = 0.0,
        weight_decay: float = 0.05,
        probe_every: int = 20,
        probe_task: str = "superdiagnostic",
        pictures: int = 3,
        share_pictures: bool = False,
    ) -> None:
        self.epochs, self.learning_rate, self.min_learning_rate = epochs, learning_rate, min_learning_rate
        self.schedule: Shape = schedule
        self.warmup_epochs, self.weight_decay = warmup_epochs, weight_decay
        self.probe_every, self.probe_task = probe_every, probe_task
        self.pictures, self.share_pictures = pictures, share_pictures
        self._check()

    def _check(self) -> None:
        problems = [
            f"pretraining.{name} is {value}, it must not be negative"
            for name, value in vars(self).items()
            if isinstance(value, (int, float)) and not value >= 0  # NaN as well
        ]
        if self.epochs == 0:
            problems.append("pretraining.epochs is 0: nothing to train")
        for name, value, most in (
            ("min_learning_rate", self.min_learning_rate, self.learning_rate),
            ("warmup_epochs", self.warmup_epochs, self.epochs),
        ):
            if value > most:
                problems.append(
                    f"pretraining.{name} is {value}, it must not be above {most:g}: such as --pretraining.{name} "
                    f"{most / 10:g}"
                )
        if problems:
            raise UsageError(joined(problems))

    @staticmethod
    def of(trainer: Trainer) -> "MaskedPretraining":
        """The trainer's own."""
        return next(one for one in trainer.callbacks if isinstance(one, MaskedPretraining))  # type: ignore[attr-defined]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks what it trains, and for how long."""
        if not isinstance(pl_module, MaskedAutoencoder):
            raise UsageError(f"MaskedPretraining trains a MaskedAutoencoder, it was given a {type(pl_module).__name__}")
        if stage == "fit" and trainer.max_epochs != self.epochs:
            raise UsageError(f"trainer.max_epochs is {trainer.max_epochs}, pretraining.epochs {self.epochs}: set one")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the rate of the step: a function of its number."""
        accumulate = trainer.accumulate_grad_batches
        steps_per_epoch = -(-int(trainer.num_training_batches) // accumulate)
        rate = scheduled(
            trainer.current_epoch * steps_per_epoch + batch_idx // accumulate,
            self.epochs * steps_per_epoch,
            peak=self.learning_rate,
            floor=self.min_learning_rate,
            warmup_steps=round(self.warmup_epochs * steps_per_epoch),
            shape=self.schedule,
        )
        layers = {group["layer"] for group in trainer.optimizers[0].param_groups} | {HEAD}
        set_rates(trainer.optimizers[0], dict.fromkeys(layers, rate), self.weight_decay)
        if trainer._logger_connector.should_update_logs:
            pl_module.log("rate", rate)

"""Post-training (the method, 2 of 2): a linear probe of the head, then fine-tuning with stochastic depth.

Source: Zhou et al. 2025 (arXiv 2509.12991): "preview linear probing", then full fine-tuning with stochastic depth;
Kumar et al., ICLR 2022 (arXiv 2202.10054): why the probe comes first.
Differs: both phases are one run, and the phase is a pure function of the epoch, so it can be resumed anywhere.
"""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from ecg_lightning.backbones import Backbone
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.distributed import check_replicas_equal, rewrap
from ecg_lightning.errors import UsageError
from ecg_lightning.frozen_features import fix_windows, forget_features, precompute_features
from ecg_lightning.optim import HEAD, set_rates
from ecg_lightning.phases import FineTune, Phase, Probe, check_phases, frozen_layers, layer_rates
from ecg_lightning.progress import next_position
from ecg_lightning.stochastic_depth import Mode, OverDepth, set_drop_path
from ecg_lightning.strategies import check_trainer

log = logging.getLogger(__name__)


class PostTraining(Callback):
    """Settles what is trained, at which rates, with how much stochastic depth, before every epoch and step.

    Args:
        probe: the first phase.
        fine_tune: the second phase.
        drop_path_rate: probability of dropping a residual branch in the last block, in fine-tuning; 0 turns it off.
        drop_path_over_depth: `linear` from 0 at the first block, or `uniform`.
        drop_path_mode: `mask` computes every branch, `subset` only those of the kept records.
    """

    def __init__(
        self,
        probe: Probe = Probe(),  # noqa: B008
        fine_tune: FineTune = FineTune(),  # noqa: B008
        *,
        drop_path_rate: float = 0.1,
        drop_path_over_depth: OverDepth = "linear",
        drop_path_mode: Mode = "mask",
    ) -> None:
        self.probe, self.fine_tune = probe, fine_tune
        self.drop_path_rate = drop_path_rate
        self.drop_path_over_depth: OverDepth = drop_path_over_depth
        self.drop_path_mode: Mode = drop_path_mode
        check_phases(probe, fine_tune, drop_path_rate)
        self.settled: Phase | None = None
        self.best_auroc = float("-inf")
        self.best_head: dict[str, Tensor] = {}
        self._resumed_at: int | None = None
        self._started = False
        self._windows_fixed = False

    @staticmethod
    def of(trainer: Trainer) -> "PostTraining":
        """The trainer's own."""
        return next(one for one in trainer.callbacks if isinstance(one, PostTraining))  # type: ignore[attr-defined]

    @property
    def max_epochs(self) -> int:
        """Epochs of both phases together."""
        return self.probe.epochs + self.fine_tune.epochs

    @property
    def last_phase(self) -> Phase:
        """The phase that the run ends with."""
        return "fine_tune" if self.fine_tune.epochs else "probe"

    def phase_at(self, epoch: int) -> Phase:
        """Phase of an epoch, counted from 0 over the whole run."""
        return "probe" if epoch < self.probe.epochs else "fine_tune"

    # --- before the DDP wrap: the phase of the epoch that is trained next ---

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the trainer against the phases and settles the first one."""
        if stage != "fit":
            return
        check_trainer(trainer)
        if trainer.max_epochs != self.max_epochs:
            raise UsageError(
                f"trainer.max_epochs is {trainer.max_epochs}, it must be the sum of both phases, "
                f"{self.probe.epochs} + {self.fine_tune.epochs} = {self.max_epochs}: set it so"
            )
        if self.probe.epochs and self.fine_tune.epochs and self.probe.keep == "best" and not trainer.limit_val_batches:
            raise UsageError(
                "post_training.probe.keep is 'best', which needs the validation that trainer.limit_val_batches=0 "
                "turns off: set post_training.probe.keep=last"
            )
        classifier = _ecg_classifier(pl_module)
        layers = classifier.backbone.num_layers
        if self.fine_tune.epochs and self.fine_tune.freeze_layers > layers:
            raise UsageError(
                f"post_training.fine_tune.freeze_layers is {self.fine_tune.freeze_layers}, the backbone has "
                f"{layers + 1}: nothing of it would be trained; set {layers} or less, or fine_tune.epochs=0"
            )
        if classifier.compile_mode is not None and self.drop_path_mode == "subset" and self.drop_path_rate:
            raise UsageError(
                f"model.compile is {classifier.compile_mode!r} and post_training.drop_path_mode is 'subset': how many "
                "records a branch keeps changes with every step, and each number would be compiled anew; "
                "set post_training.drop_path_mode=mask, or leave model.compile out"
            )
        stoppers = [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]
        if stoppers and self.probe.epochs and self.fine_tune.epochs:
            raise UsageError(
                "EarlyStopping would hold fine-tuning against the probe's best score: take it out of "
                "trainer.callbacks; the best checkpoint of each phase is kept anyway"
            )
        self._settle(classifier, self.phase_at(0))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Settles the phase of the epoch behind the checkpoint: DDP wraps what that phase trains."""
        if "loops" not in checkpoint or trainer.state.fn != "fit":
            return
        self._resumed_at = next_position(checkpoint["loops"]["fit_loop"]).epoch
        self._settle(_ecg_classifier(pl_module), self.phase_at(self._resumed_at))

    # --- before training: the live switch, and everything that depends on the phase alone ---

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fixes the probe's windows, and computes its features once, where that is the same."""
        if self.settled != "probe":
            return
        if self.probe.windows:  # no more than there are epochs to see them
            fix_windows(trainer, min(self.probe.windows, self.probe.epochs))
            self._windows_fixed = True
        if self.probe.precompute:
            precompute_features(trainer, _ecg_classifier(pl_module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Covers the resumes that do not start an epoch: inside one."""
        starts = next_position(trainer.fit_loop.state_dict()).batch == 0
        self._enter_epoch(trainer, _ecg_classifier(pl_module), starts=starts)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Covers every start of an epoch."""
        self._enter_epoch(trainer, _ecg_classifier(pl_module), starts=True)

    def _enter_epoch(self, trainer: Trainer, classifier: ECGClassifier, *, starts: bool) -> None:
        epoch = trainer.current_epoch
        phase = self.phase_at(epoch)
        live = phase != self.settled
        if live:
            check_replicas_equal(trainer, classifier)
        self._settle(classifier, phase)
        if starts and epoch == self.probe.epochs > 0 and not self._started:
            self._start_fine_tuning(trainer, classifier)
        if live:
            rewrap(trainer)
        if phase == "fine_tune":
            self._end_probe(trainer, classifier)

    def _start_fine_tuning(self, trainer: Trainer, classifier: ECGClassifier) -> None:
        """The optimizer starts anew (an empty state is a new AdamW), the head from the probe's best or last epoch."""
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
        best = self.probe.keep == "best" and bool(self.best_head)
        if best:
            classifier.head.load_state_dict(self.best_head)
        kept = f"best, validation macro AUROC {self.best_auroc:.4f}" if best else "last"
        log.info(
            "epoch %d: fine-tuning starts; head of the probe kept: %s; stochastic depth %g over depth (%s)",
            trainer.current_epoch, kept, self.drop_path_rate, self.drop_path_over_depth,
        )  # fmt: skip
        self.best_head, self.best_auroc, self._started = {}, float("-inf"), True

    def _settle(self, classifier: ECGClassifier, phase: Phase) -> None:
        """Freezing, modes and drop rates of a phase; changes no weight, may be called again at any time."""
        backbone = classifier.backbone
        classifier.train()
        freeze(backbone, frozen_layers(self.probe if phase == "probe" else self.fine_tune, backbone.num_layers))
        rate = 0.0 if phase == "probe" else self.drop_path_rate
        set_drop_path(backbone, rate, self.drop_path_over_depth, self.drop_path_mode)
        self.settled = phase

    # --- during training ---

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the rates of the step: functions of (layer, phase, step in the phase)."""
        epoch, accumulate = trainer.current_epoch, trainer.accumulate_grad_batches
        steps_per_epoch = -(-int(trainer.num_training_batches) // accumulate)
        probing = self.phase_at(epoch) == "probe"
        plan = self.probe if probing else self.fine_tune
        step = (epoch if probing else epoch - self.probe.epochs) * steps_per_epoch + batch_idx // accumulate
        rates = layer_rates(plan, step, steps_per_epoch, _ecg_classifier(pl_module).backbone.num_layers)
        set_rates(trainer.optimizers[0], rates, plan.weight_decay)
        if trainer._logger_connector.should_update_logs or trainer.fast_dev_run:  # type: ignore[attr-defined]
            # Each figure is a copy to the device that the host waits for: only where it is written down.
            pl_module.log_dict({"rate/head": rates[HEAD], "rate/stem": rates[0], "phase": float(not probing)})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the probe's best head; a tie keeps the earlier."""
        classifier = _ecg_classifier(pl_module)
        if trainer.sanity_checking or trainer.state.fn != "fit" or self.settled != "probe" or classifier.scores is None:
            return
        auroc = classifier.scores.summary()["auroc"]
        if auroc > self.best_auroc:
            self.best_auroc = auroc
            self.best_head = {
                name: tensor.detach().cpu().clone() for name, tensor in classifier.head.state_dict().items()
            }

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What follows may read other records than those whose features are known."""
        self._end_probe(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As behind a fit that went to its end."""
        self._end_probe(trainer, pl_module)

    def _end_probe(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Signals are read again, from windows drawn anew."""
        if isinstance(pl_module, ECGClassifier) and pl_module.frozen_features is not None:
            forget_features(trainer, pl_module)
        if self._windows_fixed:
            fix_windows(trainer, 0)
            self._windows_fixed = False

    # --- the checkpoint: the best head, and the phases' lengths to hold a resume against ---

    def state_dict(self) -> dict[str, Any]:
        """Plain types and tensors only: checkpoints load with ``weights_only=True``."""
        return {"best_auroc": self.best_auroc, "best_head": self.best_head, "probe_epochs": self.probe.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses a probe of another length where it would rewrite the past."""
        past = state_dict["probe_epochs"]
        if (
            self._resumed_at is not None
            and past != self.probe.epochs
            and self._resumed_at >= min(past, self.probe.epochs)
        ):
            raise UsageError(
                f"post_training.probe.epochs is {self.probe.epochs}, the run was trained with {past} and has "
                f"{self._resumed_at} epochs behind it: keep {past}, or start a new run"
            )
        self.best_auroc, self.best_head = state_dict["best_auroc"], state_dict["best_head"]


def freeze(backbone: Backbone, num_layers: int) -> None:
    """Freezes the layers below ``num_layers`` (0 the stem) and frees the others.

    Frozen means: no gradient, and evaluation mode for every module all of whose parameters are frozen, so that
    statistics and random draws rest as well.
    """
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(backbone.layer_of(name) >= num_layers)
    for module in backbone.modules():
        if module.training and _frozen(module):  # what lies in a frozen module rests already
            module.eval()


def _frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _ecg_classifier(module: LightningModule) -> ECGClassifier:
    if not isinstance(module, ECGClassifier):
        raise UsageError(f"PostTraining trains an ECGClassifier, it was given a {type(module).__name__}")
    return module

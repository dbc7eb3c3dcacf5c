"""What a run says on the screen and in its log: our own plan and events; of Lightning, only what a user can act on."""

import logging
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from torch.nn.modules.batchnorm import _BatchNorm

from ecg_lightning.backbones import backbone_card
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.errors import InputError
from ecg_lightning.post_training import PostTraining

_OWN = "ecg_lightning"
_LIGHTNING = "lightning.pytorch"
# Expected here, or advertisements; each is a line of Lightning 2.6 that a user can do nothing about.
_EXPECTED_WARNINGS = (
    r".*module\(s\) in eval mode at the start of training",  # the frozen backbone
    r"The number of training batches .* is smaller than the logging interval",
    r"The `srun` command is available on your system but is not used",  # on a login node, or a machine of one's own
    r"The .*dataloader.* does not have many workers",  # a memory map read in the training process is the fast way
    r".*all_gather.* is deprecated",
    r".*isinstance\(treespec, LeafSpec\)",
    r"Be aware that when using `ckpt_path`, callbacks",  # `test` has no use for the callback that writes checkpoints
    r"You're resuming from a checkpoint that ended before the epoch ended",  # the data module resumes inside it
)
_HIDDEN_LINES = (
    "💡 Tip",
    "Seed set to",
    "GPU available",
    "TPU available",
    "Restoring states from",
    "Loaded model weights",
    "Restored all states",
)


BAR_SECONDS = 0.5
"""Between two looks at the loss."""


class LossBar(RichProgressBar):
    """Rich's bar with the training loss, drawn twice a second: each look at the loss waits for the device.

    Lightning's own reads it, and draws, after every batch.
    """

    _drawn = float("-inf")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draws where it is time, and behind the last batch."""
        now = time.monotonic()
        if now - self._drawn >= BAR_SECONDS or batch_idx + 1 == self.total_train_batches:
            self._drawn = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Adds the loss of the batch just trained."""
        loss = trainer.callback_metrics.get("train/loss")
        return super().get_metrics(trainer, pl_module) | ({} if loss is None else {"train/loss": float(loss)})


def set_up_screen() -> None:
    """Our messages plain on the screen, Lightning's without what is expected or an advertisement."""
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    _set_up_messages()


@rank_zero_only
def _set_up_messages() -> None:
    own = logging.getLogger(_OWN)
    own.setLevel(logging.INFO)
    if not own.handlers:
        handler = _Screen()
        handler.setFormatter(logging.Formatter("%(message)s"))
        own.addHandler(handler)
        own.propagate = False
    for name in (f"{_LIGHTNING}.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Filter) for known in logger.filters):
            logger.addFilter(_Filter())


class _Screen(logging.StreamHandler[TextIO]):
    """Writes to what is standard error now: a process may call several commands, and a test swaps the stream."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


class _LogFile(logging.FileHandler):
    """A full disk must not fill the screen as well: what ends the run is said there by the run itself."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # of the lines that it could not write
            super().close()


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_HIDDEN_LINES)


@rank_zero_only
def log_to_file(path: Path) -> logging.Handler:
    """Adds the run's log file; take the handler off again with `stop_logging`."""
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in (_OWN, _LIGHTNING):
        logging.getLogger(name).addHandler(handler)
    return handler


def note_error(handler: logging.Handler | None, error: BaseException) -> None:
    """Writes an error that ends the fit into the log file alone: on the screen it comes at the end."""
    if handler is not None:
        own = isinstance(error, InputError)  # says all there is to say
        trace = None if own else (type(error), error, error.__traceback__)
        text = str(error) if own else f"{type(error).__name__}: {error}"
        handler.handle(logging.LogRecord(_OWN, logging.ERROR, __file__, 0, text, None, trace))


def stop_logging(handler: logging.Handler | None) -> None:
    """Takes a log file off again."""
    if handler is not None:
        for name in (_OWN, _LIGHTNING):
            logging.getLogger(name).removeHandler(handler)
        handler.close()


def log_plan(plan: PostTraining, classifier: ECGClassifier, data: PTBXLDataModule, trainer: Trainer) -> None:
    """What is about to be trained, in a few lines."""
    log = logging.getLogger(f"{_OWN}.plan")
    backbone, probe, fine_tune = classifier.backbone, plan.probe, plan.fine_tune
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    signal = backbone.signal
    log.info(
        "%s: %.1f M parameters, %d leads at %g Hz, %d time points; task %s, %d labels",
        type(backbone).__name__, parameters / 1e6, len(signal.leads), signal.sampling_rate, signal.num_time_points,
        data.task, len(classifier.label_names),
    )  # fmt: skip
    if probe.epochs:
        log.info(
            "probe: %d epochs, rate %g (%s), head kept: %s",
            probe.epochs, probe.learning_rate, probe.schedule, probe.keep,
        )  # fmt: skip
    if fine_tune.epochs:
        log.info(
            "fine-tuning: %d epochs, rate %g (%s), layer decay %g, stochastic depth %g (%s over depth)",
            fine_tune.epochs, fine_tune.learning_rate, fine_tune.schedule, fine_tune.layer_decay,
            plan.drop_path_rate, plan.drop_path_over_depth,
        )  # fmt: skip
    log.info("%s x %d, precision %s", trainer.strategy.root_device.type, trainer.world_size, trainer.precision)
    warn_of_pretraining(classifier)
    warn_of_empty_statistics(plan, classifier)
    warn_of_own_statistics(plan, classifier, data.batch_size, trainer)


def warn_of_pretraining(classifier: ECGClassifier) -> None:
    """Says so where the published pre-training has seen PTB-XL, or may have: scores on it flatter such weights."""
    name = classifier.backbone.registered_name
    if classifier.weights is None or name is None or classifier.origins.before:  # one's own are not the published
        return
    card = backbone_card(name)
    if card.ptbxl_in_pretraining is not False:
        seen = "was" if card.ptbxl_in_pretraining else "may have been (its card says unknown)"
        logging.getLogger(f"{_OWN}.plan").warning(
            "PTB-XL %s in the pre-training of the published %s, so that scores on it may flatter these weights; "
            "pre-trained on: %s", seen, name, card.pretraining_data,
        )  # fmt: skip


def warn_of_empty_statistics(plan: PostTraining, classifier: ECGClassifier) -> None:
    """Says so where the probe would read through batch norms that have never seen a record, as in a random start.

    In evaluation mode such a norm passes on what it gets, so that features of a deep network can grow by powers of ten.
    """
    empty = [
        name
        for name, module in classifier.backbone.named_modules()
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None and not module.num_batches_tracked
    ]
    if plan.probe.epochs and classifier.weights is None and empty:
        logging.getLogger(f"{_OWN}.plan").warning(
            "the probe freezes a backbone in which %d batch norms, the first %s, have no statistics yet: its features "
            "mean little; load weights (--model.weights FILE), or leave the probe out (--config "
            "recipe/plain_fine_tuning)", len(empty), empty[0],
        )  # fmt: skip


def warn_of_own_statistics(plan: PostTraining, classifier: ECGClassifier, batch_size: int, trainer: Trainer) -> None:
    """Says so where several processes fine-tune a network with batch norms that each takes over its own records."""
    norms = [name for name, module in classifier.backbone.named_modules() if isinstance(module, _BatchNorm)]
    synchronised = getattr(trainer.strategy, "_layer_sync", None) is not None
    if trainer.world_size == 1 or not plan.fine_tune.epochs or not norms or synchronised:
        return
    way_out = "on one, or on GPUs with" if trainer.strategy.root_device.type == "cpu" else "with"
    logging.getLogger(f"{_OWN}.plan").warning(
        "%d batch norms, the first %s, take their statistics over each process's part of a batch, %g records: what is "
        "trained depends on the number of processes; train %s --trainer.sync_batchnorm true",
        len(norms), norms[0], batch_size / trainer.world_size, way_out,
    )  # fmt: skip

"""The command pretrain: from stores without labels to encoder.safetensors, in a run folder as `fit` has it."""

import logging
from argparse import SUPPRESS
from collections.abc import Sequence
from inspect import signature
from itertools import pairwise
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from ecg_lightning.checkpointing import RunCheckpoints
from ecg_lightning.cli_flags import joined_lists
from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.disk_space import ADAM_MOMENTS, Need
from ecg_lightning.pretraining.autoencoder import MaskedAutoencoder
from ecg_lightning.pretraining.encoder_file import write_encoder
from ecg_lightning.pretraining.masking import num_visible
from ecg_lightning.pretraining.pictures import draw_reconstructions
from ecg_lightning.pretraining.probe_signal import ProbeSignal
from ecg_lightning.pretraining.schedule import MaskedPretraining
from ecg_lightning.run_cli import RunCLI, value_of
from ecg_lightning.runs import LAST, RunFolder, write_json
from ecg_lightning.screen import set_up_screen
from ecg_lightning.tracking import WandbTracker
from ecg_lightning.training import resumed_arguments, run_training, train_from_newest

log = logging.getLogger(__name__)


class PretrainCLI(RunCLI):
    """As `RunCLI`, over the masked autoencoder and unlabelled ECGs."""

    trains = "pretrain"
    model_of_run = MaskedAutoencoder
    data_of_run = UnlabelledECGs
    judged_splits = ("val",)
    group = "pretraining"
    lengths = ("pretraining.epochs",)
    of_the_call = (*RunCLI.of_the_call, "post_training")

    def add_training_arguments(self, parser: LightningArgumentParser) -> None:
        """The schedule; what a backbone's config says of post-training is for `fit`."""
        parser.add_argument("--post_training", type=dict[str, Any] | None, default=None, help=SUPPRESS)
        parser.add_lightning_class_args(MaskedPretraining, self.group)
        parser.link_arguments("pretraining.epochs", "trainer.max_epochs")

    @property
    def objective(self) -> str:
        """What is learnt, in words."""
        return f"masked auto-encoding, {self.model.mask_ratio:.0%} masked"

    def training_callbacks(self) -> list[Callback]:
        """The last checkpoint alone: the loss says little of which epoch makes the better features."""
        return [
            ProbeSignal(),
            LastCheckpoint(self.run_folder, self.config_init.checkpoint_every),
        ]


class LastCheckpoint(RunCheckpoints):
    """Writes `last.ckpt` behind every epoch, and inside it where asked for."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is chosen by validation."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch that a limit cut short has its checkpoint already."""
        if not self.is_cut_short(trainer):
            self.save(trainer, LAST)


def pretrain(arguments: Sequence[str]) -> int:
    """Starts or continues a pre-training; exit codes as of `fit`."""
    set_up_screen()
    run = RunFolder(value_of("--run", arguments) or "")
    cli = PretrainCLI("pretrain", resumed_arguments(run, _with_stores_joined(arguments)))
    if cli.nothing_left:
        log.info("%s is complete, nothing is left to train", run.path)
        return 0
    return run_training(cli, _train)


def _with_stores_joined(arguments: Sequence[str]) -> Sequence[str]:
    """``--data.stores A.h5 B.h5`` means ``--data.stores '["A.h5", "B.h5"]'``, which may be written as well."""
    flag = "--data.stores"
    written = any(value.startswith("[") for name, value in pairwise([*arguments, ""]) if name == flag) or any(
        argument.startswith(f"{flag}=[") for argument in arguments
    )
    return arguments if written else joined_lists(arguments, {flag})


def _train(cli: RunCLI) -> bool:
    """All epochs, and what comes of them."""
    complete = train_from_newest(cli, _need(cli.model), lambda: _log_plan(cli))
    if complete:
        _write_outcome(cli)
    return complete


def _need(model: MaskedAutoencoder) -> Need:
    """Bytes of the checkpoint, of the next one until it takes its place, and of the encoder."""
    weights, encoder = (
        sum(one.numel() * one.itemsize for one in part.parameters()) for part in (model, model.backbone)
    )
    size = weights * (1 + ADAM_MOMENTS)
    return Need({LAST: size, "the next one, until it takes its place": size, "encoder.safetensors": encoder})


def _log_plan(cli: RunCLI) -> None:
    """What is about to be trained, in a few lines."""
    model, plan, trainer = cli.model, MaskedPretraining.of(cli.trainer), cli.trainer
    backbone, patches = model.backbone, model.backbone.num_patches
    sizes = [sum(parameter.numel() for parameter in part.parameters()) / 1e6 for part in (backbone, model.decoder)]
    log.info(
        "%s: %.1f M parameters, its decoder %.1f M; %d of %d patches visible",
        type(backbone).__name__, *sizes, num_visible(patches, model.mask_ratio), patches,
    )  # fmt: skip
    for one in model.origins.before:
        log.info("its weights were trained on %s", one)
    for one in model.origins.here:
        log.info("trains on %s", one)
    log.info("%d epochs, rate %g (%s)", plan.epochs, plan.learning_rate, plan.schedule)
    log.info("%s x %d, precision %s", trainer.strategy.root_device.type, trainer.world_size, trainer.precision)


@rank_zero_only
def _write_outcome(cli: RunCLI) -> None:
    """The encoder with its card, the last figures, the pictures."""
    run, plan, backbone = cli.run_folder, MaskedPretraining.of(cli.trainer), cli.model.backbone
    history = cli.model.origins.history
    built = signature(type(backbone)).parameters
    named = dict(cli.config.model.backbone.get("init_args") or {})
    sizes = {name: value for name, value in named.items() if not _is_default(value, built[name].default)}
    # Of the file: of a run that was killed behind its last checkpoint, this call's trainer knows none.
    figures = {name: value for row in cli.metrics_file.rows for name, value in row.items() if name.startswith("val/")}
    judged = {name.removeprefix("val/"): float(value) for name, value in sorted(figures.items())}
    path = write_encoder(run.path, backbone, sizes, history, judged)
    write_json(run.path / "metrics_pretraining.json", {**judged, "trained_on": [one.to_json() for one in history]})
    pictures = draw_reconstructions(cli.trainer, cli.model, cli.datamodule, run.path)
    for tracker in cli.loggers:
        if isinstance(tracker, WandbTracker) and plan.share_pictures:
            tracker.log_image("reconstructions", [str(one) for one in pictures])
    log.info("%s: to be fine-tuned with: ecg-lightning fit --model.weights %s ...", path, path)
    if pictures:
        log.info("%s: %d pictures", pictures[0].parent, len(pictures))


def _is_default(value: Any, default: Any) -> bool:
    return bool(
        (list(value) if isinstance(value, tuple) else value)
        == (list(default) if isinstance(default, tuple) else default)
    )

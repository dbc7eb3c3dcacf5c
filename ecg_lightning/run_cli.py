"""LightningCLI in and out of a run folder: what it parses, and what it adds to the trainer."""

import re
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from functools import reduce
from itertools import pairwise
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ecg_lightning.backbones import weights_digest
from ecg_lightning.backbones.hub import is_on_hub
from ecg_lightning.checkpointing import AtomicCheckpointIO, RunCheckpoints
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.config_names import config_folder, settled_arguments
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError, UsageError, joined
from ecg_lightning.post_training import PostTraining
from ecg_lightning.resuming import refuse_on_complete
from ecg_lightning.runs import Resume, RunFolder
from ecg_lightning.screen import LossBar
from ecg_lightning.strategies import check_strategy, check_trainer
from ecg_lightning.termination import EndOnSignal
from ecg_lightning.tracking import MetricsFile
from ecg_lightning.watch import PATIENCE, Watch

_DESCRIPTIONS = {
    "pretrain": "Makes a backbone: masked auto-encoding of ECGs, labels unread.",
    "fit": "Post-trains a backbone: a linear probe, then full fine-tuning with stochastic depth.",
    "validate": "Judges a run on its validation folds, with the best checkpoint of its last phase.",
    "test": "Judges a run on its test folds, with the best checkpoint of its last phase.",
}
_TRAINER_DEFAULTS = {
    "logger": False,
    "use_distributed_sampler": False,  # the data module deals out the records itself, none twice
    "log_every_n_steps": 10,
    "enable_model_summary": False,
}


class RunCLI(LightningCLI):
    """LightningCLI over classifier, data module and trainer, with the phases as a group of their own, and a run.

    Raises:
        UsageError: for what the parser refuses.
    """

    trains = "fit"
    """The command that trains; others judge."""
    model_of_run: type[LightningModule] = ECGClassifier
    data_of_run: type[PTBXLDataModule] = PTBXLDataModule
    lengths: tuple[str, ...] = ("post_training.probe.epochs", "post_training.fine_tune.epochs")
    """The arguments that say for how long."""
    of_the_call: tuple[str, ...] = (
        *("config", "run", "resume", "checkpoint_every", "patience", "checkpoint", "overwrite", "even_seen"),
    )
    """Arguments that say what to do with a run, and are no part of it."""
    judged_splits: tuple[str, ...] = ("val", "test")
    """Which must not have been seen by the weights that it starts from."""
    group = "post_training"
    """Of the arguments that say how it is trained."""

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        self.command, self.given = command, " ".join(arguments)
        self.nothing_left = False
        self.run_folder = RunFolder(value_of("--run", arguments) or "")
        with warnings.catch_warnings():
            # It warns whenever a process has arguments of its own; `main(argv)` is meant to be called from Python too.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            super().__init__(
                self.model_of_run,
                self.data_of_run,
                save_config_callback=None,
                seed_everything_default=42,
                trainer_defaults=_TRAINER_DEFAULTS,
                parser_kwargs={
                    "description": _DESCRIPTIONS[command],
                    "prog": f"ecg-lightning {command}",
                    "usage": f"ecg-lightning {command} [--config NAME ...] [--GROUP.NAME VALUE ...] --run RUN",
                    "exit_on_error": False,
                    "allow_abbrev": False,  # `--data.stor` is a slip, not a flag
                },
                auto_configure_optimizers=False,
                args=settled_arguments(arguments),
                run=False,
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run, the phases, and what follows from something else."""
        parser.add_argument("--run", type=str, help="the run folder", required=True)
        if self.command == self.trains:
            parser.add_argument("--resume", type=Resume, default="never", help="auto: start, or go on where it stopped")
            parser.add_argument(
                "--checkpoint_every", type=int | None, default=None, help="batches between checkpoints in an epoch"
            )
            parser.add_argument(
                "--patience",
                type=float,
                default=PATIENCE,
                help="of several processes: seconds without progress (a batch, a checkpoint) after which all end",
            )
        else:
            parser.add_argument("--checkpoint", type=str | None, default=None, help="another checkpoint than the best")
            parser.add_argument("--overwrite", action="store_true", help="replace results of another checkpoint")
            parser.add_argument(
                "--even_seen", action="store_true", help="judge folds that the weights were trained on: flattering"
            )
        self.add_training_arguments(parser)
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("seed_everything", "data.seed")
        shown: Any = parser
        shown._action_groups.remove(trainer := shown.groups["trainer"])
        shown._action_groups.append(trainer)  # last in the help: Lightning's own, longer than all the others

    def add_training_arguments(self, parser: LightningArgumentParser) -> None:
        """The phases, and what follows from them and from the data."""
        parser.add_lightning_class_args(PostTraining, self.group)
        parser.link_arguments(
            ("post_training.probe.epochs", "post_training.fine_tune.epochs"), "trainer.max_epochs", compute_fn=_sum
        )
        parser.link_arguments("data.label_names", "model.label_names", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """One message in place of the parser's usage, which is longer than a screen."""
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            given = [Path(value) for flag, value in pairwise(args) if flag == "--config"]
            configs = [str(path) for path in given if not path.is_relative_to(config_folder())]
            places = f" in {', '.join(configs)} or a flag" if configs else ""
            meant = self._meant(str(error), parser)
            raise UsageError(
                f"{str(error).strip()}{places}{meant}\n(`ecg-lightning {self.command} --help` lists what it takes)"
            ) from None
        if problems := _problems_of(self.config):
            raise UsageError(f"{joined(problems)}: change these flags, or the config that sets them")

    def _meant(self, problem: str, parser: LightningArgumentParser) -> str:
        """What else was probably meant: another flag, another run."""
        known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        hints = []
        for flag in re.findall(r"(--[^\s=]+)", problem) if "nrecognized arguments" in problem else ():
            last = [option for option in known if option.rpartition(".")[2] == flag.removeprefix("--")]
            if close := get_close_matches(flag, known, n=1, cutoff=0.8) or last[:1]:
                hints.append(f"for {flag} there is {close[0]}")
        if "arguments are required" in problem and "--resume" in self.given and not self.run_folder.config.exists():
            hints.append(f"{self.run_folder.path} holds no run yet: the first call names all that it is made of")
        return "".join(f"; {hint}" for hint in hints)

    def before_instantiate_classes(self) -> None:
        """Takes the run folder before anything can write into it, and tells the tracker where it is."""
        if Path(self.config.run) != self.run_folder.path:  # a config named it, or named another
            raise UsageError(f"run is {self.config.run} in a config: name the run folder by the flag --run")
        check_strategy(self.config.trainer.strategy)
        if self.command == self.trains:
            self.nothing_left = self._nothing_left()
            if self.nothing_left:
                return
            self.run_folder.claim_on_rank_zero(self.config.resume)
        for logger in _listed(self.config.trainer.logger):
            if getattr(logger, "class_path", "").endswith("WandbTracker"):
                logger.init_args.folder = str(self.run_folder.path)

    def _nothing_left(self) -> bool:
        """Whether `--resume auto` meets a run that is complete, and as it is asked for.

        Raises:
            UsageError: when it asks for another run, or for more epochs: its schedules ended with the last one.
        """
        if self.config.resume != "auto" or self.run_folder.state != "complete":
            return False
        done = yaml.safe_load(self.run_folder.config.read_text())
        for name in self.lengths:
            asked, trained = self.config[name], reduce(getitem, name.split("."), done)
            if trained is not None and asked != trained:
                raise UsageError(
                    f"{name} is {asked}, the run is complete with {trained}, and its learning rates have run out: "
                    "choose another --run"
                )
        self.pin_weights()
        now = yaml.safe_load(self.run_config())
        self._refuse_another_store(done["data"], now["data"])
        refuse_on_complete(done, now, sum(reduce(getitem, name.split("."), done) for name in self.lengths))
        return True

    def _refuse_another_store(self, was: dict[str, Any], now: dict[str, Any]) -> None:
        """A store may have moved; without a flag nobody asks for another, and it may be gone."""
        name = "store" if "store" in now else "stores"
        if was.get(name) == now[name]:
            return
        trained, asked = self.run_folder.store_sha256, StoreSet(now[name]).sha256
        if trained is not None and asked != trained:
            raise UsageError(
                f"the run is complete, trained on a store of sha256 {trained[:12]}, data.{name} {now[name]} is of "
                f"{asked[:12]}: take it back, or choose another --run"
            )

    def instantiate_classes(self) -> None:
        """Gives the folder back as it was found when the config cannot be built."""
        if self.nothing_left:
            return
        try:
            super().instantiate_classes()
        except BaseException:
            self.run_folder.give_up()
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the run's own logger, checkpoints and progress bar to those of the config."""
        trainer = self.config_init.trainer
        fitting = self.command == self.trains
        self.metrics_file = MetricsFile(self.run_folder.path / "metrics.csv")
        self.loggers = [self.metrics_file, *_listed(trainer.logger)] if fitting else []
        callbacks: list[Callback] = _listed(trainer.callbacks)
        if trainer.enable_progress_bar is not False:
            callbacks.append(LossBar(leave=False))
        if fitting:
            callbacks += self.training_callbacks()
            self.ending = EndOnSignal()
            self.watch = Watch(self.run_folder, self.config_init.patience)
            callbacks += [self.ending, self.watch]
        try:
            built = super().instantiate_trainer(
                logger=self.loggers or False,
                callbacks=callbacks,
                plugins=[AtomicCheckpointIO(), *_listed(trainer.plugins)],
                default_root_dir=str(self.run_folder.path),
                enable_checkpointing=fitting,
            )
        except (MisconfigurationException, ValueError) as error:  # what its arguments may be, Lightning alone knows
            if isinstance(error, InputError):
                raise
            named = re.search(r"\b([a-z_]+)=", str(error))  # such as Trainer(devices=0)
            flag = f"--trainer.{named[1] if named else 'NAME'}"
            raise UsageError(f"the trainer refuses its arguments: {str(error).rstrip('.')}: change {flag}") from None
        if fitting:
            check_trainer(built)  # here, before it starts other processes
            self.watch.settle_timeout(built)
        return built

    @property
    def objective(self) -> str:
        """What is learnt, in words."""
        return f"labels of task {self.datamodule.task}"

    @property
    def post_training(self) -> PostTraining:
        """The phases of the run."""
        return PostTraining.of(self.trainer)

    def training_callbacks(self) -> list[Callback]:
        """What a training writes."""
        return [RunCheckpoints(self.run_folder, self.config_init.checkpoint_every)]

    def pin_weights(self) -> None:
        """Writes the weights' hash into the config where none was asked for: a run says what it started from.

        Raises:
            InputError: when there is no such file.
        """
        model = self.config.model
        if model.weights is not None and model.weights_sha256 is None:
            model.weights_sha256 = weights_digest(model.weights)

    def run_config(self, format: str = "yaml") -> str:
        """The complete config of the run, without what was said about this call alone."""
        config = self.config.clone()
        for name in self.of_the_call:
            config.pop(name, None)
        name = "store" if "store" in config.data else "stores"
        store = config.data[name]  # a run is read from any folder
        config.data[name] = _absolute(store) if isinstance(store, str) else [_absolute(one) for one in store]
        if config.model.weights is not None and not is_on_hub(config.model.weights):
            config.model.weights = _absolute(config.model.weights)
        return str(self.parser.dump(config, format=format, skip_none=False, skip_validation=True))


def _problems_of(config: Any) -> list[str]:
    """Numbers that the parser and the trainer let through, and with which something else would be trained."""
    seed, trainer = config.seed_everything, config.trainer
    clip = trainer.gradient_clip_val
    rules = (
        ("seed_everything", seed, "must be from 0 to 4294967295", isinstance(seed, bool) or 0 <= seed < 2**32),
        ("trainer.gradient_clip_val", clip, "must be above 0, or left out", clip is None or clip > 0),
        *(
            (f"trainer.{name}", trainer[name], "must be above 0", trainer[name] is None or trainer[name] > 0)
            for name in ("accumulate_grad_batches", "limit_train_batches", "limit_val_batches")
        ),
    )
    return [f"{name} is {value}, it {rule}" for name, value, rule, kept in rules if not kept]


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """A flag's value before the parser runs: the run folder is decided first."""
    value = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == flag:
            value = following
        elif argument.startswith(f"{flag}="):
            value = argument.partition("=")[2]
    return value


def _listed(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _sum(*epochs: int) -> int:
    return sum(epochs)

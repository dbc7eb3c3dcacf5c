"""What can be known before the first run: every command line is parsed, its folds, store and weights looked at."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.backbones.hub import is_on_hub
from ecg_lightning.backbones.provenance import pretraining_of
from ecg_lightning.config_names import settled_arguments
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.errors import InputError, UsageError, joined
from ecg_lightning.experiment.plan import Run
from ecg_lightning.phases import FineTune, Probe, check_phases
from ecg_lightning.run_cli import RunCLI
from ecg_lightning.seen_records import refuse_seen


@dataclass(frozen=True)
class Facts:
    """What a run's config and data say of it.

    Attributes:
        backbone: its class and arguments, as JSON.
        epochs: of the probe, of fine-tuning.
        train_records: number of training records.
        devices: number of processes that it trains on.
        tracked: whether it has a Weights & Biases tracker.
        store_sha256: hash of the store's tables.
    """

    backbone: str
    epochs: tuple[int, int]
    train_records: int
    devices: int
    tracked: bool
    store_sha256: str


@dataclass
class Checks:
    """Parses the runs of a grid and looks at their data; what is the same for several runs is looked at once."""

    _cli: RunCLI | None = None
    _data: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)

    def facts_of(self, runs: Sequence[Run]) -> dict[str, Facts]:
        """The facts of every run, by its name.

        Raises:
            InputError: naming all that is wrong, and the runs; UsageError where it is a flag or a config.
        """
        facts: dict[str, Facts] = {}
        wrong: dict[str, list[str]] = {}
        usage = False
        for run in runs:
            try:
                facts[run.name] = self._facts(run)
            except InputError as error:
                usage |= isinstance(error, UsageError)
                wrong.setdefault(str(error), []).append(run.name)
        if wrong:
            problems = [f"{_named(names, len(runs))}: {message}" for message, names in wrong.items()]
            raise (UsageError if usage else InputError)(joined(problems, limit=5))
        return facts

    def _facts(self, run: Run) -> Facts:
        config = self._config(run)
        probe, fine_tune = _made(Probe, config.post_training.probe), _made(FineTune, config.post_training.fine_tune)
        check_phases(probe, fine_tune, config.post_training.drop_path_rate)
        backbone = json.dumps(_plain(config.model.backbone), sort_keys=True)
        weights = config.model.weights
        if weights is not None and not is_on_hub(weights) and not Path(weights).is_file():
            raise InputError(f"model.weights is {weights}, which is no file: give the path of a checkpoint")
        train_records, store_sha256 = self._look_at(config.data, backbone, weights)
        return Facts(
            backbone=backbone,
            epochs=(probe.epochs, fine_tune.epochs),
            train_records=train_records,
            devices=num_devices(config.trainer),
            tracked="WandbTracker" in str(config.trainer.logger),
            store_sha256=store_sha256,
        )

    def _config(self, run: Run) -> Namespace:
        """Parsed as `fit` does, by the parser of one RunCLI: building it costs more than parsing."""
        arguments = [*run.arguments, "--run", run.name]
        try:
            if self._cli is None:
                self._cli = _OnlyParsed("fit", arguments)
            config: Namespace = self._cli.parser.parse_args(settled_arguments(arguments))
        except ArgumentError as error:
            raise UsageError(_with_way_out(str(error))) from None
        except UsageError as error:
            raise UsageError(_with_way_out(str(error))) from None
        return config

    def _look_at(self, config: Namespace, backbone: str, weights: str | None) -> tuple[int, str]:
        """Opens the store, holds it against backbone and weights, refuses an empty split; training records and hash."""
        flags = config.as_dict()
        if flags["train_fraction"] == 1:
            del flags["seed"]  # it chooses no records
        key = (json.dumps(flags, sort_keys=True, default=str), backbone, str(weights))
        if key not in self._data:
            data = PTBXLDataModule(**config.as_dict())
            network = json.loads(backbone)
            signal = backbone_signal(network["class_path"], **network.get("init_args", {}))
            data.use_signal(signal, network["class_path"].rpartition(".")[2])
            if weights is not None and not is_on_hub(weights):
                refuse_seen(f"model.weights {weights}", pretraining_of(weights), data, RunCLI.judged_splits)
            sizes = {name: len(data.split(name)) for name in ("train", "val", "test")}
            self._data[key] = sizes["train"], data.stores.sha256
        return self._data[key]


class _OnlyParsed(RunCLI):
    """Builds nothing and claims no folder."""

    def before_instantiate_classes(self) -> None:
        """Nothing."""

    def instantiate_classes(self) -> None:
        """Nothing."""


def num_devices(trainer: Namespace) -> int:
    """Processes that a trainer starts, as far as its flags say so: `auto` is every GPU, or one CPU."""
    devices, nodes = trainer.devices, int(trainer.num_nodes)
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        devices = [one for one in devices.split(",") if one] if "," in devices else int(devices)
    if devices in ("auto", -1, "-1"):
        import torch

        on_gpu = trainer.accelerator in ("auto", "gpu", "cuda")
        return max(1, torch.cuda.device_count() if on_gpu else 1) * nodes
    return (len(devices) if isinstance(devices, list) else int(devices)) * nodes


def _made(kind: Callable[..., Any], config: Namespace) -> Any:
    return kind(**config.as_dict())


def _plain(config: Namespace) -> Mapping[str, Any]:
    return json.loads(json.dumps(config.as_dict(), default=str))  # type: ignore[no-any-return]


def _named(names: Sequence[str], of: int) -> str:
    if len(names) == of:
        return "all runs" if of > 1 else names[0]
    return f"{names[0]}" if len(names) == 1 else f"{len(names)} runs (the first is {names[0]})"


def _with_way_out(message: str) -> str:
    """What the parser says, and how a grid's command line mends it."""
    first = message.split("\n(`ecg-lightning fit --help`")[0]
    if "required: data.store" in first or 'Key "data.store" is required' in first:
        return f"{first}: add --data.store STORE"
    if "model.backbone" in first and "required" in first:
        return f"{first}: name one for all runs, such as --config backbone/vit"
    return f"{first} (`ecg-lightning fit --help` lists what runs take, `experiment --help` what the grid takes)"

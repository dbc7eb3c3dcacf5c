"""The phase switch under DDP with what the trainer offers: each row of the table runs, or is refused at start."""

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy
from processes import compiled_by, run_commands
from tiny import norm_net, of_lightning_cli, plan, tiny_classifier, tiny_vit

from ecg_lightning import strategies
from ecg_lightning.backbones import Backbone, backbone_signal
from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare
from ecg_lightning.post_training import freeze
from ecg_lightning.runs import RunFolder
from ecg_lightning.screen import warn_of_own_statistics
from ecg_lightning.watch import Watch

pytestmark = of_lightning_cli

# 24 records train in batches of 7 (the last one of 3 cannot be shared evenly), 6 validate, 6 test.
FLAGS = [
    *("--model.backbone", "vit", "--model.backbone.depth", "2", "--model.backbone.dim", "12"),
    *("--model.backbone.patch", "[12, 50]", "--data.task", "superdiagnostic", "--data.batch_size", "7"),
    *("--data.train_folds", "[1, 2, 3, 4, 5, 6]", "--data.val_folds", "[7, 8]", "--data.test_folds", "[9, 10]"),
    *("--post_training.probe.epochs", "2", "--post_training.probe.learning_rate", "0.01"),
    *("--post_training.fine_tune.epochs", "2", "--post_training.drop_path_rate", "0.5"),
    *("--post_training.fine_tune.learning_rate", "0.001", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"),
]
DOUBLE = ["--trainer.precision", "64-true"]
SUBSET = ["--post_training.drop_path_mode", "subset", "--post_training.drop_path_over_depth", "uniform"]
AVERAGE = '{"class_path": "ecg_lightning.averaging.EMA", "init_args": {"decay": 0.8}}'


class Feature(NamedTuple):
    """Flags of any number of processes, and what is asked of DDP."""

    flags: list[str]
    ddp: str = ""


FEATURES = {
    "gradient accumulation": Feature([*DOUBLE, "--trainer.accumulate_grad_batches", "3"]),
    "gradient clipping, by norm": Feature([*DOUBLE, "--trainer.gradient_clip_val", "0.05"]),
    "gradient clipping, by value": Feature(
        [*DOUBLE, "--trainer.gradient_clip_val", "0.001", "--trainer.gradient_clip_algorithm", "value"]
    ),
    "mixed precision (bf16-mixed)": Feature(
        ["--trainer.precision", "bf16-mixed", "--post_training.probe.keep", "last"]  # the best may be another epoch's
    ),
    "torch.compile": Feature([*DOUBLE, *compiled_by("aot_eager")]),
    "EMA (`ecg_lightning.averaging.EMA`)": Feature([*DOUBLE, "--trainer.callbacks", f"[{AVERAGE}]"]),
    "static_graph": Feature(DOUBLE, "static_graph"),
    "find_unused_parameters": Feature(DOUBLE, "find_unused_parameters"),
    "gradient_as_bucket_view": Feature(DOUBLE, "gradient_as_bucket_view"),
    "stochastic depth in subset mode": Feature([*DOUBLE, *SUBSET], "static_graph"),
    "frozen layers in fine-tuning": Feature([*DOUBLE, "--post_training.fine_tune.freeze_layers", "2"]),
    "an uneven last batch": Feature(DOUBLE),
}
REFUSED = {
    "SyncBatchNorm on a CPU": (["--trainer.sync_batchnorm", "true"], "torch has no SyncBatchNorm"),
    "static_graph with gradient accumulation": (
        ["--trainer.accumulate_grad_batches", "2", "--trainer.strategy", "STATIC"],
        "reducer fails in a first step",
    ),
    "FSDP, DeepSpeed, model parallelism": (["--trainer.strategy", "fsdp"], "fits a device whole"),
    "processes by spawn or fork": (["--trainer.strategy", "ddp_spawn"], "is lost when they end"),
    "post-local SGD": (["--trainer.strategy", "LOCAL_SGD"], "averages replicas now and then"),
    "Lightning's weight averaging": (["--trainer.callbacks+=EMAWeightAveraging"], "use ecg_lightning.averaging.EMA"),
    "Lightning's finetuning callbacks": (
        ["--trainer.callbacks+=BackboneFinetuning"],
        "post_training says what is frozen",
    ),
    "GradientAccumulationScheduler": (
        ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling", '{"0": 2}'],
        "use trainer.accumulate_grad_batches",
    ),
    "Lightning's distributed sampler": (["--trainer.use_distributed_sampler", "true"], "set it to false"),
}
OTHER_STRATEGIES = {
    "deepspeed_stage_2": "fits a device whole",
    "ddp_notebook": "is lost when they end",
    "xla": "choose one of",
}


def ddp(argument: str = "", value: Any = True) -> str:
    """A strategy for a flag."""
    arguments = {argument: value} if argument else {}
    return json.dumps({"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": arguments})


@pytest.fixture(scope="session")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(num_records=38), path, backbone_signal("vit"), workers=1, progress=False)
    return path


def test_each_row_of_the_table_is_run_or_refused() -> None:
    assert strategies.__doc__ is not None
    rows = [line.split(" | ") for line in strategies.__doc__.splitlines() if line.startswith("| ")][1:]
    written = {name.removeprefix("| "): said.startswith("refused: ") for name, said in rows}
    assert written == {**dict.fromkeys(FEATURES, False), **dict.fromkeys(REFUSED, True)}


# --- what works ---


@pytest.fixture(scope="session")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each feature's fit on 1 and on 2 processes: ``runs / "2" / NAME``, with each process's own weights inside."""
    folder = tmp_path_factory.mktemp("features")
    for processes in (1, 2):
        (folder / str(processes)).mkdir()
        run_commands(folder, processes, [fit_flags(folder, store, name, processes) for name in FEATURES])
    return folder


def fit_flags(folder: Path, store: Path, name: str, processes: int) -> list[str]:
    run = folder / str(processes) / place(name)
    write = json.dumps([{"class_path": "processes.WriteReplica", "init_args": {"folder": str(run)}}])
    flags = [*FLAGS, "--data.store", str(store), "--run", str(run), *FEATURES[name].flags]
    if "--trainer.callbacks" in flags:
        value = flags.index("--trainer.callbacks") + 1
        flags[value] = f"{flags[value][:-1]}, {write[1:]}"
    else:
        flags += ["--trainer.callbacks", write]
    strategy = ["--trainer.strategy", ddp(FEATURES[name].ddp)] if processes > 1 else []
    return ["fit", *flags, "--trainer.devices", str(processes), *strategy]


def place(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def replica(runs: Path, processes: int, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(
        runs / str(processes) / place(name) / f"rank{rank}.pt", weights_only=True
    )
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURES)
def test_replicas_are_bit_identical_behind_both_phases(name: str, runs: Path) -> None:
    first, second = (replica(runs, 2, name, rank) for rank in (0, 1))
    assert [tensor for tensor in first if not torch.equal(first[tensor], second[tensor])] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FEATURES if "bf16" not in name])
def test_two_processes_train_the_weights_of_one_with(name: str, runs: Path) -> None:
    one, two = (replica(runs, processes, name) for processes in (1, 2))
    assert one["head.weight"].dtype == torch.float64
    assert max(float((one[tensor] - two[tensor]).abs().max()) for tensor in one) < 1e-9


@pytest.mark.slow
def test_two_processes_of_mixed_precision_train_nearly_the_weights_of_one(runs: Path) -> None:
    """bfloat16 keeps 8 bits: sums over parts of a batch are rounded another way than over the whole."""
    one, two = (replica(runs, processes, "mixed precision (bf16-mixed)") for processes in (1, 2))
    moved = 0.01 * 2 * 4  # the head's rate times the probe's steps
    assert max(float((one[tensor] - two[tensor]).abs().max()) for tensor in one) < 0.1 * moved


@pytest.mark.slow
def test_each_feature_changes_what_is_trained(runs: Path) -> None:
    """What a feature is compared in above would be equal as well if its flag had been lost."""
    plain = replica(runs, 1, "an uneven last batch")
    same = (
        "static_graph",
        "find_unused_parameters",
        "gradient_as_bucket_view",
        "torch.compile",
        "an uneven last batch",
    )
    unchanged = [
        name
        for name in FEATURES
        if name not in same and torch.equal(plain["head.weight"], replica(runs, 1, name)["head.weight"].double())
    ]
    assert unchanged == []


# --- what is refused ---


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason_and_nothing_left_behind(
    name: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, reason = REFUSED[name]
    named = {"STATIC": ddp("static_graph"), "LOCAL_SGD": ddp("model_averaging_period", 4)}
    given = ["--data.store", str(store), "--run", str(tmp_path / "run"), "--trainer.strategy", ddp()]
    given += ["--trainer.devices", "2", *(named.get(flag, flag) for flag in flags)]
    assert main(["fit", *FLAGS, *given]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("strategy", OTHER_STRATEGIES)
def test_a_strategy_of_another_kind_is_refused(
    strategy: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data.store", str(store), "--run", str(tmp_path / "run"), "--trainer.strategy", strategy]
    assert main(["fit", *FLAGS, *given, "--trainer.devices", "2"]) == 2
    error = capsys.readouterr().err
    assert strategy in error
    assert OTHER_STRATEGIES[strategy] in error
    assert not (tmp_path / "run").exists()


# --- what is said, and settled ---


def trainer_of(**arguments: Any) -> Trainer:
    """Built as for two processes; none is started."""
    given = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "logger": False, "use_distributed_sampler": False}
    return Trainer(**{**given, **arguments})


@pytest.mark.parametrize(
    ("network", "phases", "devices", "warned"),
    [
        (norm_net, (1, 1), 2, True),
        (norm_net, (1, 1), 1, False),
        (norm_net, (1, 0), 2, False),
        (tiny_vit, (1, 1), 2, False),
    ],
    ids=["batch norms", "one process", "never trained", "no batch norm"],
)
def test_a_network_with_batch_norms_is_told_of_sync_batchnorm(
    network: Callable[[], Backbone],
    phases: tuple[int, int],
    devices: int,
    warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_own_statistics(plan(*phases), tiny_classifier(network()), 7, trainer_of(devices=devices))
    said = "2 batch norms, the first norms.0, take their statistics over each process's part of a batch, 3.5 records"
    assert (said in caplog.text) == warned
    assert ("--trainer.sync_batchnorm true" in caplog.text) == warned


def test_sync_batchnorm_keeps_names_modes_and_what_is_frozen() -> None:
    """Its arithmetic needs GPUs; that the frozen norms rest, and the phases find them, does not."""
    classifier = tiny_classifier(norm_net())
    freeze(classifier.backbone, classifier.backbone.num_layers + 1)
    names = [*classifier.state_dict()]
    TorchSyncBatchNorm().apply(classifier)
    norms = [module for module in classifier.backbone.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert len(norms) == 2
    assert [*classifier.state_dict()] == names
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    classifier.train()
    freeze(classifier.backbone, 0)
    assert all(norm.training and norm.weight.requires_grad for norm in norms)


@pytest.mark.parametrize(("patience", "timeout"), [(1800.0, 1860), (7200.0, 7260), (20.0, 600)])
def test_collectives_wait_a_little_longer_than_the_watch(patience: float, timeout: int, tmp_path: Path) -> None:
    trainer = trainer_of()
    Watch(RunFolder(tmp_path), patience).settle_timeout(trainer)
    assert trainer.strategy._timeout == timedelta(seconds=timeout)


def test_a_timeout_of_the_config_stands(tmp_path: Path) -> None:
    trainer = trainer_of(strategy=DDPStrategy(timeout=timedelta(seconds=77)))
    Watch(RunFolder(tmp_path)).settle_timeout(trainer)
    assert trainer.strategy._timeout == timedelta(seconds=77)


def test_no_patience_at_all_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data.store", str(store), "--run", str(tmp_path / "run"), "--patience", "0"]
    assert main(["fit", *FLAGS, *given]) == 2
    assert "--patience is 0.0, it must be above 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

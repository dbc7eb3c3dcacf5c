"""What of Lightning's trainer both phases run under; what they cannot is refused before anything is computed.

| feature | over the phase switch, 2 processes against 1 |
|---|---|
| gradient accumulation | the same weights |
| gradient clipping, by norm | the same weights |
| gradient clipping, by value | the same weights |
| mixed precision (bf16-mixed) | replicas equal bit for bit; weights as near as bfloat16 rounds |
| torch.compile | the same weights |
| EMA (`ecg_lightning.averaging.EMA`) | the same weights |
| static_graph | the same weights |
| find_unused_parameters | the same weights |
| gradient_as_bucket_view | the same weights |
| stochastic depth in subset mode | the same weights |
| frozen layers in fine-tuning | the same weights |
| an uneven last batch | the same weights |
| SyncBatchNorm on a CPU | refused: torch has none there |
| static_graph with gradient accumulation | refused: torch's reducer fails in the first step |
| FSDP, DeepSpeed, model parallelism | refused: they shard a network that one device holds |
| processes by spawn or fork | refused: what they know of the run is lost with them |
| post-local SGD | refused: its replicas differ on purpose |
| Lightning's weight averaging | refused: it takes both phases for one |
| Lightning's finetuning callbacks | refused: the phases say what is frozen |
| GradientAccumulationScheduler | refused: the rates count the steps of an epoch |
| Lightning's distributed sampler | refused: records would be padded, or dealt out twice |

"The same weights": float64, to 1e-9. tests/test_strategies.py runs, or refuses, each row.
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from ecg_lightning.errors import UsageError, joined

_KNOWN = ("auto", "single_device", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
_WAY_OUT = "use trainer.strategy=ddp, or auto"
_SHARDS = (
    "a network of these sizes fits a device whole, and the phase switch stands on whole replicas and one optimizer: "
    f"{_WAY_OUT}"
)
_LOSES = f"what its processes know of the run, figures and position, is lost when they end: {_WAY_OUT}"
_CALLBACKS: tuple[tuple[type, str], ...] = (
    (WeightAveraging, "averages over both phases as if they were one: use ecg_lightning.averaging.EMA"),
    (StochasticWeightAveraging, "sets learning rates of its own: use ecg_lightning.averaging.EMA"),
    (BaseFinetuning, "freezes by rules of its own: take it out; post_training says what is frozen when"),
    (
        GradientAccumulationScheduler,
        "changes the number of steps in an epoch, which the learning rates are counted in: use "
        "trainer.accumulate_grad_batches",
    ),
)


def check_strategy(named: Any) -> None:
    """Holds ``trainer.strategy``, as a config gives it, against what both phases run under.

    Raises:
        UsageError: before the trainer is built, which has other words for some of them.
    """
    path = getattr(named, "class_path", "")
    name = named if isinstance(named, str) else path.rpartition(".")[2] if path.startswith("lightning.") else ""
    if not name or name in (*_KNOWN, "DDPStrategy", "SingleDeviceStrategy"):
        return  # one of the user's own is seen when it is built
    if name.startswith("ddp"):
        raise UsageError(f"trainer.strategy is {name}: {_LOSES}")
    if name.lower().startswith(("fsdp", "deepspeed", "modelparallel")):
        raise UsageError(f"trainer.strategy is {name}: {_SHARDS}")
    raise UsageError(f"trainer.strategy is {name}, both phases run under {', '.join(_KNOWN)}: choose one of these")


def check_trainer(trainer: Trainer) -> None:
    """Refuses, all at once, what would fail or train something else, some of it only behind the whole probe.

    Raises:
        UsageError: with the reason and the way out of each.
    """
    problems = [*_of_strategy(trainer), *_of_callbacks(trainer)]
    if problems:
        raise UsageError(joined(problems))


def _of_strategy(trainer: Trainer) -> list[str]:
    strategy: Strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        if isinstance(strategy, SingleDeviceStrategy):
            return []
        return [f"trainer.strategy is {type(strategy).__name__}, both phases run under one device or DDP: {_WAY_OUT}"]
    problems = []
    if strategy._start_method != "popen":
        problems.append(f"trainer.strategy starts processes by {strategy._start_method}: {_LOSES}")
    if strategy._model_averaging_period is not None:
        problems.append("trainer.strategy averages replicas now and then, which differ in between: leave that out")
    if strategy._ddp_kwargs.get("static_graph") and trainer.accumulate_grad_batches > 1:
        problems.append(
            f"trainer.strategy has static_graph, trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: "
            "torch's reducer fails in a first step without a reduction; leave one of them out"
        )
    if strategy._layer_sync is not None and strategy.root_device.type == "cpu":
        problems.append(
            "trainer.sync_batchnorm is true on a CPU, where torch has no SyncBatchNorm, and would say so only behind "
            "the probe: leave it out, or train on GPUs"
        )
    if trainer._accelerator_connector.use_distributed_sampler:
        problems.append(
            "trainer.use_distributed_sampler is true, it would pad the records that the data module deals out once "
            "each: set it to false"
        )
    return problems


def _of_callbacks(trainer: Trainer) -> list[str]:
    return [
        f"{type(callback).__name__} in trainer.callbacks {reason}"
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        for kind, reason in _CALLBACKS
        if isinstance(callback, kind) and not getattr(callback, "knows_phases", False)
    ]

"""The two phases in numbers: how long, what is frozen, which learning rate at which step; all plain data."""

from dataclasses import dataclass
from typing import Literal

from ecg_lightning.errors import UsageError, joined
from ecg_lightning.optim import HEAD, Shape, layer_scale, scheduled

Phase = Literal["probe", "fine_tune"]


@dataclass(frozen=True)
class Probe:
    """The linear probe: the backbone is frozen, the head is trained.

    Args:
        epochs: 0 leaves the probe out (plain fine-tuning).
        learning_rate: largest rate of the head.
        min_learning_rate: where a cosine ends.
        schedule: constant, or half a cosine over the phase.
        warmup_epochs: linear rise at the start; fractions are allowed.
        weight_decay: of the head's weight.
        keep: head that fine-tuning starts from: of the epoch with the best validation macro AUROC, or the last.
        precompute: compute the frozen backbone's features once, where nothing random precedes them.
        windows: of each training record longer than the network's input, taken in turn over the epochs; 0 draws
            another in each epoch, whose features cannot be computed once.
    """

    epochs: int = 30
    learning_rate: float = 1e-3
    min_learning_rate: float = 0.0
    schedule: Shape = "constant"
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    keep: Literal["best", "last"] = "best"
    precompute: bool = True
    windows: int = 0


@dataclass(frozen=True)
class FineTune:
    """Full fine-tuning: all layers are trained, under stochastic depth.

    Args:
        epochs: 0 leaves fine-tuning out (a linear probe).
        learning_rate: largest rate, of the head and the last layer.
        min_learning_rate: where a cosine ends.
        schedule: constant, or half a cosine over the phase.
        warmup_epochs: linear rise at the start; fractions are allowed.
        weight_decay: of all weights but biases, norms, tokens and position tables.
        layer_decay: factor on the learning rate per layer towards the input; 1 for none.
        freeze_layers: so many layers from the input stay frozen: 1 is the stem, 2 the stem and the first block.
    """

    epochs: int = 30
    learning_rate: float = 1e-4
    min_learning_rate: float = 0.0
    schedule: Shape = "cosine"
    warmup_epochs: float = 0.0
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    freeze_layers: int = 0


def layer_rates(plan: Probe | FineTune, step: int, steps_per_epoch: int, num_layers: int) -> dict[int | str, float]:
    """Learning rate of each layer, and of the head, at an optimizer step of a phase; a frozen layer's is 0."""
    rate = scheduled(
        step,
        plan.epochs * steps_per_epoch,
        peak=plan.learning_rate,
        floor=plan.min_learning_rate,
        warmup_steps=round(plan.warmup_epochs * steps_per_epoch),
        shape=plan.schedule,
    )
    frozen = frozen_layers(plan, num_layers)
    decay = 1.0 if isinstance(plan, Probe) else plan.layer_decay
    rates: dict[int | str, float] = {HEAD: rate}
    for layer in range(num_layers + 1):
        rates[layer] = 0.0 if layer < frozen else rate * layer_scale(layer, num_layers, decay)
    return rates


def frozen_layers(plan: Probe | FineTune, num_layers: int) -> int:
    """So many layers from the input are frozen: all of the backbone's in the probe."""
    return num_layers + 1 if isinstance(plan, Probe) else plan.freeze_layers


def check_phases(probe: Probe, fine_tune: FineTune, drop_path_rate: float) -> None:
    """Refuses numbers that cannot be meant, all at once.

    Raises:
        UsageError: naming each flag.
    """
    problems = [
        f"post_training.{phase}.{name} is {value}, it must not be negative"
        for phase, plan in (("probe", probe), ("fine_tune", fine_tune))
        for name, value in vars(plan).items()
        if isinstance(value, (int, float)) and not value >= 0  # NaN as well
    ]
    for phase, plan in (("probe", probe), ("fine_tune", fine_tune)):
        for name, value, most in (
            ("min_learning_rate", plan.min_learning_rate, plan.learning_rate),
            ("warmup_epochs", plan.warmup_epochs, plan.epochs),
        ):
            if plan.epochs and value > most:
                problems.append(f"post_training.{phase}.{name} is {value}, it must not be above {most:g}")
    if probe.epochs + fine_tune.epochs == 0:
        problems.append("post_training.probe.epochs and post_training.fine_tune.epochs are both 0: nothing to train")
    if not 0 < fine_tune.layer_decay <= 1:
        problems.append(
            f"post_training.fine_tune.layer_decay is {fine_tune.layer_decay}, it must lie in 0..1, 0 left out"
        )
    if not 0 <= drop_path_rate < 1:
        problems.append(f"post_training.drop_path_rate is {drop_path_rate}, it must lie in 0..1, 1 left out")
    if problems:
        raise UsageError(joined(problems))

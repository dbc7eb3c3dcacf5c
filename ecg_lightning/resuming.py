"""A run that is gone on with by another config: what is different, what that does, and what cannot be changed any more.

Flags win. The past stands: what would have made another run of the epochs behind the checkpoint is refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ecg_lightning.errors import UsageError
from ecg_lightning.progress import Position

PAST = "refused: "
_OTHER_RUN = PAST + "the run was trained with it from its first step"
_ROUNDING = "the same steps, rounded otherwise"
_NOTHING = "none on the weights"
_SAME_STORE = "none: the content is the same"
_FIGURES_ELSEWHERE, _FIGURES_OFTEN = "figures go elsewhere", "figures more or less often"
_FOLLOWS = "follows from the phases"
_OF_NO_MATTER = {_ROUNDING, _NOTHING, _SAME_STORE, _FIGURES_ELSEWHERE, _FIGURES_OFTEN, _FOLLOWS}
# The first that a name begins with says what a change does; the longest stand first where they overlap.
_EFFECTS: Sequence[tuple[str, str]] = (
    ("seed_everything", _OTHER_RUN),
    ("data.seed", _OTHER_RUN),
    ("model.seed", _OTHER_RUN),
    ("data.task", PAST + "it makes another set of labels"),
    ("data.train_folds", PAST + "records of one split would have been seen in another"),
    ("data.val_folds", PAST + "scores would not compare with those of the epochs before"),
    ("data.test_folds", "none in fit: `test` reads these folds"),
    ("data.train_fraction", PAST + "records would be trained on that were left out so far, or the reverse"),
    ("data.min_likelihood", PAST + "it makes other labels"),
    ("data.keep", PAST + "it makes another set of records"),
    ("data.store", _SAME_STORE),
    ("data.batch_size", "other batches, and steps per epoch, from here on"),
    ("data.shuffle_records", "another order from here on"),
    ("data.weights", "another mixture from here on"),
    ("data.num_workers", _NOTHING),
    ("data.residency", _NOTHING),
    ("model.weights_sha256", PAST + "the run started from these weights"),
    ("model.weights", "none: the checkpoint brings all weights"),
    ("model.pos_weight", PAST + "the weights of the loss were settled at the start"),
    ("model.compile", _ROUNDING),
    ("model.label_names", PAST + "it makes another set of labels"),
    ("model.backbone", "another network from here on, if its tensors have the same shapes; refused otherwise"),
    ("model", "from here on"),
    ("post_training.probe.precompute", _ROUNDING),
    ("trainer.accelerator", _ROUNDING),
    ("trainer.devices", _ROUNDING),
    ("trainer.num_nodes", _ROUNDING),
    ("trainer.strategy", _ROUNDING),
    ("trainer.precision", "other rounding from here on"),
    ("trainer.sync_batchnorm", "other statistics from here on, on several processes"),
    ("trainer.accumulate_grad_batches", "fewer or more steps per epoch from here on"),
    ("trainer.gradient_clip", "other steps from here on"),
    ("trainer.max_epochs", _FOLLOWS),
    ("trainer.max_time", _NOTHING),
    ("trainer.logger", _FIGURES_ELSEWHERE),
    ("trainer.callbacks", "whatever they do, from here on"),
    ("trainer.enable", _NOTHING),
    ("trainer.log_every_n_steps", _FIGURES_OFTEN),
    ("trainer.limit_train_batches", "shorter or longer epochs from here on"),
    ("trainer.limit_val_batches", "scores of another number of records from here on"),
    ("trainer", "as Lightning has it, from here on"),
)


class Difference(NamedTuple):
    """One entry of the config: what it ``was`` and ``is``, and what that does."""

    name: str
    was: Any
    now: Any
    effect: str

    @property
    def refused(self) -> bool:
        """Whether it would change the past."""
        return self.effect.startswith(PAST)


def differences(was: Mapping[str, Any], now: Mapping[str, Any], position: Position | None) -> list[Difference]:
    """What two configs of a run differ in, in the order of their names.

    Args:
        was: of the run so far.
        now: of this call.
        position: what the newest checkpoint has behind it; None where there is none, so that nothing is past.
    """
    before, after = dict(_leaves(was)), dict(_leaves(now))
    differing = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    found = []
    for name in differing:
        effect = "the run begins anew: it has no checkpoint" if position is None else _effect(name, was, now, position)
        found.append(Difference(name, before.get(name), after.get(name), effect))
    return found


def refuse_past(found: Sequence[Difference]) -> None:
    """Refuses a change of the past.

    Raises:
        UsageError: naming all of them, with both sides.
    """
    refused = [
        f"{one.name} was {_shown(one.was)}, is {_shown(one.now)} ({_reason(one)})" for one in found if one.refused
    ]
    if refused:
        raise UsageError(
            f"the run cannot go on so: {'; '.join(refused)}: take it back, or start anew under another --run"
        )


def refuse_on_complete(was: Mapping[str, Any], now: Mapping[str, Any], num_epochs: int) -> None:
    """Refuses what a run would have been trained by, were it not complete: it would have no effect, and seem to have.

    What its config does not name at all is of another version of this package, and asked for by nobody.

    Args:
        was: the run's config.
        now: of this call.
        num_epochs: of the run.

    Raises:
        UsageError: naming all of it, with both sides.
    """
    known = dict(_leaves(was))
    found = [one for one in differences(was, now, Position(num_epochs, 0)) if one.name in known]
    if asked := [one for one in found if one.effect not in _OF_NO_MATTER]:
        told = "; ".join(f"{one.name} was {_shown(one.was)}, is {_shown(one.now)}" for one in asked)
        raise UsageError(
            f"the run is complete, so nothing would be trained by what is asked now: {told}: take it back, or choose "
            "another --run"
        )


def table(found: Sequence[Difference]) -> str:
    """The differences in columns: name, was, is, effect."""
    rows = [("", "was", "is", "effect"), *((d.name, _shown(d.was), _shown(d.now), d.effect) for d in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def _effect(name: str, was: Mapping[str, Any], now: Mapping[str, Any], position: Position) -> str:
    if name.startswith("post_training."):
        of_phase = _effect_on_phases(name.removeprefix("post_training."), was, now, position)
        if of_phase is not None:
            return of_phase
    if name == "pretraining.epochs" and position.epoch > now["pretraining"]["epochs"]:
        return f"{PAST}the run has {position.epoch} epoch(s) behind it"
    if name in ("data.batch_size", "data.weights", "data.shuffle_records") and position.batch:
        return (
            f"{PAST}the newest checkpoint stands inside an epoch, {position.batch} of its batches behind it; go on "
            "without it to the end of the epoch"
        )
    if name == "trainer.precision" and _weight_type(was) != _weight_type(now):
        return f"{PAST}the checkpoint's weights are of another type"
    return next((effect for start, effect in _EFFECTS if name.startswith(start)), "from here on")


def _effect_on_phases(name: str, was: Mapping[str, Any], now: Mapping[str, Any], position: Position) -> str | None:
    former, asked = was["post_training"], now["post_training"]
    probe_epochs = former["probe"]["epochs"]
    in_probe = position.epoch < probe_epochs
    if name == "probe.epochs":
        if position.epoch >= min(probe_epochs, asked["probe"]["epochs"]):
            return f"{PAST}the run has {position.epoch} epoch(s) behind it"
        return "the probe ends later or earlier; so do its schedules, from here on"
    if name == "fine_tune.epochs":
        if position.epoch > asked["probe"]["epochs"] + asked["fine_tune"]["epochs"]:
            return f"{PAST}the run has {position.epoch} epoch(s) behind it"
        return "fine-tuning ends later or earlier; so do its schedules, from here on"
    of_probe, of_fine_tuning = name.startswith("probe."), name.startswith(("fine_tune.", "drop_path"))
    if of_probe and not in_probe:
        return "none any more: the probe is over"
    if of_fine_tuning and in_probe:
        return "none so far: fine-tuning is still to come"
    if name == "probe.windows":
        return "the probe sees other windows from here on"
    return None if name == "probe.precompute" else "from here on"


def _weight_type(config: Mapping[str, Any]) -> str:
    precision = str(config["trainer"]["precision"] or "32-true")
    return precision.removesuffix("-true") if precision.endswith("-true") or precision in ("16", "64") else "32"


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _reason(one: Difference) -> str:
    return one.effect.removeprefix(PAST)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str) if isinstance(value, (list, dict, bool)) or value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

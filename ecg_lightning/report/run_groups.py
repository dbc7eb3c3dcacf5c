"""Which runs are seeds of one thing, and which thing is the plain fine-tuning that others are held against.

A run's *setting* is what it was trained and tested on: store, task, fraction, folds, backbone, weights. Its *recipe* is
how: phases, rates, batches. Runs that share both, and differ in their seed, are one group. Cells of an experiment with
an axis `fold` that share both but for their folds, each of which tests other ones, are one cross-validation: their
predictions are pooled. Which experiment a run is a cell of plays no further part: the same run in two counts once.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ecg_lightning.report.cross_validation import FOLDS, folds_of, parts_by_folds, start_of
from ecg_lightning.report.run_files import ReadRun

Key = tuple[tuple[str, str], ...]
_OF_TRAINER = ("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.accumulate_grad_batches")
"""Of the Trainer's arguments those that change what is learnt; the others say how it is shown, and where it runs."""
_NOT_LEARNT = (
    *("data.num_workers", "data.store", "model.weights", "model.weights_sha256"),
    "data.residency",  # where the signals lie: batches are the same to the bit
    "model.compile",  # the same network, as other kernels compute it
    "post_training.probe.precompute",  # the frozen backbone's features, computed once in place of every epoch
)
_OF_RECIPE = ("data.batch_size", "data.shuffle_records", "data.weights")


@dataclass(frozen=True)
class Group:
    """Seeds of one recipe in one setting.

    Attributes:
        label: what a reader calls the recipe.
        task: of the runs.
        fraction: of the training patients.
        setting: what they were trained and tested on.
        recipe: how.
        seeds: ascending.
        members: (seed, fold) the runs; one fold but in a cross-validation.
    """

    label: str
    task: str
    fraction: float
    setting: Key
    recipe: Key
    seeds: tuple[int, ...]
    members: tuple[tuple[ReadRun, ...], ...]

    @property
    def runs(self) -> list[ReadRun]:
        """All runs, seed by seed."""
        return [run for folds in self.members for run in folds]

    @property
    def first(self) -> ReadRun:
        """Stands for all where they are alike."""
        return self.members[0][0]

    @property
    def is_cross_validation(self) -> bool:
        """Whether the predictions of several folds are pooled."""
        return max(map(len, self.members)) > 1

    @property
    def is_plain(self) -> bool:
        """Plain fine-tuning: no probe before it, no stochastic depth in it."""
        return phases_of(self.first) == (False, True) and not drop_path_rate(self.first)


def drop_path_rate(run: ReadRun) -> float:
    """The largest rate of stochastic depth, 0 without."""
    return float(run.setting("post_training.drop_path_rate", 0) or 0)


def phases_of(run: ReadRun) -> tuple[bool, bool]:
    """Whether a run has a probe, and whether it has fine-tuning."""
    return tuple(bool(run.setting(f"post_training.{phase}.epochs", 0)) for phase in ("probe", "fine_tune"))  # type: ignore[return-value]


def recipe_in_words(run: ReadRun) -> str:
    """What a run without an experiment is called."""
    probe, fine_tune = phases_of(run)
    if not fine_tune:
        return "linear probe"
    depth = drop_path_rate(run)
    if not probe:
        return f"fine-tuning (drop path {depth:g})" if depth else "plain fine-tuning"
    return f"probe + fine-tuning (drop path {depth:g})" if depth else "probe + fine-tuning"


def grouped(runs: Sequence[ReadRun]) -> tuple[list[Group], list[str]]:
    """The groups in the order of their first runs, and which runs repeat others; runs without a config are in none."""
    with_config = [run for run in runs if run.config]
    labels = _labels(with_config)
    groups: list[Group] = []
    repeats: list[str] = []
    for cell in _cells(with_config).values():
        for part in parts_by_folds(cell):
            groups.append(_group(part, labels[id(part[0])], repeats))
    told = f"{len(repeats)} run(s) share setting, recipe and seed with another, which is judged: {'; '.join(repeats)}"
    return _told_apart(groups), [told] if repeats else []


def plain_of(group: Group, groups: Iterable[Group]) -> Group | None:
    """The plain fine-tuning of the same setting, the most alike in all else; None for a plain one itself."""
    same = [one for one in groups if one.is_plain and one.setting == group.setting and _start_alike(one, group)]
    return None if group.is_plain else min(same, key=lambda one: _distance(one, group), default=None)


def _start_alike(one: Group, other: Group) -> bool:
    """Whether no fold starts from other weights: the setting of a cross-validation says only that there are some."""
    weights = [dict(start_of(run) for run in group.runs) for group in (one, other)]
    return all(weights[0][folds] == weights[1][folds] for folds in weights[0].keys() & weights[1].keys())


def _distance(plain: Group, group: Group) -> int:
    """In how many settings besides the phases' own the two recipes differ."""
    rest = [{(k, v) for k, v in one.recipe if not k.startswith("post_training.")} for one in (plain, group)]
    return len(rest[0] ^ rest[1])


def _cells(runs: Sequence[ReadRun]) -> dict[Hashable, list[ReadRun]]:
    """Runs that are alike but for seed and folds."""
    cells: dict[Hashable, list[ReadRun]] = defaultdict(list)
    for run in runs:
        setting, recipe = keys_of(run, any_weights="fold" in run.values)
        cells[tuple(pair for pair in setting if pair[0] not in FOLDS), recipe].append(run)
    return cells


def _group(runs: Sequence[ReadRun], label: str, repeats: list[str]) -> Group:
    """One group; of runs with the same seed and folds the first, the others are told in ``repeats``."""
    by_seed: dict[int, dict[tuple[str, ...], ReadRun]] = defaultdict(dict)
    for run in runs:
        kept = by_seed[int(run.setting("seed_everything", 0))].setdefault(folds_of(run), run)
        if kept is not run:
            repeats.append(f"{shown(run)} repeats {shown(kept)}")
    first, pooled = runs[0], len({folds_of(run) for run in runs}) > 1
    weights = {run.environment.get("weights_sha256") for run in runs}
    setting, recipe = keys_of(first, any_weights=len(weights) > 1)
    return Group(
        label,
        str(first.setting("data.task", "labels")),
        float(first.setting("data.train_fraction", 1.0)),
        tuple(pair for pair in setting if not pooled or pair[0] not in FOLDS),
        recipe,
        tuple(sorted(by_seed)),
        tuple(tuple(by_seed[seed].values()) for seed in sorted(by_seed)),
    )


def shown(run: ReadRun) -> str:
    """What a run is called among others."""
    return f"{run.source}/{run.name}" if run.source else run.name


def keys_of(run: ReadRun, *, any_weights: bool = False) -> tuple[Key, Key]:
    """Setting and recipe of a run, but for its seed.

    ``any_weights``: a cross-validation may start each fold from weights of its own.
    """
    setting: dict[str, str] = {
        "store": str(run.environment.get("store_sha256")),
        "weights": str(run.environment.get("weights_sha256")),
    }
    if any_weights:
        setting["weights"] = str(run.environment.get("weights_sha256") is not None)
    recipe: dict[str, str] = {}
    for name, value in flat(run.config):
        room = name.split(".")[0]
        if name in _NOT_LEARNT or room not in ("model", "data", "post_training", "trainer"):
            continue
        if room == "trainer" and name not in _OF_TRAINER:
            continue
        of_setting = name.startswith(("model.backbone", "data.")) and name not in _OF_RECIPE
        (setting if of_setting else recipe)[name] = str(value)
    return tuple(sorted(setting.items())), tuple(sorted(recipe.items()))


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted names."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _labels(runs: Sequence[ReadRun]) -> dict[int, str]:
    """What each run's recipe is called; the same recipe is called the same on every task and fraction."""
    sources = dict.fromkeys(run.source for run in runs)
    axes = {source: _own_axes([run for run in runs if run.source == source]) for source in sources}
    called: dict[Hashable, str] = {}
    labels = {}
    for run in runs:
        setting, recipe = keys_of(run)
        everywhere = tuple(pair for pair in setting if pair[0].startswith("model.") or pair[0] == "weights")
        own = " · ".join(str(run.values.get(axis)) for axis in axes[run.source]) or recipe_in_words(run)
        labels[id(run)] = called.setdefault((everywhere, recipe), own)
    return labels


def _own_axes(runs: Sequence[ReadRun]) -> list[str]:
    """Axes of an experiment that are neither seed nor task, fraction or fold: what its recipes are called by."""
    known = {"seed": "seed_everything", "task": "data.task", "fraction": "data.train_fraction"}
    axes = dict.fromkeys(axis for run in runs for axis in run.values)
    return [
        axis
        for axis in axes
        if axis not in (*known, "fold")
        and not any(all(run.values.get(axis) == run.setting(name) for run in runs) for name in known.values())
    ]


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """Groups that would be called the same get what differs between them behind their name."""
    alike: dict[Hashable, list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.label, group.task].append(group)
    return [replace(one, label=_differing(one, alike[one.label, one.task])) for one in groups]


def _differing(group: Group, alike: Sequence[Group]) -> str:
    """Its label, with the settings in which it differs from those of the same label, where two share a fraction."""
    if len({one.fraction for one in alike}) == len(alike):
        return group.label
    pairs = [{pair for pair in (*one.setting, *one.recipe) if pair[0] != "data.train_fraction"} for one in alike]
    own = sorted(pairs[alike.index(group)] - pairs[0].intersection(*pairs))
    told = ", ".join(f"{name.rsplit('.', 1)[-1]} {value[:24]}" for name, value in own)
    return f"{group.label} ({told})" if told else group.label

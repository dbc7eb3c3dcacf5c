"""Which runs are seeds of one thing, and which thing is the plain fine-tuning that others are held against.

A run's *setting* is what it was trained and tested on: store, task, fraction, folds, backbone, weights. Its *recipe* is
how: phases, rates, batches. Runs that share both, and differ in their seed, are one group. Runs that share both but for
their folds, each of which tests other ones, are one cross-validation: their predictions are pooled.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ecg_lightning.report.run_files import ReadRun

Key = tuple[tuple[str, str], ...]
_FOLDS = ("data.train_folds", "data.val_folds", "data.test_folds")
_OF_TRAINER = ("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.accumulate_grad_batches")
"""Of the Trainer's arguments those that change what is learnt; the others say how it is shown, and where it runs."""
_NOT_LEARNT = ("data.num_workers", "data.store", "model.weights", "model.weights_sha256")
_OF_RECIPE = ("data.batch_size", "data.shuffle_records", "data.weights")


@dataclass(frozen=True)
class Group:
    """Seeds of one recipe in one setting.

    Attributes:
        source: experiment, or empty.
        label: what a reader calls the recipe.
        task: of the runs.
        fraction: of the training patients.
        setting: what they were trained and tested on.
        recipe: how.
        seeds: ascending.
        members: (seed, fold) the runs; one fold but in a cross-validation.
    """

    source: str
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
        return len(self.members[0]) > 1

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
        return f"fine-tuning, stochastic depth {depth:g}" if depth else "plain fine-tuning"
    return f"probe, then fine-tuning, stochastic depth {depth:g}" if depth else "probe, then fine-tuning"


def grouped(runs: Sequence[ReadRun]) -> list[Group]:
    """The groups in the order of their first runs; runs without a config are in none."""
    groups: list[Group] = []
    by_source: dict[str, list[ReadRun]] = defaultdict(list)
    for run in runs:
        if run.config:
            by_source[run.source].append(run)
    for source, its in by_source.items():
        labels = _labels(its)
        for cells in _cells(its).values():
            groups += _groups_of(source, cells, labels)
    return _told_apart(groups)


def plain_of(group: Group, groups: Iterable[Group]) -> Group | None:
    """The plain fine-tuning of the same setting: of its own experiment before others; None for the plain one itself."""
    same = [one for one in groups if one.is_plain and one.setting == group.setting and one is not group]
    same.sort(key=lambda one: (one.source != group.source, _distance(one, group)))
    return None if group.is_plain or not same else same[0]


def _distance(plain: Group, group: Group) -> int:
    """In how many settings besides the phases' own the two recipes differ."""
    rest = [{(k, v) for k, v in one.recipe if not k.startswith("post_training.")} for one in (plain, group)]
    return len(rest[0] ^ rest[1])


def _cells(runs: Sequence[ReadRun]) -> dict[Hashable, list[ReadRun]]:
    """Runs that are alike but for seed and folds."""
    with_folds = any("fold" in run.values for run in runs)
    cells: dict[Hashable, list[ReadRun]] = defaultdict(list)
    for run in runs:
        setting, recipe = keys_of(run, any_weights=with_folds)
        cells[tuple(pair for pair in setting if pair[0] not in _FOLDS), recipe].append(run)
    return cells


def _groups_of(source: str, runs: Sequence[ReadRun], labels: Mapping[int, str]) -> Iterator[Group]:
    tested = {tuple(run.setting("data.test_folds", [])) for run in runs}
    disjoint = len({fold for folds in tested for fold in folds}) == sum(map(len, tested))
    parts: dict[Hashable, list[ReadRun]] = defaultdict(list)
    for run in runs:
        parts[None if disjoint else str([run.setting(name) for name in _FOLDS])].append(run)
    for part in parts.values():
        by_seed: dict[int, list[ReadRun]] = defaultdict(list)
        for run in part:
            by_seed[int(run.setting("seed_everything", 0))].append(run)
        first = part[0]
        setting, recipe = keys_of(first, any_weights="fold" in first.values)
        pooled = disjoint and len(tested) > 1
        yield Group(
            source,
            labels[id(first)],
            str(first.setting("data.task", "labels")),
            float(first.setting("data.train_fraction", 1.0)),
            tuple(pair for pair in setting if not pooled or pair[0] not in _FOLDS),
            recipe,
            tuple(sorted(by_seed)),
            tuple(tuple(by_seed[seed]) for seed in sorted(by_seed)),
        )


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
    """What each run's recipe is called: the values of the axes that are neither seed nor task, fraction or fold."""
    axes = list(dict.fromkeys(axis for run in runs for axis in run.values))
    known = {"seed_everything": "seed", "data.task": "task", "data.train_fraction": "fraction"}
    own = [
        axis
        for axis in axes
        if axis != "fold"
        and not any(all(run.values.get(axis) == run.setting(name) for run in runs) for name in known)
        and axis not in known.values()
    ]
    return {id(run): " · ".join(str(run.values[axis]) for axis in own) or recipe_in_words(run) for run in runs}


def _told_apart(groups: Sequence[Group]) -> list[Group]:
    """Groups that would be called the same get what differs between them behind their name."""
    sources: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        sources[group.label].add(group.source)
    groups = [
        replace(one, label=f"{one.label} ({one.source or 'single runs'})") if len(sources[one.label]) > 1 else one
        for one in groups
    ]
    alike: dict[Hashable, list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.label, group.task, group.fraction].append(group)
    return [replace(one, label=_differing(one, alike[one.label, one.task, one.fraction])) for one in groups]


def _differing(group: Group, alike: Sequence[Group]) -> str:
    """Its label, with the settings in which it differs from those of the same label."""
    if len(alike) == 1:
        return group.label
    common = set.intersection(*({*one.setting, *one.recipe} for one in alike))
    own = sorted({*group.setting, *group.recipe} - common)
    return f"{group.label} ({', '.join(f'{_last(name)} {value[:24]}' for name, value in own)})"


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]

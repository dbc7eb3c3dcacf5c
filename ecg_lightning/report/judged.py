"""Each group judged with intervals over patients, and held against the plain fine-tuning of its setting, pairwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.alignment import aligned
from ecg_lightning.evaluate.compare import Comparison, compare
from ecg_lightning.evaluate.evaluation import Evaluation, Options
from ecg_lightning.evaluate.judging import evaluate, same_files
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.folds import Folds, compared_by_fold, judged_by_fold
from ecg_lightning.report.run_files import ReadRun
from ecg_lightning.report.run_groups import Group, phases_of, plain_of

Split = Literal["test", "val"]
_PERMUTATIONS = 1000


@dataclass(frozen=True)
class Judged:
    """A group's figures.

    Attributes:
        group: whose.
        seeds: that have predictions; the files are in their order.
        files: predictions, aligned.
        evaluation: with intervals.
        plain: what it is held against.
        comparison: its files less those of `plain`, over the seeds that both have.
        folds: of a cross-validation, whose macro AUROC and AUPRC above are means over the folds.
        shared: those seeds.
        notes: what a reader has to know.
    """

    group: Group
    seeds: tuple[int, ...]
    files: tuple[Predictions, ...]
    evaluation: Evaluation
    plain: "Judged | None" = None
    comparison: Comparison | None = None
    shared: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    folds: Folds | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """What must be the same for two groups to stand in one table: protocol, task, split, store, folds, records."""
        meta = self.files[0].meta
        names = ("task", "store_sha256", "folds", "keep", "min_likelihood")
        return (self.evaluation.protocol, self.evaluation.split, *(str(meta.get(name)) for name in names))

    @property
    def kind(self) -> tuple[str, ...]:
        """Protocol, split, store, folds and rule of the records: of one table, tasks below one another."""
        protocol, split, _, *rest = self.identity
        return protocol, split, *rest

    @property
    def probabilities(self) -> Any:
        """(record, label) mean over the seeds."""
        return np.mean([one.probabilities.astype(np.float64) for one in self.files], axis=0)


def judge(groups: Sequence[Group], options: Options, split: Split) -> tuple[list[Judged], list[str]]:
    """The groups that have predictions, and why others have no figures."""
    judged: list[Judged] = []
    problems: list[str] = []
    for group in groups:
        try:
            if (one := _judged(group, options, split)) is not None:
                judged.append(one)
        except InputError as error:
            problems.append(f"{group.label}, {group.task}: not judged: {error}")
    detailed = {id(in_detail(table)) for table in tables(judged)}
    held = [_held_against_plain(one, judged, problems, by_label=id(one) in detailed) for one in judged]
    return held, problems


def tables(judged: Sequence[Judged]) -> list[list[Judged]]:
    """Groups that were judged on the same records, whatever fraction they were trained on."""
    kinds = dict.fromkeys(one.identity for one in judged)
    return [[one for one in judged if one.identity == kind] for kind in kinds]


def in_detail(table: Sequence[Judged]) -> Judged:
    """The group that is shown label by label: the first that is more than the baseline and fine-tunes.

    At the largest fraction; never chosen by its score.
    """
    return min(table, key=lambda one: (-one.group.fraction, one.group.is_plain, not phases_of(one.group.first)[1]))


def _judged(group: Group, options: Options, split: Split) -> Judged | None:
    found = {
        seed: [(run, one) for run in folds if (one := _of(run, split)) is not None]
        for seed, folds in zip(group.seeds, group.members, strict=True)
    }
    whole = max((_tested(its) for its in found.values()), key=len, default=())
    if not whole:
        return None
    seeds = tuple(seed for seed, its in found.items() if _tested(its) == whole)
    files = [_pooled([one for _, one in found[seed]]) for seed in seeds]
    validations = [its[0][0].validation for its in map(found.__getitem__, seeds)] if split == "test" else []
    known = [one for one in validations if one is not None and len(whole) == 1 and not group.is_cross_validation]
    names = [f"{group.label}, seed {seed}" for seed in seeds]
    evaluation, more = _evaluated(files, known if len(known) == len(files) else [], options, names)
    files, _ = same_files(files, names, options.protocol)
    folds = None
    if group.is_cross_validation and len(whole) > 1:
        tested = [its.setting("data.test_folds", []) for its, _ in found[seeds[0]]]
        evaluation, folds = judged_by_fold(files, evaluation, tested)
        more += folds.remarks()
    notes = (*_left_out(group, found, whole, split), *more, *_own(evaluation))
    return Judged(group, seeds, tuple(files), evaluation, notes=notes, folds=folds)


def _tested(its: Sequence[tuple[ReadRun, Predictions]]) -> tuple[str, ...]:
    """The test folds of runs, one run after the other, ascending."""
    return tuple(", ".join(map(str, folds)) for folds in sorted(run.setting("data.test_folds", []) for run, _ in its))


def _left_out(
    group: Group, found: Mapping[int, Sequence[tuple[ReadRun, Predictions]]], whole: tuple[str, ...], split: Split
) -> list[str]:
    """Which seeds and folds the figures are without, and what is pooled."""
    notes = []
    if missing := [str(seed) for seed, its in found.items() if not its]:
        notes.append(f"without seed {', '.join(missing)}, which has no usable {split} predictions")
    for seed, its in found.items():
        if its and _tested(its) != whole:
            of = "; ".join(_tested(its))
            notes.append(f"without seed {seed}, whose usable {split} predictions are of test folds {of} alone")
    if group.is_cross_validation:
        tested = {folds for its in found.values() for folds in _tested(its)}
        every = dict.fromkeys(", ".join(map(str, run.setting("data.test_folds", []))) for run in group.runs)
        if lacking := [folds for folds in every if folds not in tested]:
            lost = "; ".join(lacking)
            notes.append(f"without test fold(s) {lost}, of which no seed has usable {split} predictions")
        notes.append(
            f"test folds {'; '.join(whole)}, each predicted by a network of its own: macro AUROC and AUPRC are means "
            "over the folds; figures of single labels, calibration and curves are of all folds' predictions pooled, "
            "which ranks scores of different networks together; no thresholds: each fold's run was validated on "
            "records of its own"
        )
    return notes


def _own(evaluation: Evaluation) -> list[str]:
    """Its notes, without the flag of `evaluate` that mends them there."""
    return [note.removesuffix("; add --validation FILE") for note in evaluation.notes]


def _of(run: ReadRun, split: Split) -> Predictions | None:
    return run.test if split == "test" else run.validation


def _evaluated(
    files: Sequence[Predictions], validations: Sequence[Predictions], options: Options, names: Sequence[str]
) -> tuple[Evaluation, list[str]]:
    """With a temperature from validation where there is one; without, said so, where none is the best."""
    if not validations:
        return evaluate(files, None, options, names=names), []
    try:
        return evaluate(files, validations, replace(options, calibrate=True), names=names), []
    except InputError as error:
        return evaluate(files, validations, options, names=names), [f"not calibrated: {error}"]


def _pooled(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several folds as one file; their checkpoints' hashes are kept in a list."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    metas = [one.meta for one in parts]
    meta = {
        **first.meta,
        "folds": sorted(fold for one in metas for fold in one.get("folds", [])),
        "checkpoint_sha256": [one.get("checkpoint_sha256") for one in metas],
    }
    columns = [[one.label_names.index(name) for name in first.label_names] for one in parts]
    stores = [one.store for one in parts if one.store is not None]
    return replace(
        first,
        record_id=np.concatenate([one.record_id for one in parts]),
        patient_id=np.concatenate([one.patient_id for one in parts]),
        fold=np.concatenate([one.fold for one in parts]),
        probabilities=np.concatenate([one.probabilities[:, c] for one, c in zip(parts, columns, strict=True)]),
        labels=np.concatenate([one.labels[:, c] for one, c in zip(parts, columns, strict=True)]),
        meta=meta,
        store=np.concatenate(stores) if len(stores) == len(parts) else None,
    )


def _held_against_plain(one: Judged, judged: Sequence[Judged], problems: list[str], *, by_label: bool) -> Judged:
    plain = plain_of(one.group, [other.group for other in judged])
    other = next((other for other in judged if other.group is plain), None)
    if other is None:
        return one
    shared = tuple(seed for seed in one.seeds if seed in other.seeds)
    if not shared:
        problems.append(f"{one.group.label}, {one.group.task}: no seed that plain fine-tuning has as well: no gain")
        return one
    first, second = ([side.files[side.seeds.index(seed)] for seed in shared] for side in (one, other))
    folds = one.folds
    try:
        second = [aligned(first[0], file, (one.group.label, other.group.label)) for file in second]
        comparison = _compared(one, other, first, second, by_label=by_label)
        if folds is not None:
            comparison, folds = compared_by_fold(first, second, comparison, folds)
    except InputError as error:
        problems.append(f"{one.group.label}, {one.group.task}: no gain: {error}")
        return one
    lone = sorted({*one.seeds, *other.seeds} - {*shared})
    note = (
        (f"gain over plain fine-tuning by seed {', '.join(map(str, shared))} alone, which both have",) if lone else ()
    )
    return replace(one, plain=other, comparison=comparison, shared=shared, notes=(*one.notes, *note), folds=folds)


def _compared(
    one: Judged, other: Judged, first: list[Predictions], second: list[Predictions], *, by_label: bool
) -> Comparison:
    """``by_label``: with so many permutations that a label's p, corrected over the labels, can be small."""
    names = [one.group.label] * len(first), [other.group.label] * len(second)
    groups = [group for group, _ in one.evaluation.groups]
    options = one.evaluation.options
    permutations = None if by_label else _PERMUTATIONS
    return compare(
        first, second, groups, names=names, draws=options.draws, permutations=permutations, seed=options.seed
    )

"""The main table: every recipe with its intervals, and what it gains over plain fine-tuning."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from ecg_lightning.evaluate.compare import Difference
from ecg_lightning.evaluate.evaluation import Figure
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.published_figures import Published
from ecg_lightning.report.sheets import Cell, Estimate, Sheet

_GAINS = frozenset({"AUROC gain [95 %]", "relative", "p", "AUPRC gain [95 %]"})
_HEAD = ("AUROC [95 %]", "SD", "AUROC gain [95 %]", "relative", "p", "AUPRC [95 %]", "AUPRC gain [95 %]")
SURE = 0.05
"""Below this p of the permutation test a gain is called one. It is asked, not the bootstrap's interval, which takes
equal models for different too often where labels are rare (`evaluate.compare`)."""


def main_sheets(judged: Sequence[Judged], published: Sequence[Published]) -> list[Sheet]:
    """One table for each protocol, split and set of folds: figures of different ones never stand in one.

    A second one, where it differs, is over the labels with enough test positives.
    """
    sheets = []
    kinds = list(dict.fromkeys(one.kind for one in judged))
    for number, kind in enumerate(kinds, start=1):
        its = [one for one in judged if one.kind == kind]
        name = f"main{'' if len(kinds) == 1 else f'_{number}'}"
        sheets.append(_sheet(name, its, [one for one in published if one.kind == kind], "all"))
        frequent = _sheet(f"{name}_frequent_labels", its, [], "frequent")
        sheets += [frequent] if frequent.rows else []
    return sheets


def _sheet(name: str, judged: Sequence[Judged], published: Sequence[Published], kind: str) -> Sheet:
    with_fractions = len({one.group.fraction for one in judged}) > 1
    rows: list[tuple[Cell, ...]] = []
    for task in dict.fromkeys(group.task for one in judged for group, _ in one.evaluation.groups):
        of_task = [row for one in judged for row in _rows(one, task, kind, with_fractions)]
        rows += of_task + [_published(one, with_fractions) for one in published if one.task == task and of_task]
    head = ("task", "recipe", *(["fraction"] if with_fractions else []), "labels", "seeds", *_HEAD)
    with_gains = any(one.comparison is not None for one in judged)
    kept = [place for place, column in enumerate(head) if with_gains or column not in _GAINS]
    return Sheet(
        name,
        _caption(judged, bool(published), kind),
        tuple(head[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in rows),
        frozenset({0, 1}),
    )


def _caption(judged: Sequence[Judged], with_published: bool, kind: str) -> str:
    evaluation = judged[0].evaluation
    records = {one.evaluation.task: one.evaluation.num_records for one in judged}
    counted = ", ".join(f"{task} {number:,}" for task, number in records.items())
    folds = ", ".join(map(str, judged[0].files[0].meta.get("folds", []))) or "not said"
    text = (
        f"Macro AUROC and AUPRC. Protocol {evaluation.protocol}, {evaluation.split} split, fold(s) {folds}, records: "
        f"{counted}. In brackets: 95 % interval of the mean over the seeds, from {evaluation.options.draws:,} draws of "
        "patients; it knows nothing of other seeds, whose standard deviation is SD."
    )
    if any(one.comparison is not None for one in judged):
        text += (
            " Gain: paired with plain fine-tuning of the same setting by record and seed; relative: in per cent of its "
            "AUROC; p: permutation test of the AUROC gain, not corrected for the number of rows."
        )
    else:
        text += " No gain: there is no plain fine-tuning of the same setting among the runs."
    if kind == "frequent":
        return (
            f"As the table above, over the labels with {evaluation.options.min_positives} or more test positives alone."
        )
    return text + (" †: published, not measured here, no interval." if with_published else "")


def _rows(one: Judged, task: str, kind: str, with_fractions: bool) -> Iterator[tuple[Cell, ...]]:
    for place, (group, figures) in enumerate(one.evaluation.groups):
        if group.task != task or group.kind != kind or _repeats(one, place):
            continue
        cells: list[Cell] = [task, one.group.label]
        cells += [f"{100 * one.group.fraction:g} %"] if with_fractions else []
        cells += [len(group.columns), len(one.seeds), estimate(figures["auroc"]), _spread(figures["auroc"])]
        if one.comparison is None:
            cells += ["(baseline)" if one.group.is_plain else None, None, None, estimate(figures["auprc"]), None]
        else:
            gains = one.comparison.groups[place][1]
            relative = Estimate(relative_gain(one, place), digits=1, signed=True, unit=" %")
            cells += [gain(gains["auroc"]), relative, Estimate(gains["auroc"].p_permutation)]
            cells += [estimate(figures["auprc"]), gain(gains["auprc"])]
        yield tuple(cells)


def _published(one: Published, with_fractions: bool) -> tuple[Cell, ...]:
    ours = "auroc" if "AUROC" in one.metric else "auprc"
    value = Estimate(one.value)
    head: list[Cell] = [one.task, f"† {one.backbone}: {one.way}", *(["100 %"] if with_fractions else [])]
    auroc, auprc = (value, None) if ours == "auroc" else (None, value)
    return (*head, None, None, auroc, None, None, None, None, auprc, None)


def _repeats(one: Judged, place: int) -> bool:
    """The frequent labels of a task where they are all of them."""
    groups = [group for group, _ in one.evaluation.groups]
    return groups[place].kind == "frequent" and len(groups[place].columns) == len(groups[place - 1].columns)


def estimate(figure: Figure) -> Estimate:
    """A figure and its interval over patients."""
    return Estimate(figure.value, figure.low, figure.high)


def gain(difference: Difference) -> Estimate:
    """A difference and its interval."""
    return Estimate(difference.value, difference.low, difference.high, signed=True)


def _spread(figure: Figure) -> Cell:
    return None if math.isnan(figure.spread) else Estimate(figure.spread)


def relative_gain(one: Judged, place: int = 0, name: str = "auroc") -> float:
    """The gain in per cent of plain fine-tuning's own figure, over the seeds that both have."""
    assert one.plain is not None
    assert one.comparison is not None
    places = [one.plain.seeds.index(seed) for seed in one.shared]
    base = fmean(one.plain.evaluation.per_file[file][place][name] for file in places)
    return 100 * one.comparison.groups[place][1][name].value / base


def in_one_sentence(one: Judged) -> str:
    """What a recipe reaches and gains, and whether this many patients can tell it."""
    figure = one.evaluation.groups[0][1]["auroc"]
    seeds = f"{len(one.seeds)} seed{'s' if len(one.seeds) > 1 else ''}"
    text = f"{one.group.task}, {one.group.label}: macro AUROC {estimate(figure)} ({seeds})"
    if one.comparison is None:
        return f"{text}."
    difference = one.comparison.groups[0][1]["auroc"]
    relative = Estimate(relative_gain(one), digits=1, signed=True, unit=" %")
    verdict = "" if is_sure(difference) else ": no difference that these patients can show"
    return (
        f"{text}; against plain fine-tuning {gain(difference)}, that is {relative} (permutation p "
        f"{Estimate(difference.p_permutation)}){verdict}."
    )


def is_sure(difference: Difference) -> bool:
    """Whether a gain or loss is more than these patients' chance; of a label after correction for their number."""
    p = difference.p_permutation if difference.p_permutation_holm is None else difference.p_permutation_holm
    return p < SURE

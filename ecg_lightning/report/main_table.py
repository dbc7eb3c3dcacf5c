"""The main table: every recipe with its intervals, and what it gains over plain fine-tuning."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from ecg_lightning.evaluate.compare import Difference
from ecg_lightning.evaluate.evaluation import Figure
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.published_figures import Published
from ecg_lightning.report.sheets import Cell, Estimate, Sheet

_WON = "folds won"
_GAINS = frozenset({"AUROC gain [95 %]", "relative", "p", _WON, "AUPRC gain [95 %]"})
_HEAD = ("AUROC [95 %]", "SD", "AUROC gain [95 %]", "relative", "p", _WON, "AUPRC [95 %]", "AUPRC gain [95 %]")
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
    with_folds = any(one.folds is not None for one in judged)
    left_out = (frozenset() if with_gains else _GAINS) | (frozenset() if with_folds else {_WON})
    kept = [place for place, column in enumerate(head) if column not in left_out]
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
    text += _of_folds(judged)
    if kind == "frequent":
        return (
            f"As the table above, over the labels with {evaluation.options.min_positives} or more test positives alone."
        )
    return text + (" †: published, not measured here, no interval." if with_published else "")


def _of_folds(judged: Sequence[Judged]) -> str:
    """What is averaged in a cross-validation."""
    if all(one.folds is None for one in judged):
        return ""
    text = (
        " Cross-validated: each test fold was predicted by a network of its own, so macro AUROC and AUPRC are taken "
        "within each test fold, over the labels that have both classes there, and averaged over the folds, every fold "
        "counting the same; the interval draws patients within the folds, all seeds of a fold together."
    )
    if any(one.folds is not None and one.folds.gains for one in judged):
        text += (
            " The permutation test exchanges ranks within a fold; folds won: test folds in which the mean over the "
            "seeds is above plain fine-tuning's AUROC."
        )
    return text + (
        " Lines “pooled”: all folds' predictions in one ranking, which compares the scores of different networks and "
        "may hide or feign a gain."
    )


def _rows(one: Judged, task: str, kind: str, with_fractions: bool) -> Iterator[tuple[Cell, ...]]:
    for place, (group, figures) in enumerate(one.evaluation.groups):
        if group.task != task or group.kind != kind or _repeats(one, place):
            continue
        cells: list[Cell] = [task, one.group.label]
        fraction: list[Cell] = [f"{100 * one.group.fraction:g} %"] if with_fractions else []
        cells += [*fraction, len(group.columns), len(one.seeds)]
        cells += [estimate(figures["auroc"]), _spread(figures["auroc"])]
        if one.comparison is None:
            cells += ["(baseline)" if one.group.is_plain else None, *[None] * 3, estimate(figures["auprc"]), None]
        else:
            gains = one.comparison.groups[place][1]
            relative = Estimate(relative_gain(one, place), digits=1, signed=True, unit=" %")
            cells += [gain(gains["auroc"]), relative, Estimate(gains["auroc"].p_permutation), folds_won(one, place)]
            cells += [estimate(figures["auprc"]), gain(gains["auprc"])]
        yield tuple(cells)
        if one.folds is not None:
            yield (
                task,
                f"{one.group.label}, pooled",
                *fraction,
                len(group.columns),
                len(one.seeds),
                *_pool(one, place),
            )


def _pool(one: Judged, place: int) -> list[Cell]:
    """The second line of a cross-validation: its figures with all folds in one ranking."""
    assert one.folds is not None
    figures = one.folds.pooled[place][1]
    cells: list[Cell] = [estimate(figures["auroc"]), _spread(figures["auroc"])]
    if not one.folds.pooled_gains:
        return [*cells, *[None] * 4, estimate(figures["auprc"]), None]
    gains = one.folds.pooled_gains[place][1]
    cells += [gain(gains["auroc"]), None, Estimate(gains["auroc"].p_permutation), None]
    return [*cells, estimate(figures["auprc"]), gain(gains["auprc"])]


def folds_won(one: Judged, place: int = 0) -> str | None:
    """In how many test folds it is ahead of plain fine-tuning in AUROC; None without folds."""
    if one.folds is None or not one.folds.gains:
        return None
    gains = one.folds.gains[place]
    return f"{gains.won('auroc')} of {gains.num_folds('auroc')}"


def _published(one: Published, with_fractions: bool) -> tuple[Cell, ...]:
    ours = "auroc" if "AUROC" in one.metric else "auprc"
    value = Estimate(one.value)
    head: list[Cell] = [one.task, f"† {one.backbone}: {one.way}", *(["100 %"] if with_fractions else [])]
    auroc, auprc = (value, None) if ours == "auroc" else (None, value)
    return (*head, None, None, auroc, *[None] * 5, auprc, None)


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
    within = "" if one.folds is None else f", mean over {len(one.folds.names)} test folds"
    text = f"{one.group.task}, {one.group.label}: macro AUROC {estimate(figure)} ({seeds}{within})"
    if one.comparison is None:
        return f"{text}."
    difference = one.comparison.groups[0][1]["auroc"]
    relative, won = Estimate(relative_gain(one), digits=1, signed=True, unit=" %"), folds_won(one)
    verdict = "" if is_sure(difference) else ": no difference that these patients can show"
    return (
        f"{text}; against plain fine-tuning {gain(difference)}, that is {relative} (permutation p "
        f"{Estimate(difference.p_permutation)}{'' if won is None else f', {won} folds won'}){verdict}."
    )


def is_sure(difference: Difference) -> bool:
    """Whether a gain or loss is more than these patients' chance; of a label after correction for their number."""
    p = difference.p_permutation if difference.p_permutation_holm is None else difference.p_permutation_holm
    return p < SURE

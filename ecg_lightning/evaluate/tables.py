"""An evaluation on the terminal, in 100 columns."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from ecg_lightning.evaluate.compare import Comparison, Difference
from ecg_lightning.evaluate.evaluation import ALL_FIGURES, Evaluation, Figure
from ecg_lightning.evaluate.protocols import Group

WIDTH = 100
T = TypeVar("T")
_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier",
    "ece": "ECE",
}
_TABLES = (("auroc", "auprc"), ("brier", "ece"), ("f1", "sensitivity", "specificity"))


def print_evaluation(evaluation: Evaluation, *, labels: bool = False) -> None:
    """Macro figures with 95 % intervals, each file where there are several, notes; with ``labels`` a row per label."""
    console = Console(markup=False, highlight=False, width=WIDTH)
    seeds = f", mean over {len(evaluation.names)} files" if len(evaluation.names) > 1 else ""
    console.print(
        f"{', '.join(evaluation.names)}: {evaluation.split}, {evaluation.num_records} records of "
        f"{evaluation.num_patients} patients, protocol {evaluation.protocol}{seeds}"
    )
    for names in _TABLES:
        if evaluation.thresholds or "f1" not in names:
            console.print(_macro_table(evaluation, names))
    if len(evaluation.names) > 1:
        console.print(_file_table(evaluation))
    if labels:
        console.print(_label_table(evaluation))
        console.print(
            f"* fewer than {evaluation.options.min_positives} positives. In brackets: 95 % interval for rare labels "
            "(t on the logit scale; percentiles stand in the JSON); base: prevalence, what AUPRC is by chance."
        )
    if evaluation.calibration is not None:
        _print_calibration(console, evaluation)
    for note in evaluation.notes:
        console.print(f"- {note}")


def print_comparison(comparison: Comparison, min_positives: int, *, labels: bool = False) -> None:
    """Differences with intervals and both p; of the labels the five with the smallest p, or all."""
    console = Console(markup=False, highlight=False, width=WIDTH)
    first, second = comparison.names
    console.print(f"{', '.join(first)} less {', '.join(second)}, paired over patients")
    table = Table("task", "labels", "macro", "difference", "95 %", "p bootstrap", "p permutation", box=None)
    for group, figures in _without_repeats(comparison.groups):
        for name, one in figures.items():
            table.add_row(group.task, _group_name(group, min_positives), _TITLES[name], *_cells(one))
    console.print(table)
    table = Table("label", "figure", "difference", "95 %", "p bootstrap*", "p permutation*", box=None)
    for label, figures in _by_p(comparison, None if labels else 5):
        for name, one in figures.items():
            table.add_row(label, _TITLES[name], *_cells(one, holm=True))
    console.print(table)
    more = "" if labels else "; the five labels with the smallest p, --labels shows all"
    console.print(
        f"* corrected over {len(comparison.labels)} labels (Holm); {comparison.permutations} permutations can give "
        f"{comparison.smallest_holm:.3f} at the least{more}"
    )


def _macro_table(evaluation: Evaluation, names: tuple[str, ...]) -> Table:
    """A row per mean that differs from the one above it."""
    table = Table("task", "labels", *(f"macro {_TITLES[name]}" for name in names), box=None)
    for group, figures in _without_repeats(evaluation.groups):
        cells = [_macro_cell(figures[name]) for name in names]
        table.add_row(group.task, _group_name(group, evaluation.options.min_positives), *cells)
    return table


def _without_repeats(groups: Sequence[tuple[Group, T]]) -> Iterator[tuple[Group, T]]:
    """Leaves out the frequent labels of a task where they are all of them."""
    former = 0
    for group, figures in groups:
        if group.kind == "all" or len(group.columns) < former:
            yield group, figures
        former = len(group.columns)


def _macro_cell(figure: Figure) -> str:
    return f"{_shown(figure.value)} {_between(figure.low, figure.high)}".rstrip()


def _group_name(group: Group, min_positives: int) -> str:
    number = len(group.columns)
    return f"{number}" if group.kind == "all" else f"{number} with >= {min_positives}"


def _file_table(evaluation: Evaluation) -> Table:
    names = [name for name in ALL_FIGURES if not math.isnan(evaluation.groups[0][1][name].value)]
    table = Table("file", *(_TITLES[name] for name in names), box=None)
    for file, groups in zip(evaluation.names, evaluation.per_file, strict=True):
        table.add_row(file, *(_shown(groups[0][name]) for name in names))
    table.add_row("SD", *(_shown(evaluation.groups[0][1][name].spread) for name in names))
    return table


def _label_table(evaluation: Evaluation) -> Table:
    thresholded = bool(evaluation.thresholds)
    table = Table("label", box=None, padding=(0, 1, 0, 0))
    for title in ("pos", "AUROC", "AUPRC", "base", *(["F1", "sens", "spec"] if thresholded else []), "Brier", "ECE"):
        table.add_column(title, justify="left" if title in ("AUROC", "AUPRC") else "right", no_wrap=True)
    for label, counts in evaluation.counts.items():
        figures = evaluation.labels[label]
        decided = [_shown(figures[name].value, 2) for name in ("f1", "sensitivity", "specificity") if thresholded]
        table.add_row(
            f"{label}{'' if counts['frequent'] else '*'}",
            str(counts["positives"]),
            *(_with_interval(figures[name]) for name in ("auroc", "auprc")),
            _shown(counts["prevalence"]),
            *decided,
            *(_shown(figures[name].value) for name in ("brier", "ece")),
        )
    return table


def _print_calibration(console: Console, evaluation: Evaluation) -> None:
    assert evaluation.calibration is not None
    assert evaluation.temperatures is not None
    macro = evaluation.calibration["macro"]
    temperatures = ", ".join(f"{value:.3f}" for value in evaluation.temperatures)
    console.print(
        f"temperature {temperatures} from validation: Brier {_shown(macro['brier'], 4)} -> "
        f"{_shown(macro['brier_calibrated'], 4)}, calibration error {_shown(macro['ece'], 4)} -> "
        f"{_shown(macro['ece_calibrated'], 4)} (macro); AUROC and AUPRC stay as they are"
    )


def _by_p(comparison: Comparison, limit: int | None) -> Iterable[tuple[str, dict[str, Difference]]]:
    if limit is None:
        return comparison.labels.items()
    return sorted(comparison.labels.items(), key=lambda item: min(one.p_permutation for one in item[1].values()))[
        :limit
    ]


def _cells(one: Difference, *, holm: bool = False) -> tuple[str, ...]:
    p = (one.p_bootstrap_holm, one.p_permutation_holm) if holm else (one.p_bootstrap, one.p_permutation)
    return (f"{one.value:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}", *(f"{value:.4f}" for value in p))


def _with_interval(figure: Figure) -> str:
    assert figure.low_t is not None
    assert figure.high_t is not None
    return f"{_shown(figure.value)} {_between(figure.low_t, figure.high_t)}".rstrip()


def _between(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{_shown(low)} {_shown(high)}]"


def _shown(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"

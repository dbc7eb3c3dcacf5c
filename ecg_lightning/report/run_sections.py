"""The parts of a report on runs, in the order in which a reader asks for them."""

from collections.abc import Sequence
from typing import NamedTuple

from ecg_lightning.report.calibration_figures import calibration_figure, calibration_sheet
from ecg_lightning.report.confusion import confusion_figure, confusion_sheet
from ecg_lightning.report.drawn import Drawn
from ecg_lightning.report.ecg_page import file_name
from ecg_lightning.report.fold_figures import by_fold, gains_by_fold
from ecg_lightning.report.group_curves import learning_figures
from ecg_lightning.report.html import Html, heading, paragraph
from ecg_lightning.report.judged import Judged, Split, in_detail, tables
from ecg_lightning.report.label_figures import curve_figures, gain_by_prevalence, label_sheet
from ecg_lightning.report.main_table import main_sheets
from ecg_lightning.report.provenance import (
    config_details,
    data_facts,
    environment_facts,
    recipes_sheet,
    runs_sheet,
)
from ecg_lightning.report.published_figures import Published, published_beside
from ecg_lightning.report.recipe_figures import data_efficiency, levels_and_gains
from ecg_lightning.report.run_files import ReadRun
from ecg_lightning.report.run_groups import Group, phases_of
from ecg_lightning.report.sheets import Sheet


class Folded(NamedTuple):
    """Figures that are one click away."""

    summary: str
    figures: tuple[Drawn, ...]


Part = Html | Sheet | Drawn | Folded


class Chapter(NamedTuple):
    """A section before its figures and tables are numbered."""

    anchor: str
    heading: str
    parts: list[Part]


def chapters(
    runs: Sequence[ReadRun], groups: Sequence[Group], judged: Sequence[Judged], split: Split, num_wrong: int
) -> list[Chapter]:
    """All parts of the report that have something to show."""
    published, reasons = published_beside(judged) if split == "test" else ([], ["no run has test predictions"])
    made = [
        Chapter("main", "Main table", _main(judged, published, reasons)),
        Chapter("recipes", "Recipes held against one another", _recipes(judged)),
        Chapter("fractions", "Data efficiency", _fractions(judged)),
        Chapter("folds", "Folds", _folds(judged)),
        Chapter("curves", "Learning curves", _curves(groups)),
        *(
            Chapter(
                f"detail-{number}", f"{one.group.task} in detail: {one.group.label}", _detail(table, name, num_wrong)
            )
            for number, (name, table) in enumerate(_named(judged), start=1)
            for one in [in_detail(table)]
        ),
        Chapter("provenance", "Runs, data, machine", _provenance(runs, groups, judged, split)),
    ]
    return [chapter for chapter in made if chapter.parts]


def _unique(tasks: Sequence[str]) -> list[str]:
    """What files are called by task; with a number where several would have one name."""
    names = [file_name(task) for task in tasks]
    return [
        name if names.count(name) == 1 else f"{name}_{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _named(judged: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    found = tables(judged)
    return [*zip(_unique([one[0].group.task for one in found]), found, strict=True)]


def _folds(judged: Sequence[Judged]) -> list[Part]:
    parts: list[Part] = []
    for name, table in _named(judged):
        if any(one.group.is_cross_validation for one in table):
            parts.append(by_fold(table, f"folds_{name}"))
        if any(one.folds is not None and one.folds.gains for one in table):
            parts.append(gains_by_fold(table, f"fold_gains_{name}"))
    return parts


def _main(judged: Sequence[Judged], published: Sequence[Published], reasons: Sequence[str]) -> list[Part]:
    if not judged:
        return [paragraph("No run has predictions that could be judged: see the remarks under “Runs”.", "warn")]
    parts: list[Part] = [*main_sheets(judged, published)]
    for one in dict.fromkeys((figure.backbone, figure.way, figure.protocol, figure.source) for figure in published):
        parts.append(paragraph(f"† {one[0]}, {one[1]}: {one[2]}. Source: {one[3]}.", "soft"))
    if reasons:
        none = "Published figures that are not shown" if published else "No published figure is shown beside these"
        parts.append(paragraph(f"{none}: {'. '.join(reasons)}.", "soft"))
    return parts + [paragraph(f"{note}.", "soft") for note in _notes(judged)]


def _notes(judged: Sequence[Judged]) -> list[str]:
    """What was left out, and why; notes that several recipes share are told once."""
    told: dict[tuple[str, str], list[str]] = {}
    for one in judged:
        for note in one.notes:
            told.setdefault((one.group.task, note), []).append(one.group.label)
    return [f"{task} ({', '.join(dict.fromkeys(labels))}): {note}" for (task, note), labels in told.items()]


def _recipes(judged: Sequence[Judged]) -> list[Part]:
    parts: list[Part] = []
    for name, one in _named(judged):
        largest = [each for each in one if each.group.fraction == max(other.group.fraction for other in one)]
        if len(largest) > 1:
            parts.append(levels_and_gains(largest, f"recipes_{name}"))
    return parts


def _fractions(judged: Sequence[Judged]) -> list[Part]:
    return [
        data_efficiency(one, f"data_efficiency_{name}")
        for name, one in _named(judged)
        if len({each.group.fraction for each in one}) > 1
    ]


def _curves(groups: Sequence[Group]) -> list[Part]:
    parts: list[Part] = []
    tasks = list(dict.fromkeys(group.task for group in groups))
    for task, name in zip(tasks, _unique(tasks), strict=True):
        of_task = [group for group in groups if group.task == task]
        largest = max(group.fraction for group in of_task)
        figures, problems = learning_figures(
            [group for group in of_task if group.fraction == largest], f"learning_{name}"
        )
        parts += [*figures, *(paragraph(problem, "warn") for problem in problems)]
    return parts


def _why_in_detail(one: Judged, table: Sequence[Judged]) -> str:
    """Why `in_detail` takes this one of its table."""
    if len(table) == 1:
        return "the only one that was judged on these records"
    fractions = {each.group.fraction for each in table}
    at = f" at {100 * one.group.fraction:g} % of the patients" if len(fractions) > 1 else ""
    chosen = "it was not chosen by its score"
    if one.group.is_plain:
        return f"plain fine-tuning, as there is no other recipe{at}; {chosen}"
    if phases_of(one.group.first)[1]:
        return f"the first recipe of those named that is more than the baseline and fine-tunes{at}; {chosen}"
    return f"the first recipe of those named{at} that is not the baseline; none of them fine-tunes; {chosen}"


def _detail(table: Sequence[Judged], name: str, num_wrong: int) -> list[Part]:
    from ecg_lightning.report.wrong_records import wrong_parts

    one = in_detail(table)
    parts: list[Part] = [
        paragraph(
            f"{one.group.label}, {len(one.seeds)} seed(s) ({', '.join(map(str, one.seeds))}): "
            f"{_why_in_detail(one, table)}.",
            "soft",
        ),
        heading("ROC and precision-recall by label"),
    ]
    first, *others = curve_figures(one, f"roc_pr_{name}")
    parts.append(first)
    if others:
        parts.append(Folded(f"{len(others)} more figures: the rarer labels", tuple(others)))
    parts += [heading("Every label"), label_sheet(one, f"labels_{name}")]
    if (gains := gain_by_prevalence(one, f"gain_by_prevalence_{name}")) is not None:
        parts += [heading("Gain against prevalence"), gains]
    parts += [heading("Calibration"), calibration_figure(one, f"calibration_{name}")]
    if (sheet := calibration_sheet(one, f"calibration_{name}")) is not None:
        parts.append(sheet)
    if (figure := confusion_figure(one, f"confusion_{name}")) is not None:
        counted = confusion_sheet(one, f"confusion_{name}")
        parts += [heading("Confusions"), figure, *([counted] if counted is not None else [])]
    if num_wrong:
        parts += [heading("The records that it gets most wrong"), *wrong_parts(one, num_wrong, f"wrong_{name}")]
    return parts


def _provenance(runs: Sequence[ReadRun], groups: Sequence[Group], judged: Sequence[Judged], split: Split) -> list[Part]:
    first = list({group.label: group.first for group in reversed(groups)}.values())[::-1]
    parts: list[Part] = [heading("Runs"), runs_sheet(runs, judged, split)]
    if groups:
        parts += [heading("Recipes"), recipes_sheet(groups)]
    parts += [heading("Data"), data_facts(runs, judged), heading("Environment"), environment_facts(runs)]
    return [*parts, *([heading("Configs")] if first else []), *config_details(first)]

"""The report on runs: one page that stands alone, every figure and table beside it as files, and its JSON."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import ecg_lightning
from ecg_lightning.data.labels import ptbxl_103_counts
from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.report import drawn, sheets
from ecg_lightning.report.drawn import Drawn
from ecg_lightning.report.html import Html, Section, details, facts, joined_html, page, paragraph
from ecg_lightning.report.judged import Judged, Split, judge
from ecg_lightning.report.main_table import in_one_sentence
from ecg_lightning.report.provenance import contamination, small_test
from ecg_lightning.report.run_files import ReadRun
from ecg_lightning.report.run_groups import grouped, shown
from ecg_lightning.report.run_sections import Chapter, Folded, Part, chapters
from ecg_lightning.report.sheets import Sheet
from ecg_lightning.report.store_page import PTBXL
from ecg_lightning.runs import NO_DEVICE, refuse_unwritable, whole_file

PAGE, RECORD = "report.html", "report.json"
_HEADLINES = 6


class Report(NamedTuple):
    """A report in memory: its files by relative path, what it says of what is missing."""

    files: dict[str, bytes]
    problems: list[str]


def make_report(runs: Sequence[ReadRun], options: Options, num_wrong: int) -> Report:
    """Judges and draws everything; nothing is written.

    Args:
        runs: `run_files.read_runs`.
        options: of the evaluation.
        num_wrong: records that are shown for each task.
    """
    split: Split = "test" if any(run.test is not None for run in runs) else "val"
    groups, repeats = grouped(runs)
    judged, unjudged = judge(groups, options, split)
    problems = [f"{shown(run)}: {'; '.join(run.problems)}" for run in runs if run.problems] + repeats + unjudged
    parts = chapters(runs, groups, judged, split, num_wrong)
    files = _files(parts)
    title = "Report on " + (f"run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs")
    text = page(title, _lead(runs, judged, problems, split), _numbered(parts), _footer(runs))
    files[RECORD] = json.dumps(_record([*files, RECORD, PAGE], judged, problems), indent=1).encode() + b"\n"
    return Report({**files, PAGE: text.encode()}, problems)


def write_report(report: Report, output: Path, *, overwrite: bool = False) -> None:
    """Writes all files, the page last; of a former report whatever is no part of this one is taken away.

    Raises:
        InputError: for a folder that holds something else, or a report that may not be replaced.
    """
    former = refuse_existing_report(output, overwrite=overwrite)
    for name in former:
        if name not in report.files:
            (output / name).unlink(missing_ok=True)
    for name, content in report.files.items():
        with whole_file(output / name) as temporary:
            temporary.write_bytes(content)


def refuse_existing_report(output: Path, *, overwrite: bool) -> list[str]:
    """Files of the report that stands at ``output`` and may be replaced.

    Raises:
        InputError: where something stands there that may not.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file, a report needs a folder: choose another name")
    refuse_unwritable(output / RECORD)
    if not output.exists() or not any(output.iterdir()):
        return []
    try:
        former = json.loads((output / RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"--output {output} holds something that is no report: choose another folder") from None
    if not overwrite:
        raise InputError(
            f"--output {output} holds a report already: replace it with --overwrite, or choose another folder"
        )
    inside = output.resolve()
    return [name for name in former if (output / name).resolve().is_relative_to(inside)]


def _files(parts: Sequence[Chapter]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for part in (part for chapter in parts for part in _flat(chapter.parts)):
        if isinstance(part, Drawn):
            files |= {f"figures/{part.name}.png": part.png, f"figures/{part.name}.pdf": part.pdf}
        elif isinstance(part, Sheet):
            files |= {f"tables/{part.name}{ending}": text.encode() for ending, text in sheets.parts(part)}
    return files


def _flat(parts: Sequence[Part]) -> list[Part]:
    return [one for part in parts for one in (part.figures if isinstance(part, Folded) else (part,))]


def _numbered(parts: Sequence[Chapter]) -> list[Section]:
    """Figures and tables are counted through the page."""
    figures, tables = count(1), count(1)

    def in_html(part: Part) -> Html:
        if isinstance(part, Drawn):
            return drawn.to_html(part, next(figures))
        if isinstance(part, Sheet):
            return sheets.to_html(part, next(tables))
        if isinstance(part, Folded):
            return details(part.summary, [in_html(one) for one in part.figures])
        return part

    return [Section(one.anchor, one.heading, joined_html(in_html(part) for part in one.parts)) for one in parts]


def _lead(runs: Sequence[ReadRun], judged: Sequence[Judged], problems: Sequence[str], split: Split) -> Html:
    doubts = contamination(runs) + small_test(judged)
    if split == "val":
        doubts.insert(
            0, "No run has test predictions: all figures are of validation, on which checkpoints were chosen."
        )
    parts = [paragraph(NO_DEVICE, "warn")]
    if doubts:
        parts.append(Html(f'<div class="notice">\n{joined_html(paragraph(doubt, "warn") for doubt in doubts)}\n</div>'))
    headlines = _headlines(judged)
    parts += [paragraph(in_one_sentence(one)) for one in headlines[:_HEADLINES]]
    if len(headlines) > _HEADLINES:
        parts.append(paragraph(f"{len(headlines) - _HEADLINES} more recipes stand in the main table.", "soft"))
    complete = sum(run.state == "complete" for run in runs)
    parts.append(
        facts(
            [
                ("runs", f"{len(runs)}, {complete} of them complete"),
                (
                    "experiments",
                    ", ".join(dict.fromkeys(run.source for run in runs if run.source)) or "none: single runs",
                ),
                ("backbones", ", ".join(dict.fromkeys(_backbone(run) for run in runs if run.config)) or "not told"),
                ("tasks", ", ".join(dict.fromkeys(one.group.task for one in judged)) or "none judged"),
                ("judged on", f"the {'test' if split == 'test' else 'validation'} split"),
            ]
        )
    )
    if problems:
        parts.append(details(f"{len(problems)} remark(s) on runs", [paragraph(problem) for problem in problems]))
    return joined_html(parts)


def _headlines(judged: Sequence[Judged]) -> list[Judged]:
    """What is said first: the recipes with a gain, or else all that there are; at the largest fraction."""
    largest = [one for one in judged if one.group.fraction == max(other.group.fraction for other in judged)]
    shown = [one for one in largest if one.comparison is not None] or largest
    tasks = list(dict.fromkeys(one.group.task for one in shown))
    return sorted(shown, key=lambda one: tasks.index(one.group.task))


def _backbone(run: ReadRun) -> str:
    return str(run.setting("model.backbone.class_path", "not told")).rsplit(".", 1)[-1]


def _footer(runs: Sequence[ReadRun]) -> Html:
    of_ptbxl = any(run.setting("data.task") in ptbxl_103_counts()["tasks"] for run in runs)
    made = f"Made by ecg_lightning {ecg_lightning.__version__}; figures and tables lie beside this page as files."
    return joined_html([paragraph(NO_DEVICE), paragraph(made), *([paragraph(PTBXL)] if of_ptbxl else [])])


def _record(files: Sequence[str], judged: Sequence[Judged], problems: Sequence[str]) -> dict[str, Any]:
    """What the page shows, for programs."""
    groups = []
    for one in judged:
        comparison = None if one.comparison is None else one.comparison.to_json()
        evaluation = replace(one.evaluation, comparison=comparison).to_json()
        group = one.group
        kept = {"recipe": group.label, "task": group.task, "fraction": group.fraction}
        groups.append(
            {
                **kept,
                "seeds": list(one.seeds),
                "runs": [shown(run) for run in group.runs],
                "notes": list(one.notes),
                "folds": None if one.folds is None else one.folds.to_json(),
                "evaluation": evaluation,
            }
        )
    return {
        "format": "ecg_lightning.report",
        "version": 1,
        "ecg_lightning": ecg_lightning.__version__,
        "note": NO_DEVICE,
        "files": sorted(files),
        "problems": list(problems),
        "groups": groups,
    }

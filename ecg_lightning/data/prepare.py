"""From a source to a store: resumable after a kill, nothing half-written under the final name."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.conversion import Job, Outcome, Target, convert_all
from ecg_lightning.data.journal import Finished, Journal
from ecg_lightning.data.plan import Plan, make_plan
from ecg_lightning.data.sources import SourceOptions
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.data.telling import counted, print_table
from ecg_lightning.errors import InputError, UsageError, joined
from ecg_lightning.signals import SignalSpec

_ENOUGH_PROBLEMS = 10


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        path: the store.
        num_records: records in it.
        num_resumed: of these, taken over from a run that was stopped.
        skipped: (ecg_id, why) of the records left out.
        flat_leads: (ecg_id, lead names) of the records with leads that hold one value throughout; they are kept.
        started_over: why the unfinished store that was there could not be used; empty otherwise.
        notes: what was settled for the user and what was done to records, a sentence each.
        doubts: (ecg_id, doubts) of the records that are implausible: unit, limb leads, flat or clipped leads; kept.
    """

    path: Path
    num_records: int
    num_resumed: int = 0
    skipped: tuple[tuple[int, str], ...] = ()
    flat_leads: tuple[tuple[int, str], ...] = ()
    started_over: str = ""
    notes: tuple[str, ...] = ()
    doubts: tuple[tuple[int, str], ...] = ()


def prepare(
    source: str | Path,
    output: str | Path,
    signal: SignalSpec,
    *,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    overwrite: bool = False,
    progress: bool = True,
    command: str = "",
    options: SourceOptions | None = None,
) -> PrepareReport:
    """Writes the store ``output`` with the signals that a backbone of ``signal`` takes, from the records of ``source``.

    ``options`` say what the source does not: see `ecg_lightning.data.sources`.

    Runs the steps of the chain before the crop. A run that was killed goes on where it stopped when called again; flat
    leads are counted and reported, not refused, as PTB-XL ships some. Problems in the table always stop, those in
    records only under ``on_error="stop"``. By default worker processes are started where they pay; a script that asks
    for ``workers`` of 2 or more needs the usual ``if __name__ == "__main__"``.

    Raises:
        InputError: for problems in the source, an output that exists, a second writer, a full disk.
    """
    source, output = Path(source), Path(output)
    if on_error not in ("stop", "skip") or (workers is not None and workers < 1):
        raise UsageError(
            f"on_error is {on_error!r}, workers {workers}: --on_error is stop or skip, --workers 1 or more (or unset)"
        )
    _refuse_existing(output, overwrite)
    plan = make_plan(source, signal, command, options or SourceOptions())
    try:
        report = _write(plan, output, overwrite, workers, on_error, progress)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error}): make room, or name another --output; the same command goes on "
            "from the records that are finished"
        ) from error
    if progress or report.skipped or report.flat_leads or report.started_over or report.notes:
        _print(report)
    return report


def _write(
    plan: Plan, output: Path, overwrite: bool, workers: int | None, on_error: str, progress: bool
) -> PrepareReport:
    output.parent.mkdir(parents=True, exist_ok=True)
    with Journal(output) as journal:
        _refuse_existing(output, overwrite)
        try:
            plan, started_over = _begin(plan, journal)
            resumed = len(journal.finished)
            try:
                problems = _convert(plan, journal, workers, on_error, progress)
            except _TooFineError as finer:
                plan, started_over, resumed = replace(plan, dtype="<f4"), str(finer), 0
                _start(plan, journal)
                problems = _convert(plan, journal, workers, on_error, progress)
            report = _report(plan, journal, problems, resumed, started_over)
            _complete(plan, journal, problems)
        except Exception:  # not Ctrl-C: that may come while former work is still being looked through
            if not journal.finished:
                journal.remove_files()
            raise
    return report


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise InputError(f"{output} is a folder, a store is a file: --output {output / 'ptbxl.h5'}")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already: name another --output, or replace it with --overwrite")


class _TooFineError(Exception):
    """Records of an int16 store turned out to hold finer values."""


def _begin(plan: Plan, journal: Journal) -> tuple[Plan, str]:
    """Takes up the partial store of a former run, or creates one; why one that was there is of no use.

    A former run may have found that the values need float32.
    """
    started_over = ""
    for candidate in (plan, replace(plan, dtype="<f4")):
        started_over = journal.resume(candidate.key, candidate.shape, candidate.dtype)
        if journal.offset:
            return candidate, ""
    _start(plan, journal)
    return plan, started_over


def _start(plan: Plan, journal: Journal) -> None:
    journal.forget()
    _check_space(journal.partial, plan.num_bytes)
    journal.start(plan.key, _create(journal.partial, plan, range(len(plan.paths))))


def _create(path: Path, plan: Plan, rows: Sequence[int]) -> int:
    """Creates the store of these rows of the table, without signals; their offset."""
    kept = np.asarray(rows)
    source = plan.source
    records = {name: column[kept] for name, column in source.records.items()} | _measured(
        plan, [Finished(row, 0, []) for row in rows]
    )
    return create_store(
        path, plan.stored, plan.dtype, records, source.likelihood[kept], source.statements, plan.attributes
    )


def _measured(plan: Plan, finished: Sequence[Finished]) -> dict[str, NDArray[Any]]:
    """The columns that are known only with the signals; of other sources than PTB-XL what each file was as well."""
    columns: dict[str, NDArray[Any]] = {
        "num_flat_leads": np.array([len(one.flat) for one in finished], np.uint8),
        "checksum": np.array([one.checksum for one in finished], np.uint32),
    }
    if plan.source.layout is not None:
        told = [one.told for one in finished]
        columns["source_sampling_rate"] = np.array([one.sampling_rate if one else 0 for one in told], np.float64)
        columns["source_num_time_points"] = np.array([one.num_time_points if one else 0 for one in told], np.int64)
    return columns


def _check_space(path: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < num_bytes * 1.02 + 2**20:
        raise InputError(
            f"{path.parent} has {free / 2**20:,.0f} MiB free, the store takes {num_bytes / 2**20:,.0f} MiB: make room, "
            "or name an --output on another disk"
        )


def _convert(plan: Plan, journal: Journal, workers: int | None, on_error: str, progress: bool) -> dict[int, str]:
    """Converts what is not finished yet; problems by row."""
    from rich.progress import Progress

    target = Target(
        plan.source.root,
        journal.partial,
        journal.offset,
        plan.stored,
        plan.record_points,
        plan.dtype,
        plan.source.layout,
    )
    ecg_ids = plan.source.records["ecg_id"].tolist()
    jobs = [Job(row, ecg_ids[row], path) for row, path in enumerate(plan.paths) if row not in journal.finished]
    problems: dict[int, str] = {}
    with Progress(disable=not progress) as bar, closing(convert_all(target, jobs, workers)) as outcomes:
        records = bar.add_task("records", total=len(plan.paths), completed=len(journal.finished))
        for chunk in outcomes:
            if plan.source.layout is not None and any(one.too_fine for one in chunk):
                raise _TooFineError("some records are finer than whole units of 0.001 mV, so all are stored as float32")
            problems |= _note(journal, chunk)
            bar.advance(records, len(chunk))
            if on_error == "stop" and len(problems) >= _ENOUGH_PROBLEMS:
                break
    if problems and (on_error == "stop" or not journal.finished):
        raise InputError(_told(problems, journal))
    return problems


def _note(journal: Journal, outcomes: Sequence[Outcome]) -> dict[int, str]:
    journal.add([Finished(one.row, one.checksum, one.flat, one.told) for one in outcomes if not one.problem])
    return {one.row: one.problem for one in outcomes if one.problem}


def _told(problems: Mapping[int, str], journal: Journal) -> str:
    told = joined([problems[row] for row in sorted(problems)])
    if not journal.finished:
        return f"no record could be read: {told}"
    return (
        f"{told}. Mend these and run the same command again, or leave them out with --on_error skip: it goes on from "
        f"{journal.partial}, {len(journal.finished)} records are finished"
    )


def _report(
    plan: Plan, journal: Journal, problems: Mapping[int, str], resumed: int, started_over: str
) -> PrepareReport:
    ecg_ids = plan.source.records["ecg_id"].tolist()
    finished = [journal.finished[row] for row in sorted(journal.finished)]
    return PrepareReport(
        path=journal.output,
        num_records=len(finished),
        num_resumed=resumed,
        skipped=tuple((ecg_ids[row], problems[row].split(": ", 1)[1]) for row in sorted(problems)),
        flat_leads=tuple((ecg_ids[one.row], ", ".join(one.flat)) for one in finished if one.flat),
        started_over=started_over,
        notes=(*plan.source.notes, *counted(note for one in finished if one.told for note in one.told.notes)),
        doubts=tuple(
            (ecg_ids[one.row], f"{plan.paths[one.row]}: {'; '.join(one.told.doubts)}")
            for one in finished
            if one.told and one.told.doubts
        ),
    )


def _complete(plan: Plan, journal: Journal, problems: Mapping[int, str]) -> None:
    """Takes skipped records out, seals the tables, brings all to disk, renames."""
    finished = [journal.finished[row] for row in sorted(journal.finished)]
    path = _without_skipped(plan, journal, [one.row for one in finished]) if problems else journal.partial
    finish_store(path, _measured(plan, finished))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(journal.output)
    folder = os.open(journal.output.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    journal.remove_files()


def _without_skipped(plan: Plan, journal: Journal, rows: Sequence[int]) -> Path:
    """A second file with these rows only: a contiguous data set cannot shrink."""
    path = journal.kept
    _check_space(path, plan.num_bytes)
    offset = _create(path, plan, rows)
    whole = np.memmap(journal.partial, dtype=plan.dtype, mode="r", offset=journal.offset, shape=plan.shape)
    with path.open("r+b") as file:
        file.seek(offset)
        for row in rows:
            file.write(whole[row].tobytes())
    return path


def _print(report: PrepareReport) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    if report.started_over:
        console.print(f"Started over: {report.started_over}.")
    for note in report.notes:
        console.print(f"- {note}")
    doubted = {ecg_id for ecg_id, _ in report.doubts}  # a flat lead is among the doubts
    flat = [(ecg_id, leads) for ecg_id, leads in report.flat_leads if ecg_id not in doubted]
    print_table(console, "Skipped records", ("ecg_id", "why"), report.skipped)
    print_table(console, "Flat leads (kept)", ("ecg_id", "leads"), flat)
    print_table(console, "Doubtful records (kept)", ("ecg_id", "what to check"), report.doubts)
    resumed = f", {report.num_resumed} of them from a run that was stopped" if report.num_resumed else ""
    console.print(f"{report.path}: {report.num_records} records{resumed}")

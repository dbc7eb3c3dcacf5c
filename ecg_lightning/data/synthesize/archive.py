"""Writes the simulated archive: resumable after a kill, the same bytes on any number of processes."""

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import get_args

from ecg_lightning.data.ptbxl import STATEMENTS, TABLE
from ecg_lightning.data.synthesize.files import finished, write_record
from ecg_lightning.data.synthesize.record import at_100_hz, ecg_of, make_heart, plan_record
from ecg_lightning.data.synthesize.settings import SETTINGS, Prevalence, Settings, simulation_settings
from ecg_lightning.data.synthesize.table import record_path, table_row, table_text
from ecg_lightning.data.workers import in_processes, usable_cores
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.runs import refuse_unwritable

CHUNK = 32
_DRAFT = f"{SETTINGS}.draft"
_POOL_PAYS = 300
"""Records from which on worker processes are started unasked: they take a second to come up."""
_BYTES = {500: 122_880 + 4096, 100: 24_576 + 4096}
"""On disk for a record and its header, in blocks of 4 KiB."""
_README = """\
# Simulated ECGs

Made by `ecg-lightning synthesize` {version} (records {num_records}, seed {seed}, prevalence {prevalence}): a beating
dipole seen through Dower's lead vectors. **No patient is behind any record**; statements, reports, ages and dates are
drawn. Not for diagnosis, and no substitute for real records in an evaluation.

The layout is that of PTB-XL 1.0.3 (Wagner et al. 2020, https://physionet.org/content/ptb-xl/1.0.3/), whose
`scp_statements.csv` is copied here (CC BY 4.0). PTB-XL's ids and these have nothing to do with one another.
"""


@dataclass(frozen=True)
class SynthesisReport:
    """What `synthesize` did: the folder, its records, and how many of these a stopped run had finished."""

    path: Path
    num_records: int
    num_resumed: int


def synthesize(
    output: str | Path,
    num_records: int,
    *,
    seed: int = 0,
    rates: tuple[int, ...] = (100, 500),
    prevalence: Prevalence = "natural",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SynthesisReport:
    """Writes ``num_records`` simulated records and their tables into the folder ``output``, as PTB-XL is laid out.

    Record n is a function of (seed, n, prevalence) alone. Everything is written into ``OUTPUT.partial`` and renamed at
    the end; a run that was killed goes on there. ``overwrite`` replaces another simulated archive, nothing else.

    Raises:
        UsageError: for settings that make no archive.
        InputError: for an output that exists, an unfinished one of other settings, a second writer, a full disk.
    """
    output = Path(output)
    settings = Settings(seed, num_records, tuple(sorted(set(rates))), prevalence)
    _check_settings(settings, workers)
    _refuse_existing(output, overwrite)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _alone(output) as partial_folder:
            _begin(partial_folder, settings, output, overwrite)
            rows, resumed = _write_all(partial_folder, settings, workers, progress)
            _complete(partial_folder, output, settings, rows)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error}): make room, or name another --output; the same command goes on "
            "from the records that are finished"
        ) from error
    return SynthesisReport(output, num_records, resumed)


def _check_settings(settings: Settings, workers: int | None) -> None:
    problems = []
    if settings.num_records < 1:
        problems.append(f"records is {settings.num_records}: --records 1 or more")
    if settings.seed < 0:
        problems.append(f"seed is {settings.seed}: --seed 0 or more")
    if not settings.rates or not set(settings.rates) <= {100, 500}:
        problems.append(f"rates are {settings.rates}: --rate 100, 500 or both")
    if settings.prevalence not in get_args(Prevalence):
        problems.append(f"prevalence is {settings.prevalence!r}: --prevalence {' or '.join(get_args(Prevalence))}")
    if workers is not None and workers < 1:
        problems.append(f"workers is {workers}: --workers 1 or more (or unset)")
    if problems:
        raise UsageError("; ".join(problems))


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if not output.exists():
        refuse_unwritable(output)
        return
    if not overwrite:
        raise InputError(f"{output} exists already: name another --output, or replace it with --overwrite")
    if simulation_settings(output) is None:
        raise InputError(
            f"{output} is no simulated archive (it has no {SETTINGS}), --overwrite replaces nothing else: name another "
            "--output, or remove it yourself"
        )


@contextmanager
def _alone(output: Path) -> Generator[Path, None, None]:
    """The folder in the making, held by this process."""
    lock = output.with_name(output.name + ".partial.lock")
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another process is writing {output}, one writer at a time: wait for it, or name another --output"
            ) from None
        yield output.with_name(output.name + ".partial")
        lock.unlink()


def _begin(folder: Path, settings: Settings, output: Path, overwrite: bool) -> None:
    """An empty folder with the settings in it, or the one that a run of the same settings left."""
    _refuse_existing(output, overwrite)
    former = simulation_settings(folder)
    if former == settings.to_json():
        return
    if former is not None and not overwrite:
        differing = [name for name, value in settings.to_json().items() if former.get(name) != value]
        raise InputError(
            f"{folder} holds an unfinished archive with another {', '.join(differing)}: the same flags as before go on "
            "there, --overwrite starts anew, or name another --output"
        )
    if former is None and folder.exists() and any(path.name != _DRAFT for path in folder.iterdir()):
        raise InputError(f"{folder} is in the way and no unfinished archive: remove it, or name another --output")
    _check_space(folder, settings)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    (folder / _DRAFT).write_text(json.dumps(settings.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / _DRAFT).rename(folder / SETTINGS)


def _check_space(folder: Path, settings: Settings) -> None:
    needed = settings.num_records * sum(_BYTES[rate] for rate in settings.rates)
    free = shutil.disk_usage(folder.parent).free
    if free < needed * 1.02 + 2**20:
        raise InputError(
            f"{folder.parent} has {free / 2**20:,.0f} MiB free, {settings.num_records} records take "
            f"{needed / 2**20:,.0f} MiB: make room, name an --output on another disk, fewer --records or one --rate"
        )


def _write_all(
    folder: Path, settings: Settings, workers: int | None, progress: bool
) -> tuple[list[dict[str, str]], int]:
    """Rows of the table in order, and how many records were there already."""
    from rich.progress import Progress

    for path in {Path(record_path(number + 1, rate)) for number in range(0, settings.num_records + 1000, 999)
                 for rate in settings.rates}:  # fmt: skip
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
    chunks = [range(start, min(start + CHUNK, settings.num_records)) for start in range(0, settings.num_records, CHUNK)]
    if workers is None:
        workers = usable_cores() if settings.num_records >= _POOL_PAYS else 1
    write = partial(write_chunk, folder, settings)
    results = in_processes(write, chunks, min(workers, len(chunks))) if workers > 1 else (write(c) for c in chunks)
    rows: dict[int, dict[str, str]] = {}
    resumed = 0
    with Progress(disable=not progress) as bar, closing(results):
        task = bar.add_task("records", total=settings.num_records)
        for written, there in results:
            rows.update(written)
            resumed += there
            bar.advance(task, len(written))
    return [rows[number] for number in range(settings.num_records)], resumed


def write_chunk(folder: Path, settings: Settings, numbers: range) -> tuple[dict[int, dict[str, str]], int]:
    """Writes the records ``numbers`` that are not finished yet; rows of all of them by number, and how many were."""
    rows, there = {}, 0
    for number in numbers:
        plan = plan_record(settings.seed, number, settings.prevalence)
        heart = make_heart(plan)
        rows[number] = table_row(plan, heart)
        paths = {rate: folder / record_path(number + 1, rate) for rate in settings.rates}
        if finished(paths):
            there += 1
            continue
        ecg = ecg_of(plan, heart)
        for rate, path in paths.items():
            write_record(path, ecg if rate == 500 else at_100_hz(ecg), rate)
    return rows, there


def _complete(folder: Path, output: Path, settings: Settings, rows: list[dict[str, str]]) -> None:
    """Adds the tables, then gives the folder its name; a former archive goes only once the new one is whole."""
    (folder / STATEMENTS).write_bytes(files("ecg_lightning.data").joinpath(STATEMENTS).read_bytes())
    (folder / "README.md").write_text(_README.format(**settings.to_json()), encoding="utf-8")
    (folder / TABLE).write_text(table_text(rows), encoding="utf-8", newline="")
    os.sync()
    if output.exists():
        former = output.with_name(output.name + ".partial.former")
        shutil.rmtree(former, ignore_errors=True)
        output.rename(former)
        folder.rename(output)
        shutil.rmtree(former)
    else:
        folder.rename(output)

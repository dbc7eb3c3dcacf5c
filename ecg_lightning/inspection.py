"""What is in a store, for people and for programs."""

import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_lightning.chains import chain_to_json
from ecg_lightning.data.labels import label_counts
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, joined

if TYPE_CHECKING:
    from rich.table import Table


_OF_SOURCE = ("csv_sha256", "source_sha256", "codes_sha256", "notes", "conforming")
"""Attributes that only some kinds of sources have."""


def inspect_store(path: str | Path, json: bool = False, verify: bool = False) -> dict[str, Any]:
    """Prints what the store holds: signal, records and labels per fold and task, versions, hashes; and returns it.

    With ``json`` as JSON. With ``verify`` every signal is read and checked against its checksum.

    Raises:
        InputError: for a store that cannot be opened, or signals that are not what was written.
    """
    store = Store(path)
    summary = store_summary(store)
    damaged = store.verify() if verify else None
    summary["damaged_records"] = damaged
    print(dumps(summary, indent=1)) if json else _print(summary)
    if damaged:
        raise InputError(
            f"store {path}: {len(damaged)} of {store.num_records} signals are not what was written: {joined(damaged)}; "
            "make it again with `ecg-lightning prepare --source DIR --output STORE --backbone NAME --overwrite`"
        )
    return summary


def look_at_store(
    path: str | Path,
    plot: Sequence[str] | None = None,
    html: bool | str = False,
    output: str | None = None,
    *,
    all_records: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Draws the records ``plot`` and writes the page ``html`` (True: by its default name); says where, and returns it.

    Raises:
        InputError: for a store that cannot be opened, unknown records, files that are there.
        UsageError: for a file of another kind.
    """
    from ecg_lightning.report.ecg_page import plot_records, refuse_existing
    from ecg_lightning.report.store_page import page_path, write_store_page

    store, written = Store(path), []
    page = None if html is True else str(html)
    if html:
        refuse_existing([page_path(store, page)], overwrite)
    if plot is not None:
        written += plot_records(store, plot, output, overwrite=overwrite)
    if html:
        progress = sys.stderr.isatty()
        written.append(
            write_store_page(store, page, all_records=all_records, seed=seed, overwrite=overwrite, progress=progress)
        )
    for file in written:
        print(file)
    return written


def store_summary(store: Store) -> dict[str, Any]:
    """Signal, origin and counts of a store, ready for JSON; the counts as `label_counts` lays them out."""
    stored, records = store.stored, store.records
    attributes = {name: value for name, value in store.attributes.items() if name != "signal"}
    return {
        "store": str(store.path),
        "signal": {
            "record_rate": stored.record_rate,
            "sampling_rate": stored.sampling_rate,
            "leads": list(stored.leads),
            "num_time_points": stored.num_time_points,
            "chain": chain_to_json(stored.chain),
            "dtype": str(store.dtype),
        },
        **attributes,
        **_source_rates(store),
        "records_with_flat_leads": int((records["num_flat_leads"] > 0).sum()),
        **label_counts(store.likelihood, store.statements, records["strat_fold"], records["patient_id"]),
    }


def _source_rates(store: Store) -> dict[str, Any]:
    """How many files had which rate, in Hz; empty for PTB-XL, which is never resampled."""
    if "source_sampling_rate" not in store.records:
        return {}
    rates, counts = np.unique(store.records["source_sampling_rate"], return_counts=True)
    return {"source_sampling_rates": {f"{rate:g}": int(count) for rate, count in zip(rates, counts, strict=True)}}


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    facts = Table(show_header=False, title=summary["store"])
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in _facts(summary):
        facts.add_row(name, value)
    console.print(facts)
    console.print(_fold_table(summary))
    for task, counts in summary["tasks"].items():
        console.print(_task_table(task, counts))


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    signal = summary["signal"]
    checked = {None: "not checked (--verify)", 0: "all as written"}
    damaged = summary["damaged_records"]
    number = None if damaged is None else len(damaged)
    return [
        ("records, patients", f"{summary['records']}, {summary['patients']}"),
        ("signal", f"{signal['num_time_points']} time points at {signal['sampling_rate']:g} Hz, {signal['dtype']}"),
        ("made from", f"records {_rates(summary)}, chain {signal['chain']}"),
        ("leads", " ".join(signal["leads"])),
        ("source", f"{summary['source']} ({summary['source_version']})"),
        *((name.replace("_", " "), str(summary[name])) for name in _OF_SOURCE if name in summary),
        ("tables sha256", f"{summary['sha256']} (as written)"),
        ("signal checksums", checked.get(number, f"{number} differ")),
        ("flat leads", f"in {summary['records_with_flat_leads']} records"),
        ("versions", f"format {summary['format_version']}, ecg_lightning {summary['package_version']}"),
        ("command", summary["command"] or "(called from Python)"),
    ]


def _rates(summary: dict[str, Any]) -> str:
    own = f"{summary['signal']['record_rate']:g}"
    files = summary.get("source_sampling_rates", {own: summary["records"]})
    told = ", ".join(f"{number} of {rate} Hz" for rate, number in files.items())
    return f"of {own} Hz" if [*files] == [own] else f"of {own} Hz, resampled: the files are {told}"


def _fold_table(summary: dict[str, Any]) -> "Table":
    from rich.table import Table

    per_fold = summary["records_per_fold"]
    table = Table("records", *per_fold, "sum", title="Records per fold, and those that were judged for each task")
    table.add_row("all records", *map(str, per_fold.values()), str(summary["records"]))
    for task, counts in summary["tasks"].items():
        labelled = counts["labelled_records_per_fold"]
        table.add_row(task, *map(str, labelled.values()), str(counts["labelled_records"]))
    return table


def _task_table(task: str, counts: dict[str, Any]) -> "Table":
    from rich.table import Table

    folds = [*counts["labelled_records_per_fold"]]
    unknown = counts.get("unknown_per_class", {})
    title = f"{task}: {counts['n_classes']} classes, records per fold"
    table = Table("class", *folds, "sum", *(["unknown"] if unknown else []), title=title)
    for name in counts["classes"]:
        per_fold = counts["positives_per_class_per_fold"][name]
        table.add_row(
            name,
            *map(str, per_fold.values()),
            str(counts["positives_per_class"][name]),
            *([str(unknown[name])] if unknown else []),
        )
    return table

"""One HTML page on a store: what it is, what and whom it holds, how good its signals are, twenty ECGs."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecg_lightning.data.labels import label_counts
from ecg_lightning.data.store import Store
from ecg_lightning.report.count_sections import folds_section, people_section, statements_section, tasks_section
from ecg_lightning.report.ecg_page import MM_PER_INCH, millivolts, refuse_existing
from ecg_lightning.report.ecg_paper import draw_paper, plan_paper
from ecg_lightning.report.html import Html, Section, article, facts, heading, joined_html, page, paragraph, picture
from ecg_lightning.report.quality import store_quality
from ecg_lightning.report.quality_section import quality_section, tracked
from ecg_lightning.report.record_facts import (
    chain_in_words,
    record_name,
    record_notes,
    record_statements,
    record_title,
    signal_in_words,
)
from ecg_lightning.runs import NO_DEVICE, whole_file

NUM_ECGS = 20
_DPI = 120
_NUM_COLOURS = 24
PTBXL = Html(
    "Labels, statements and ECGs: PTB-XL, Wagner et al. 2020, Scientific Data 7:154 (doi 10.1038/s41597-020-0495-6), "
    '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>.'
)


def write_store_page(
    store: Store,
    output: str | Path | None = None,
    *,
    all_records: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Writes the page of ``store`` as ``output`` (by default its name with .html, in this folder), whole or not at all.

    Signal quality is measured on 5,000 records of a larger store, drawn by ``seed``, unless ``all_records``.

    Raises:
        InputError: for a file that is there and may not be overwritten.
    """
    path = page_path(store, output)
    refuse_existing([path], overwrite)
    text = store_page(store, all_records=all_records, seed=seed, progress=progress)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page_path(store: Store, output: str | Path | None = None) -> Path:
    """Where the page of ``store`` is written."""
    return Path(output) if output is not None else Path(f"{store.path.stem}.html")


def store_page(store: Store, *, all_records: bool = False, seed: int = 0, progress: bool = False) -> str:
    """The page as text; see `write_store_page`."""
    records = store.records
    counts = label_counts(store.likelihood, store.statements, records["strat_fold"], records["patient_id"])
    drawn = drawn_records(store.num_records, seed)
    anchors = {row: f"ecg-{records['ecg_id'][row]}" for row in drawn}
    quality = store_quality(store, all_records=all_records, seed=seed, track=tracked if progress else None)
    sections = [
        Section("folds", "Folds", folds_section(store, counts)),
        Section("tasks", "Tasks", tasks_section(store, counts)),
        Section("statements", "Statements", statements_section(store, counts)),
        Section("people", "Age and sex", people_section(store)),
        Section("quality", "Signal quality", quality_section(store, quality, anchors.get, seed)),
        Section("ecgs", f"{len(drawn)} ECGs drawn at random", ecgs_section(store, anchors, seed)),
    ]
    footer = [paragraph(NO_DEVICE), *([paragraph(PTBXL)] if store.statements.of_ptbxl else [])]
    title = f"{store.path.name}: {store.num_records:,} ECGs"
    return page(title, store_section(store, counts), sections, joined_html(footer))


def drawn_records(num_records: int, seed: int) -> list[int]:
    """Rows of up to twenty records, drawn by ``seed``, ascending."""
    chosen = np.random.default_rng(seed).choice(num_records, min(NUM_ECGS, num_records), replace=False)
    return sorted(chosen.tolist())


def store_section(store: Store, counts: dict[str, Any]) -> Html:
    """What the store is: signal, chain, source, versions, hashes."""
    attributes, chain = store.attributes, chain_in_words(store)
    csv_hash = attributes.get("csv_sha256")
    return facts(
        [
            ("records", f"{counts['records']:,} of {counts['patients']:,} patients"),
            ("signal", f"{signal_in_words(store)}, {store.dtype}: {' '.join(store.stored.leads)}"),
            ("chain", f"filtered: {chain}" if chain else "none: an unfiltered copy of the source"),
            ("made from", f"records of {store.stored.record_rate:g} Hz"),
            ("source", f"{attributes.get('source', 'unknown')} ({attributes.get('source_version', 'no version')})"),
            ("command", attributes.get("command") or "(called from Python)"),
            ("versions", f"format {attributes['format_version']}, ecg_lightning {attributes['package_version']}"),
            ("sha256 of the tables", attributes["sha256"]),
            *([("sha256 of the source's table", csv_hash)] if csv_hash else []),
        ]
    )


def ecgs_section(store: Store, anchors: dict[int, str], seed: int) -> Html:
    """The records whose rows ``anchors`` names: what the store says of each, and its picture."""
    chain = chain_in_words(store)
    to_print = "to print one at true scale: ecg-lightning inspect STORE --plot ECG_ID --output FILE.pdf"
    parts = [paragraph(f"Drawn with seed {seed}: {signal_in_words(store)}, 25 mm/s, 10 mm/mV; {to_print}")]
    if chain:
        parts.append(paragraph(f"Filtered signals, not as recorded: {chain}.", "warn"))
    return joined_html([*parts, *(_ecg(store, row, anchor) for row, anchor in anchors.items())])


def _ecg(store: Store, row: int, anchor: str) -> Html:
    statements = " · ".join(record_statements(store, row)) or "no statements"
    notes = "; ".join(record_notes(store, row))
    return article(
        anchor,
        [
            heading(record_title(store, row)),
            paragraph(statements),
            *([paragraph(f"noted by PTB-XL: {notes}", "soft")] if notes else []),
            picture(_drawing(store, row), f"ECG of record {record_name(store, row)}: {statements}"),
        ],
    )


def _drawing(store: Store, row: int) -> bytes:
    """The record on paper, as a PNG of few colours."""
    from PIL import Image

    ecg, rate, leads = millivolts(store, row), store.stored.sampling_rate, store.stored.leads
    paper = plan_paper(ecg, rate, leads)
    figure = Figure(figsize=(paper.width / MM_PER_INCH, paper.height / MM_PER_INCH))
    FigureCanvasAgg(figure)
    draw_paper(figure.add_axes((0, 0, 1, 1)), paper, ecg, rate, leads)
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, pil_kwargs={"compress_level": 0})
    Image.open(drawn).convert("RGB").quantize(_NUM_COLOURS).save(file, "PNG")
    return file.getvalue()

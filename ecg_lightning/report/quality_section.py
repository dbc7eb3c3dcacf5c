"""Signal quality on a page: what was measured and how, counts by lead, PTB-XL's own notes beside them, records."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.ptbxl import TEXT_COLUMNS
from ecg_lightning.data.store import Store
from ecg_lightning.report.html import Html, heading, joined_html, link, paragraph, table
from ecg_lightning.report.quality import DEFINITIONS, Quality
from ecg_lightning.report.record_facts import record_name

NUM_LISTED = 500
_NOTES = {
    "flat": ("electrodes_problems",),
    "noisy": ("static_noise", "burst_noise"),
    "wander": ("baseline_drift",),
}
"""PTB-XL's columns that come nearest to a fault."""


def quality_section(store: Store, quality: Quality, pictures: Callable[[int], str | None], seed: int) -> Html:
    """Faults of the records looked at; ``pictures`` gives the anchor of a row's picture on the page, if it has one."""
    num = len(quality.rows)
    drawn = f"{num:,} of {store.num_records:,} records, drawn with seed {seed}; --all_records looks at all"
    looked = drawn if num < store.num_records else f"all {num:,} records"
    faulty = int(_any_fault(quality).sum())
    parts = [
        paragraph(f"Looked at: {looked}. {faulty:,} have a lead with a fault as defined here; nothing is left out."),
        definitions(quality),
        _by_lead(store, quality),
        *_beside_notes(store, quality),
        heading("Records with faults"),
        _records(store, quality, pictures),
    ]
    return joined_html(parts)


def definitions(quality: Quality) -> Html:
    """When a lead has which fault."""
    words = {name: f"A lead is so if it {text}." for name, text in DEFINITIONS.items()}
    words["noisy"] = f"A lead is so with {DEFINITIONS['noisy']}."
    words["wander"] = f"A lead has it if {DEFINITIONS['wander']}."
    if "clipped" not in quality.faults:
        words["clipped"] = "Not measured: the store's signals are filtered, and filters round clipped tops off."
    return Html("<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in words.items()) + "</dl>")


def _by_lead(store: Store, quality: Quality) -> Html:
    rows: list[Sequence[object]] = [
        (
            lead,
            *(int(fault[:, place].sum()) for fault in quality.faults.values()),
            *(f"{np.median(mv[:, place]):.3f}" for mv in (quality.noise, quality.wander)),
        )
        for place, lead in enumerate(store.stored.leads)
    ]
    rows.append(("any lead", *(int(fault.any(axis=1).sum()) for fault in quality.faults.values()), "", ""))
    head = ("lead", *quality.faults, "median noise, mV", "median wander, mV")
    return table(head, rows, caption="Records by lead")


def _beside_notes(store: Store, quality: Quality) -> list[Html]:
    """Our counts beside what PTB-XL's readers noted, if the store has their columns."""
    noted = {name: _noted(store, quality, name) for name in TEXT_COLUMNS if name in store.records}
    if not noted:
        return []
    rows: list[Sequence[object]] = []
    for fault, columns in _NOTES.items():
        ours = quality.faults[fault].any(axis=1)
        theirs = np.zeros_like(ours)
        for name in columns:
            theirs = theirs | noted.get(name, False)
        both = int((ours & theirs).sum())
        rows.append((fault, " or ".join(columns), int(ours.sum()), int(theirs.sum()), both))
    rows += [
        ("", name, "", int(found.sum()), "") for name, found in noted.items() if name not in sum(_NOTES.values(), ())
    ]
    head = ("measured here", "column of PTB-XL", "measured", "noted", "both")
    return [heading("Beside PTB-XL's own notes"), table(head, rows, caption="Records", texts=(0, 1))]


def _noted(store: Store, quality: Quality, column: str) -> NDArray[np.bool_]:
    return np.array([bool(str(text).strip(" ,")) for text in store.records[column][quality.rows]], bool)


def _any_fault(quality: Quality) -> NDArray[np.bool_]:
    return np.asarray(np.any([fault.any(axis=1) for fault in quality.faults.values()], axis=0))


def _records(store: Store, quality: Quality, pictures: Callable[[int], str | None]) -> Html:
    """Those with most faulty leads first."""
    num_faulty = np.sum([fault.sum(axis=1) for fault in quality.faults.values()], axis=0)
    order = [place for place in np.argsort(-num_faulty, kind="stable") if num_faulty[place]]
    if not order:
        return paragraph("None.")
    rows: list[Sequence[object]] = []
    for place in order[:NUM_LISTED]:
        row = int(quality.rows[place])
        name, anchor = record_name(store, row), pictures(row)
        rows.append(
            (
                link(anchor, name) if anchor else name,
                *(_leads(store.stored.leads, fault[place]) for fault in quality.faults.values()),
                f"{quality.noise[place].max():.3f}",
                f"{quality.wander[place].max():.2f}",
            )
        )
    more = f"; {len(order) - NUM_LISTED:,} more are not listed" if len(order) > NUM_LISTED else ""
    caption = f"Those with most faults first{more}; a link leads to the picture below"
    head = ("record", *quality.faults, "most noise, mV", "most wander, mV")
    listed = table(head, rows, caption=caption, kind="counts list", texts=range(1 + len(quality.faults)))
    return Html(f"<details><summary>{len(order):,} records</summary>\n{listed}\n</details>")


def _leads(leads: Sequence[str], having: NDArray[np.bool_]) -> str:
    return "all leads" if having.all() and len(leads) > 1 else " ".join(np.array(leads)[having])


def tracked(chunks: Iterable[NDArray[np.int64]], num_chunks: int) -> Iterable[NDArray[np.int64]]:
    """Shows on the error channel how far the reading is."""
    from rich.console import Console
    from rich.progress import track

    return track(chunks, "signal quality", total=num_chunks, console=Console(stderr=True))

"""The records that a recipe gets most wrong, each with its ECG on paper, as the store has it."""

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.store import Store
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError
from ecg_lightning.report.drawn import Drawn, files_of, report_style
from ecg_lightning.report.ecg_page import millivolts, signal_page, wrapped
from ecg_lightning.report.html import Html, article, bar, heading, paragraph, table
from ecg_lightning.report.judged import Judged
from ecg_lightning.report.record_facts import (
    chain_in_words,
    record_notes,
    record_statements,
    record_title,
    signal_in_words,
)
from ecg_lightning.runs import NO_DEVICE

_SHOWN = 6
"""Labels whose probabilities are told beside an ECG."""
_LEAST = 1e-7
_DPI = 130
_NUM_COLOURS = 32


@dataclass(frozen=True)
class Wrong:
    """One record: ``row`` of the predictions, its mean ``loss`` in nats, (label, probability, carried) told of it."""

    row: int
    name: str
    loss: float
    labels: tuple[tuple[str, float, int], ...]

    @property
    def carried(self) -> list[str]:
        """Labels of the record."""
        return [label for label, _, carried in self.labels if carried == 1]


def losses(probabilities: NDArray[np.float64], labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(record,) mean binary cross-entropy in nats over the labels that are known; 0 where none is.

    ``probabilities`` and ``labels`` are (record, label).
    """
    known = labels <= 1
    right = np.where(labels == 1, probabilities, 1 - probabilities)
    terms = np.where(known, -np.log(np.clip(right, _LEAST, 1)), 0)
    result: NDArray[np.float64] = terms.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return result


def most_wrong(one: Judged, number: int) -> list[Wrong]:
    """The records of the largest loss under the mean probabilities of the seeds, the worst first."""
    first, probabilities = one.files[0], one.probabilities
    loss = losses(probabilities, first.labels)
    order = np.argsort(-loss, kind="stable")[:number]
    return [
        Wrong(int(row), str(first.record_id[row]), float(loss[row]), _told(one, probabilities[row], int(row)))
        for row in order
    ]


def _told(one: Judged, probabilities: NDArray[np.float64], row: int) -> tuple[tuple[str, float, int], ...]:
    """The record's own labels, and the likeliest others; the likeliest first."""
    first = one.files[0]
    labels = first.labels[row]
    chosen = np.lexsort((-probabilities, labels != 1))[: max(_SHOWN, int((labels == 1).sum()))]
    shown = sorted(chosen.tolist(), key=lambda place: -probabilities[place])
    return tuple((first.label_names[at], float(probabilities[at]), int(labels[at])) for at in shown)


def wrong_parts(one: Judged, number: int, name: str) -> list[Html | Drawn]:
    """Text, probabilities and ECG of each; where the store is gone, its absence is said in place of the ECG."""
    store, problem = opened_store(one.files[0].meta)
    parts: list[Html | Drawn] = []
    if problem:
        parts.append(paragraph(f"No ECGs: {problem}", "warn"))
    elif store is not None and (chain := chain_in_words(store.stores[0])):
        parts.append(paragraph(f"Filtered signals, not as recorded: {chain}.", "warn"))
    for place, wrong in enumerate(most_wrong(one, number), start=1):
        parts.append(_text(one, wrong, name, place))
        if store is not None:
            where, row, doubt = _place(store, one, wrong)
            parts.append(
                paragraph(f"No ECG: {doubt}", "warn")
                if doubt
                else _drawn(where, row, wrong, f"{name}_{place}", f"{one.group.task}, {one.group.label}")
            )
    return parts


def opened_store(meta: dict[str, Any]) -> tuple[StoreSet | None, str]:
    """The stores that predictions name, or why they cannot be used."""
    named = meta.get("store")
    if not named:
        return None, "the predictions do not say of which store they are."
    gone = [path for path in ([named] if isinstance(named, str) else named) if not Path(path).exists()]
    if gone:
        return (
            None,
            f"the store {', '.join(gone)} is not there any more: put it back, or run the test with another store.",
        )
    try:
        store = StoreSet(named)
    except InputError as error:
        return None, f"{error}"
    if store.sha256 != meta.get("store_sha256"):
        return None, f"{store.name} is not the store of these predictions any more (its hash is another)."
    return store, ""


def _place(store: StoreSet, one: Judged, wrong: Wrong) -> tuple[Store, int, str]:
    first = one.files[0]
    where = store.stores[0 if first.store is None else int(first.store[wrong.row])]
    rows = np.flatnonzero(where.records["ecg_id"] == first.record_id[wrong.row])
    return where, int(rows[0]) if len(rows) else -1, "" if len(rows) else f"{where.path.name} has no such record."


def _text(one: Judged, wrong: Wrong, name: str, place: int) -> Html:
    first = one.files[0]
    carried = ", ".join(wrong.carried) or "no label of the task"
    rows = [
        [
            label,
            {1: "yes", 0: "no"}.get(known, "unknown"),
            f"{probability:.3f}",
            bar(probability, "second" if known == 1 else ""),
        ]
        for label, probability, known in wrong.labels
    ]
    return article(
        f"{name}_{place}",
        [
            heading(f"{place}. Record {wrong.name}, fold {first.fold[wrong.row]}: carries {carried}"),
            paragraph(
                f"Mean binary cross-entropy {wrong.loss:.2f} nats; probabilities, mean over {len(one.seeds)} seed(s):"
            ),
            table(("label", "carried", "probability", ""), rows, texts=(0, 1, 3)),
        ],
    )


def _drawn(store: Store, row: int, wrong: Wrong, name: str, of: str) -> Drawn:
    stored = store.stored
    head = partial(_head, store, row, wrong)
    with report_style():
        foot = f"{store.path.name} · {of} · {NO_DEVICE}"
        figure = signal_page(millivolts(store, row), stored.sampling_rate, stored.leads, head, foot)
        png, pdf = files_of(figure, name, _DPI)
    statements = "; ".join(record_statements(store, row)) or "no statements"
    caption = (
        f"Record {wrong.name} as the store has it ({signal_in_words(store)}). Statements of the source: {statements}."
    )
    return Drawn(name, caption, f"ECG of record {wrong.name}", few_colours(png), pdf, figure.get_figwidth(), "paper")


def _head(store: Store, row: int, wrong: Wrong, num_characters: int) -> list[tuple[str, str]]:
    said = " · ".join(f"{label} {probability:.2f}" for label, probability, _ in wrong.labels)
    lines = [(record_title(store, row), "black")]
    lines += wrapped(f"carries {', '.join(wrong.carried) or 'no label'}; predicted: {said}", num_characters, "black")
    if notes := record_notes(store, row):
        lines += wrapped(f"noted by PTB-XL: {'; '.join(notes)}", num_characters, "#444444")
    return lines


def few_colours(png: bytes) -> bytes:
    """A PNG of an ECG in a few colours, a third as large."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(_NUM_COLOURS).save(file, "PNG")
    return file.getvalue()

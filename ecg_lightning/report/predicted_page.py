"""One's own ECGs on paper with what a run said of them; drawn in worker processes."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ecg_lightning.data.formats import Layout, Recording, read_recording
from ecg_lightning.report.ecg_page import file_name, save_pages, signal_page, wrapped
from ecg_lightning.runs import NO_DEVICE

TOP = 5
"""Statements named over an ECG."""


class Picture(NamedTuple):
    """One picture to draw.

    Attributes:
        record: the record's file, read again: it is drawn as recorded, not as the network saw it.
        output: the PNG.
        statements: label and probability of the likeliest, the likeliest first.
        remarks: what was done to the record, and what is doubtful about it.
        origin: what said so: the checkpoint.
    """

    record: Path
    output: Path
    statements: Sequence[tuple[str, float]]
    remarks: Sequence[str]
    origin: str


def draw_predicted(layout: Layout, pictures: Sequence[Picture]) -> int:
    """Draws the pictures; their number.

    Raises:
        InputError: for a record that can no longer be read.
    """
    for picture in pictures:
        recording = read_recording(picture.record, layout)
        head = partial(_head, picture, recording)
        foot = f"{picture.record.name} · {picture.origin} · {NO_DEVICE}"
        page = signal_page(recording.ecg, recording.sampling_rate, recording.leads, head, foot)
        save_pages([page], picture.output)
    return len(pictures)


def picture_names(records: Sequence[Path], folder: Path) -> list[Path]:
    """A PNG's path in ``folder`` for each record, named by its path below the folder that all of them are in."""
    common = Path(os.path.commonpath([path.absolute().parent for path in records]))
    taken: Counter[str] = Counter()
    paths = []
    for record in records:
        name = file_name("_".join(record.absolute().relative_to(common).with_suffix("").parts))
        taken[name] += 1
        paths.append(folder / f"ecg_{name}{f'_{taken[name]}' if taken[name] > 1 else ''}.png")
    return paths


def _head(picture: Picture, recording: Recording, num_characters: int) -> list[tuple[str, str]]:
    said = " · ".join(f"{label} {probability:.3f}" for label, probability in picture.statements)
    seconds = recording.ecg.shape[1] / recording.sampling_rate
    rate = f"{recording.sampling_rate:g} Hz"
    signal = f"as recorded: {len(recording.leads)} leads, {seconds:g} s at {rate}, 25 mm/s, 10 mm/mV"
    lines = [(f"Record {picture.record.with_suffix('').name}", "black")]
    lines += wrapped(f"predicted: {said}", num_characters, "black")
    lines += wrapped(NO_DEVICE, num_characters, "#B00020")
    for remark in (signal, *picture.remarks):
        lines += wrapped(remark, num_characters, "#444444")
    return lines

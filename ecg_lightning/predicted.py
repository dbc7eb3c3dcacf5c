"""What `predict` found: collected, written with where it comes from, drawn and told."""

import csv
import io
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.chains import chain_to_json
from ecg_lightning.data.telling import counted, print_table
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.runs import NO_DEVICE, file_sha256, refuse_unwritable, whole_file, write_json

if TYPE_CHECKING:
    from ecg_lightning.data.conversion import Told
    from ecg_lightning.data.formats import Layout
    from ecg_lightning.data.reading import Reading, ReadRecord
    from ecg_lightning.trained_run import TrainedRun

_RECORD, _CHECKPOINT, _NOTE = "record", "checkpoint_sha256", "note"
"""Columns of the csv beside those of the labels."""
_SHOWN = 20
"""Rows of a table on the screen."""


@dataclass
class Predicted:
    """Probabilities and problems, by the record's place in ``paths``."""

    paths: tuple[Path, ...]
    label_names: tuple[str, ...]
    rows: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """Probabilities (label,)."""
    told: "dict[int, Told]" = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)

    def note(self, chunk: "Sequence[ReadRecord]") -> "list[ReadRecord]":
        """Takes down what was read; the records that can be predicted."""
        self.problems |= {one.place: one.problem for one in chunk if one.problem}
        self.told |= {one.place: one.told for one in chunk if one.told is not None}
        return [one for one in chunk if not one.problem]

    def add(self, places: Sequence[int], probabilities: NDArray[np.float32]) -> None:
        """``probabilities`` (record, label) of the records at ``places``."""
        for place, row in zip(places, probabilities, strict=True):
            if np.isfinite(row).all():
                self.rows[place] = row
            else:
                self.problems[place] = (
                    f"{self.paths[place]}: the network gave what is no number: does the record hold voltages in mV, "
                    "and did the training of the run converge?"
                )

    @property
    def places(self) -> list[int]:
        """Of the records that were predicted, in order."""
        return sorted(self.rows)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(record, label) of those records."""
        return np.stack([self.rows[place] for place in self.places])

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Record and reason."""
        named = [(str(self.paths[place]), self.problems[place]) for place in sorted(self.problems)]
        return [(path, reason.removeprefix(f"{path}: ")) for path, reason in named]

    @property
    def doubts(self) -> dict[str, list[str]]:
        """What is doubtful about records that were predicted all the same."""
        return {str(self.paths[place]): self.told[place].doubts for place in self.places if self.told[place].doubts}

    @property
    def notes(self) -> list[str]:
        """What was done to how many records."""
        return counted(note for place in self.places for note in self.told[place].notes)


@dataclass(frozen=True)
class Outputs:
    """The files that are written: predictions, what they come from, the records that failed, pictures."""

    path: Path
    plot: Path | None
    overwrite: bool

    @property
    def origin(self) -> Path:
        """What a csv comes from; an npz holds it itself."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def failed(self) -> Path:
        """The records that failed."""
        return self.path.with_name(f"{self.path.name}.failed.csv")

    def pictures(self, records: Sequence[Path]) -> list[Path]:
        """Of each record."""
        from ecg_lightning.report.predicted_page import picture_names

        return [] if self.plot is None else picture_names(records, self.plot)

    def check(self, records: Sequence[Path], label_names: Sequence[str]) -> None:
        """Refuses, before anything is computed, what could not be written.

        Raises:
            UsageError: for another kind of file, a label called as a column of the csv that is none.
            InputError: for files that are there.
        """
        if (kind := self.path.suffix.lower()) not in (".csv", ".npz"):
            raise UsageError(f"--output {self.path}: predictions are .csv or .npz: --output {self.path.stem}.csv")
        if kind == ".csv" and (taken := {_RECORD, _CHECKPOINT, _NOTE} & set(label_names)):
            raise UsageError(
                f"--output {self.path}: the run has labels called as columns of the csv, {', '.join(sorted(taken))}: "
                f"--output {self.path.stem}.npz"
            )
        files = [self.path, self.origin, *self.pictures(records)]
        if self.path.exists():  # else it is what a call left that predicted nothing, and this one does better
            files.append(self.failed)
        if there := [str(path) for path in files if path.exists() and not self.overwrite]:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise InputError(f"{there[0]}{more}: there already; name another file, or replace it with --overwrite")
        refuse_unwritable(self.path)
        if self.plot is not None:
            refuse_unwritable(self.plot / "ecg.png", "--plot")

    def write(self, trained: "TrainedRun", reading: "Reading", predicted: Predicted) -> None:
        """Writes predictions and failures; what a former call left of either, and this one has not, goes."""
        is_csv = self.path.suffix.lower() == ".csv"
        written = {self.path: bool(predicted.rows), self.origin: bool(predicted.rows) and is_csv}
        written[self.failed] = bool(predicted.problems)
        self._write_files(trained, reading, predicted)
        for path, is_new in written.items():
            if not is_new:
                path.unlink(missing_ok=True)

    def _write_files(self, trained: "TrainedRun", reading: "Reading", predicted: Predicted) -> None:
        ends = (trained.checkpoint_sha256, NO_DEVICE)
        if predicted.failed:
            write_csv(
                self.failed, (_RECORD, "why", _CHECKPOINT, _NOTE), [(*failure, *ends) for failure in predicted.failed]
            )
        if not predicted.rows:
            return
        meta = _meta(trained, reading, predicted)
        if self.path.suffix.lower() == ".npz":
            _write_npz(self.path, predicted, meta)
            return
        names = (_RECORD, *predicted.label_names, _CHECKPOINT, _NOTE)
        rows = [(str(predicted.paths[place]), *map(str, predicted.rows[place]), *ends) for place in predicted.places]
        write_csv(self.path, names, rows)
        write_json(self.origin, {**meta, "predictions": self.path.name, "predictions_sha256": file_sha256(self.path)})


def _meta(trained: "TrainedRun", reading: "Reading", predicted: Predicted) -> dict[str, Any]:
    signal, stored = trained.signal, reading.stored
    return {
        **trained.origin(),
        "label_names": list(predicted.label_names),
        "num_records": len(predicted.rows),
        "num_failed": len(predicted.problems),
        "signal": {
            "record_rate": stored.record_rate,
            "leads": list(stored.leads),
            "longest_record_seconds": reading.record_points / stored.record_rate,
            "shortest_record_seconds": reading.least / stored.record_rate,
            "chain": chain_to_json(signal.chain),
            "windows": asdict(signal.windows),
        },
        "done": predicted.notes,
        "doubts": predicted.doubts,
    }


def _write_npz(path: Path, predicted: Predicted, meta: dict[str, Any]) -> None:
    """In the one format of predictions: nobody knows labels, patients or folds, so these say unknown, each, and 0."""
    places = predicted.places
    number = np.arange(1, len(places) + 1, dtype=np.int64)
    shape = (len(places), len(predicted.label_names))
    Predictions(
        record_id=number,
        patient_id=number,
        fold=np.zeros(len(places), np.int8),
        probabilities=predicted.probabilities,
        labels=np.full(shape, 255, np.uint8),
        label_names=predicted.label_names,
        meta={**meta, "split": "predict", "records": [str(predicted.paths[place]) for place in places]},
    ).save(path)


def write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([names, *rows])
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def draw(trained: "TrainedRun", layout: "Layout", predicted: Predicted, outputs: Outputs, workers: int | None) -> None:
    """Draws every record that was predicted, with its likeliest statements."""
    from rich.console import Console
    from rich.progress import Progress

    from ecg_lightning.data.workers import over_chunks
    from ecg_lightning.report.predicted_page import TOP, Picture, draw_predicted

    files = outputs.pictures(predicted.paths)
    origin = f"{trained.run.path.name}, checkpoint {trained.checkpoint_sha256[:12]}"
    pictures = []
    for place in predicted.places:
        row, told = predicted.rows[place], predicted.told[place]
        top = [(predicted.label_names[column], float(row[column])) for column in np.argsort(-row)[:TOP]]
        remarks = [*[f"for the network: {note}" for note in told.notes], *[f"check: {doubt}" for doubt in told.doubts]]
        pictures.append(Picture(predicted.paths[place], files[place], top, remarks, origin))
    bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
    with bar, closing(over_chunks(partial(draw_predicted, layout), pictures, workers)) as numbers:
        shown = bar.add_task("pictures", total=len(pictures))
        for number in numbers:
            bar.advance(shown, number)


def report(predicted: Predicted, outputs: Outputs) -> int:
    """Tells what was done, and the exit code: 1 where a record failed."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    for note in predicted.notes:
        console.print(f"- {note}")
    doubts = [(path, "; ".join(found)) for path, found in predicted.doubts.items()]
    print_table(console, "Doubtful records (predicted)", ("record", "what to check"), doubts, _SHOWN)
    print_table(console, "Records that failed", ("record", "why"), predicted.failed, _SHOWN)
    if predicted.rows:
        print(f"{outputs.path}: {len(predicted.rows)} records, {len(predicted.label_names)} labels. {NO_DEVICE}")
        if outputs.plot is not None:
            print(f"{outputs.plot}: {len(predicted.rows)} pictures")
    if not predicted.problems:
        return 0
    left = "no record could be predicted" if not predicted.rows else "the others are predicted"
    print(
        f"ecg-lightning predict: {len(predicted.problems)} of {len(predicted.paths)} records failed, {left}: "
        f"{outputs.failed} says why",
        file=sys.stderr,
    )
    return 1

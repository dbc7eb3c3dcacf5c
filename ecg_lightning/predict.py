"""The command predict: what a run says of one's own ECGs, read by the readers and the conversion of `prepare`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ecg_lightning.commands import listed
from ecg_lightning.errors import UsageError

if TYPE_CHECKING:
    from ecg_lightning.data.reading import Reading, ReadRecord
    from ecg_lightning.predicted import Predicted
    from ecg_lightning.trained_run import TrainedRun


def predict(
    run: str,
    records: list[str],
    output: str,
    checkpoint: str | None = None,
    sampling_rate: float | None = None,
    leads: str | None = None,
    unit: Literal["mV", "uV", "V"] = "mV",
    seconds: float | None = None,
    windows: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    workers: int | None = None,
    plot: str | None = None,
    overwrite: bool = False,
) -> int:
    """Writes a run's probabilities for one's own ECGs; research software, not a medical device.

    Records are read as `prepare` reads them: leads by name, derived leads, other rates resampled. Those that cannot be
    read are listed, and written to OUTPUT.failed.csv; the others are predicted, and the exit code is 1. Computed in
    float32, whatever the precision of the training.

    Args:
        run: the run folder.
        records: files of WFDB, CSV, NPY and what else `prepare` reads, or folders, which are searched to the bottom;
            below a folder with .hea files only these are records.
        output: FILE.csv, a row per record (record, a column per label, checkpoint_sha256, note), with FILE.csv.json on
            where it comes from; or FILE.npz, as `test` writes it, with every label unknown (255).
        checkpoint: another than the best of the last phase: a path, or last.
        sampling_rate: Hz, of CSV and NPY files that do not say it.
        leads: names in the files' order where they have none, such as I,II,V1.
        unit: of CSV and NPY files that do not say it.
        seconds: of longer records only so many are taken; as many as the run's own records had if left out.
        windows: so many windows, spread evenly over each record; as many as the backbone's authors took if left out.
        batch_size: windows computed at once.
        device: cpu, cuda, cuda:1, mps; by default a GPU where there is one.
        workers: processes that read; by default one per core where that pays.
        plot: a folder to draw each ECG in, with its likeliest statements, on ECG paper.
        overwrite: replace files that are there.
    """
    from ecg_lightning.data.formats import Layout, find_recordings
    from ecg_lightning.predicted import Outputs, draw, report
    from ecg_lightning.screen import set_up_screen
    from ecg_lightning.trained_run import load_run

    set_up_screen()
    if batch_size < 1 or (workers is not None and workers < 1):
        raise UsageError(f"--batch_size is {batch_size}, --workers {workers}: each must be 1 or more")
    layout = Layout(sampling_rate, listed(leads), unit)
    trained = load_run(run, checkpoint=checkpoint, device=device).with_windows(windows)
    reading = trained.reading(layout, seconds)
    paths = find_recordings(records)
    outputs = Outputs(Path(output), None if plot is None else Path(plot), overwrite)
    outputs.check(paths, trained.label_names)
    predicted = predict_files(trained, reading, paths, batch_size, workers, progress=sys.stderr.isatty())
    outputs.write(trained, reading, predicted)
    if outputs.plot is not None:
        draw(trained, layout, predicted, outputs, workers)
    return report(predicted, outputs)


def predict_files(
    trained: "TrainedRun",
    reading: "Reading",
    paths: Sequence[Path],
    batch_size: int,
    workers: int | None,
    *,
    progress: bool,
) -> "Predicted":
    """Reads and predicts every record, in order; what cannot be read is noted."""
    from rich.console import Console
    from rich.progress import Progress

    from ecg_lightning.data.reading import Job, read_records
    from ecg_lightning.data.workers import over_chunks
    from ecg_lightning.predicted import Predicted

    predicted = Predicted(tuple(paths), trained.label_names)
    jobs = [Job(place, path) for place, path in enumerate(paths)]
    waiting: list[ReadRecord] = []
    bar = Progress(console=Console(stderr=True), disable=not progress)
    with bar, closing(over_chunks(partial(read_records, reading), jobs, workers)) as chunks:
        shown = bar.add_task("records", total=len(paths))
        for chunk in in_order(chunks):
            waiting += predicted.note(chunk)
            if len(waiting) >= batch_size:
                _compute(trained, predicted, waiting, batch_size)
                waiting = []
            bar.advance(shown, len(chunk))
        _compute(trained, predicted, waiting, batch_size)
    return predicted


def in_order(chunks: "Iterable[list[ReadRecord]]") -> "Iterator[list[ReadRecord]]":
    """The chunks by place: the same batches, and so the same last bits, whichever process was first."""
    early: dict[int, list[ReadRecord]] = {}
    place = 0
    for chunk in chunks:
        early[chunk[0].place] = chunk
        while place in early:
            now = early.pop(place)
            place += len(now)
            yield now


def _compute(trained: "TrainedRun", predicted: "Predicted", waiting: "Sequence[ReadRecord]", batch_size: int) -> None:
    signals = [record.ecg for record in waiting if record.ecg is not None]
    if signals:
        predicted.add([record.place for record in waiting], trained.probabilities(signals, batch_size))

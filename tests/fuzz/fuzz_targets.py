"""The four readers of files that anybody may have written, each as a function of bytes; only `InputError` leaves them.

`fuzz.py` looks for bytes that break them, `test_corpus.py` runs what it found.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from ecg_lightning.backbones import Backbone, HuBERTECGSmall, ViT, load_weights
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.labels import label_counts
from ecg_lightning.data.ptbxl import STATEMENTS, TABLE, read_table
from ecg_lightning.data.record import header_length, read_record, read_whole_record
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.splits import Split
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.signals import LEADS_12, SignalSpec

SIGNAL = SignalSpec(100, 40)
"""Of the stores that are seeds: 40 time points at 100 Hz, unfiltered."""
RECORD = "r.hea"
_FILE = re.compile(rb"(?:^|\n)@@([\w.]{1,40})\n")


def read_store(content: bytes, folder: Path) -> None:
    """Opens, verifies and counts a store, and cuts a batch out of it for training and one for evaluation."""
    path = folder / "store.h5"
    path.write_bytes(content)
    stores = StoreSet(path)
    stores.check_fits(SIGNAL, "vit")
    stores.stores[0].verify()
    labels = TaskLabels(stores, next(iter(stores.statements.tasks), "superdiagnostic"))
    split = Split(labels, stores.folds, only_labelled=True)
    len(split), split.all_rows(), split.patients()
    rows = np.arange(min(stores.num_records, 4))
    for training in (True, False):
        ECGDataset(labels, SIGNAL, training=training, seed=0).__getitems__(Request(rows, 0, 0, len(rows)))


def read_source(content: bytes, folder: Path) -> None:
    """Reads PTB-XL's two tables or a WFDB record out of files packed by `packed`."""
    for name, file in unpacked(content).items():
        (folder / name).write_bytes(file)
    if (folder / TABLE).exists() or (folder / STATEMENTS).exists():
        table = read_table(folder)
        columns = table.records
        label_counts(table.likelihood, table.statements, columns["strat_fold"], columns["patient_id"])
        return
    record = folder / Path(RECORD).stem
    header_length(record)
    each_alone(
        lambda: read_record(record, LEADS_12, 100),
        lambda: read_whole_record(record),
        lambda: read_recording(folder / RECORD, Layout()),
    )


def read_weights(content: bytes, folder: Path) -> None:
    """Loads a file of weights into a network, and into one whose authors saved objects beside the weights."""
    path = folder / "weights"
    path.write_bytes(content)
    each_alone(*(lambda one=one: str(load_weights(one, path)) for one in networks()))


def read_predictions(content: bytes, folder: Path) -> None:
    """Reads an npz of predictions, or a csv where the content is no archive."""
    path = folder / ("predictions.npz" if content.startswith(b"PK") else "predictions.csv")
    path.write_bytes(content)
    Predictions.load(path)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "store": read_store,
    "source": read_source,
    "weights": read_weights,
    "predictions": read_predictions,
}


def each_alone(*readers: Callable[[], object]) -> None:
    """Runs all, so that what one refuses keeps nothing from the next."""
    for read in readers:
        with suppress(InputError):
            read()


@cache
def networks() -> tuple[Backbone, ...]:
    """The smallest ones; what is loaded into them is of no matter."""
    return (
        ViT(depth=1, dim=4, heads=1, patch=(12, 50), num_time_points=100),
        HuBERTECGSmall(dim=16, depth=1, heads=1, conv_channels=2),
    )


def packed(files: dict[str, bytes]) -> bytes:
    """Several small files as one: each behind a line ``@@name``."""
    return b"".join(b"\n@@%s\n%s" % (name.encode(), file) for name, file in files.items())


def unpacked(content: bytes) -> dict[str, bytes]:
    """The files of `packed`; all of it the record's header where no name is told."""
    _, *parts = _FILE.split(content)
    named = {name.decode(): file for name, file in zip(parts[::2], parts[1::2], strict=True)}
    return {name: file for name, file in named.items() if name.strip(".")} or {RECORD: content}

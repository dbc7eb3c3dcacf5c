"""The real records on which an exported file is held against its run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.formats import Layout, find_recordings
from ecg_lightning.data.labelled_blocks import NoLabels
from ecg_lightning.data.reading import Job, read_records
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError, joined

if TYPE_CHECKING:
    from ecg_lightning.trained_run import TrainedRun


def compared_windows(trained: "TrainedRun", records: Sequence[str] | None, most: int) -> tuple[Tensor, str]:
    """Windows (window, lead, time) in mV of ``records``, or of up to ``most`` of the run's own, and what they are of.

    Raises:
        InputError: for records that cannot be read; without any where the run's store is gone.
    """
    if records is None:
        return _of_store(trained, most)
    paths = find_recordings(records)[:most]
    seconds = trained.run.record_seconds
    reading = trained.reading(Layout(), seconds if seconds is not None else trained.shortest_seconds)
    read = read_records(reading, [Job(place, path) for place, path in enumerate(paths)])
    if problems := [one.problem for one in read if one.problem]:
        raise InputError(f"records to compare on: {joined(problems)}; name others with --records")
    windows = [trained.windows(one.ecg) for one in read if one.ecg is not None]
    return torch.from_numpy(
        np.concatenate(windows)
    ), f"{len(paths)} records of {joined([Path(one).name for one in records])}"


def _of_store(trained: "TrainedRun", most: int) -> tuple[Tensor, str]:
    """Of records spread over the stores that the run was trained on."""
    try:
        stores = StoreSet(trained.stores)
        stores.check_fits(trained.signal, trained.classifier.backbone.flag_name())
    except InputError as error:
        raise InputError(f"no records to compare on ({error}): name some with --records FOLDER") from None
    dataset = ECGDataset(NoLabels(stores), trained.signal, training=False, seed=0)
    dataset.in_millivolts = True
    rows = np.unique(np.linspace(0, stores.num_records - 1, most).astype(np.int64))
    windows = dataset.__getitems__(Request(rows, 0, 0, len(rows)))["ecg"]
    return windows.flatten(0, 1), f"{len(rows)} records of {Path(stores.name).name}"

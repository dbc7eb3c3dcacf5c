"""How other loaders read one record: the usual ways, and those of three published networks, rebuilt from descriptions.

Each is a function (row of the store, first time point) -> (lead, time) float32, what reaches the network.
"""

import os
import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray

from ecg_lightning.data.ptbxl import read_table
from ecg_lightning.data.store import Store
from ecg_lightning.data.store_set import StoreSet

Read = Callable[[int, int], NDArray[np.float32]]
MEAN, DEVIATION = -0.00077717, 0.23895642
"""Of the PTB-XL benchmark's published scaler."""


def usual_reads(
    source: Path, real: Path, sampling_rate: int, width: int, stores: StoreSet, folder: Path
) -> tuple[dict[str, Read], NDArray[np.float32]]:
    """The usual ways, and windows (record, lead, time) of the whole set as float32 in memory, in order.

    ``real`` holds the records of ``source`` as they are; ``stores`` the same over and over.
    """
    paths, ecgs = _paths(source, sampling_rate), _millivolts(Store(real))
    for row, ecg in enumerate(ecgs):
        np.save(folder / f"{sampling_rate}-{row}.npy", ecg)
    _write_gzip(folder / f"gzip{sampling_rate}.h5", ecgs)
    number, memory = len(ecgs), _millivolts(stores.stores[0])

    def from_wfdb(row: int, start: int) -> NDArray[np.float32]:
        record = wfdb.rdrecord(paths[row % number], sampfrom=start, sampto=start + width)
        return np.ascontiguousarray(record.p_signal.T, np.float32)

    def from_npy(row: int, start: int) -> NDArray[np.float32]:
        ecg: NDArray[np.float32] = np.load(folder / f"{sampling_rate}-{row % number}.npy")
        return ecg[:, start : start + width]

    def from_gzip(row: int, start: int) -> NDArray[np.float32]:
        ecg: NDArray[np.float32] = _opened(folder / f"gzip{sampling_rate}.h5", os.getpid())[row % number]
        return ecg[:, start : start + width]

    def from_memory(row: int, start: int) -> NDArray[np.float32]:
        return memory[row, :, start : start + width]

    reads: dict[str, Read] = {
        "wfdb per item": from_wfdb,
        ".npy per record": from_npy,
        "gzip HDF5": from_gzip,
        "in memory, per item": from_memory,
    }
    return reads, np.ascontiguousarray(memory[..., :width])


def ecgfounder_reads(source: Path, real: Path, stores: StoreSet, folder: Path) -> Read:
    """PKUDigitalHealth/ECGFounder, dataset.py and util.py: wfdb, notch, band-pass, running median, z-score per item."""
    from scipy.signal import butter, filtfilt, iirnotch, medfilt

    paths = _paths(source, 500)

    def read(row: int, start: int) -> NDArray[np.float32]:
        ecg = np.nan_to_num(wfdb.rdsamp(paths[row % len(paths)])[0].T)
        ecg = filtfilt(*iirnotch(50, 30, 500), ecg, axis=-1)
        ecg = filtfilt(*butter(4, [0.67, 40], btype="bandpass", fs=500), ecg, axis=-1)
        ecg = ecg - np.stack([medfilt(lead, 201) for lead in ecg])
        return ((ecg - ecg.mean()) / (ecg.std() + 1e-8)).astype(np.float32)

    return read


def st_mem_reads(source: Path, real: Path, stores: StoreSet, folder: Path) -> Read:
    """bakqui/ST-MEM, util/dataset.py and transforms.py: a pickle a record, resampled, cropped, filtered, z-scored."""
    from scipy.signal import butter, resample, sosfiltfilt

    paths = _paths(source, 500)
    for row, path in enumerate(paths):
        ecg = wfdb.rdsamp(path)[0].T.astype(np.float32)
        (folder / f"st-mem-{row}.pkl").write_bytes(pickle.dumps(ecg))
    high = butter(5, 0.67, btype="highpass", fs=250, output="sos")
    low = butter(5, 40, btype="lowpass", fs=250, output="sos")

    def read(row: int, start: int) -> NDArray[np.float32]:
        with (folder / f"st-mem-{row % len(paths)}.pkl").open("rb") as file:
            ecg = pickle.load(file)
        ecg = resample(ecg, 2500, axis=-1)[:, start : start + 2250]
        ecg = sosfiltfilt(low, sosfiltfilt(high, ecg))
        return ((ecg - ecg.mean()) / ecg.std()).astype(np.float32)

    return read


def ptbxl_benchmark_reads(source: Path, real: Path, stores: StoreSet, folder: Path) -> Read:
    """helme/ecg_ptbxl_benchmarking, timeseries_utils.py: the standardised set in memory, (time, lead), cropped."""
    memory = np.ascontiguousarray(_millivolts(stores.stores[0]).transpose(0, 2, 1))
    memory = ((memory - MEAN) / DEVIATION).astype(np.float32)

    def read(row: int, start: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(memory[row, start : start + 250].T)

    return read


def _millivolts(store: Store) -> NDArray[np.float32]:
    """(record, lead, time)."""
    return np.asarray(store.signals()) * np.float32(store.millivolts_per_unit)


def _paths(source: Path, sampling_rate: int) -> list[str]:
    column = "filename_lr" if sampling_rate == 100 else "filename_hr"
    return [str(source / name) for name in read_table(source).filenames[column]]


def _write_gzip(path: Path, ecgs: NDArray[np.float32]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", data=ecgs, chunks=(1, *ecgs.shape[1:]), compression="gzip")


@lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> Any:
    """One handle a process."""
    import h5py

    return h5py.File(path, "r")["ecg"]

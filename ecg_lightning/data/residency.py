"""Where the signals of a fit lie: in the store's file, in memory, or on the device.

Whatever it is, batches hold the same records, the same windows and the same bits: a run may be resumed with another.
"""

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecg_lightning.data.store_set import Rows, StoreSet
from ecg_lightning.signals import SignalSpec

log = logging.getLogger(__name__)
Residency = Literal["memmap", "memory", "device"]
MOST_SHARE = 0.5
"""Of a device's or a machine's memory that signals may take: the network, its gradients and batches need the rest."""
COPIED_AT_ONCE = 1 << 26
"""Bytes."""
GB = 1e9


@dataclass(frozen=True, eq=False)
class Resident:
    """Signals of some records, copied out of their stores.

    Attributes:
        rows: their places in the data set, ascending.
        signals: (record, lead, time), the backbone's leads in its order; int16 or float32 as stored, or float32 mV
            where the stores differ in what a 1 is.
        width: time points of a window.
    """

    rows: Rows
    signals: Tensor
    width: int

    def windows(self, cuts: Tensor) -> Tensor:
        """Windows (batch, window, lead, time) at ``cuts``, see `places_and_starts`."""
        places, starts = cuts.unbind(-1)
        if self.width == self.signals.shape[-1]:  # whole records: in one piece each
            return self.signals.index_select(0, places.flatten()).view(*places.shape, *self.signals.shape[1:])
        return self.signals.unfold(2, self.width, 1)[places, :, starts]


def places_and_starts(resident: Rows, rows: Rows, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(batch, window, 2): each window's record by its place among those that are resident, and its first time point.

    ``starts`` is (batch, window). All that a batch brings along where its signals lie on the device.
    """
    places = places_among(resident, rows)
    return np.stack([np.broadcast_to(places[:, None], starts.shape), starts], axis=-1)


def places_among(resident: Rows, rows: Rows) -> Rows:
    """Place of each record among those that are resident."""
    places = np.searchsorted(resident, rows)
    assert (resident.take(places, mode="clip") == rows).all(), "a loader asks for records that are not resident"
    return places


def copy_of_signals(stores: StoreSet, rows: Rows, signal: SignalSpec, device: torch.device) -> Resident:
    """The signals at ``rows`` (ascending) on ``device``, read once, in order, a piece at a time."""
    started = time.perf_counter()
    shape, dtype = _shape(stores, len(rows), signal), _dtype(stores)
    if device.type == "cpu":
        copy = torch.from_numpy(np.empty(shape, dtype))  # NumPy asks for huge pages, torch does not
    else:
        copy = torch.empty(shape, dtype=torch.int16 if dtype == np.int16 else torch.float32, device=device)
    for start, piece in _pieces(stores, rows, signal):
        copy[start : start + len(piece)].copy_(torch.from_numpy(piece))
    seconds = time.perf_counter() - started
    log.info("signals of %d records on %s: %.2f GB, copied in %.1f s", len(rows), device, copy.nbytes / GB, seconds)
    return Resident(rows, copy, signal.window_points)


def fits(stores: StoreSet, num_records: int, signal: SignalSpec, device: torch.device, num_processes: int = 1) -> bool:
    """Whether that many records may lie on ``device``; says so where not, and what is done instead.

    They may take half of its memory, and what is free of it. In a machine's memory each of its processes has a copy.
    """
    need = math.prod(_shape(stores, num_records, signal)) * _dtype(stores).itemsize
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        num_processes = 1
    else:
        free, total = _memory_of_machine()
    if need * num_processes <= min(free, MOST_SHARE * total):
        return True
    log.warning(
        "signals of %d records take %s%.2f GB, more than is free (%.2f GB) or than half of the memory of %s (%.2f GB): "
        "they are read through memory maps instead, as with data.residency=memmap; the batches are the same",
        num_records, f"{num_processes} x " if num_processes > 1 else "", need / GB, free / GB,
        "this machine" if device.type == "cpu" else device, total / GB,
    )  # fmt: skip
    return False


def in_one_unit(stores: StoreSet) -> float | None:
    """What a 1 of every store is in mV; None where they differ."""
    kinds = {(store.dtype, store.millivolts_per_unit) for store in stores.stores}
    return kinds.pop()[1] if len(kinds) == 1 else None


def _dtype(stores: StoreSet) -> np.dtype[Any]:
    return np.dtype(np.float32) if in_one_unit(stores) is None else stores.stores[0].dtype


def _shape(stores: StoreSet, num_records: int, signal: SignalSpec) -> tuple[int, int, int]:
    return num_records, len(signal.leads), stores.stored.num_time_points


def _pieces(stores: StoreSet, rows: Rows, signal: SignalSpec) -> Iterator[tuple[int, NDArray[np.int16 | np.float32]]]:
    """Place of the first record, and some records' signals (record, lead, time) in the backbone's leads."""
    numbers, places = stores.store_of(rows)
    in_millivolts = in_one_unit(stores) is None
    first = 0
    for number, store in enumerate(stores.stores):
        mine, signals = places[numbers == number], np.asarray(store.signals())
        leads = signal.lead_indices(store.stored.leads)
        at_once = max(1, COPIED_AT_ONCE // signals[:1].nbytes)
        for start in range(0, len(mine), at_once):
            piece = signals[mine[start : start + at_once, None], leads]
            if in_millivolts:
                piece = piece.astype(np.float32) * np.float32(store.millivolts_per_unit)
            yield first + start, piece
        first += len(mine)


def _memory_of_machine() -> tuple[int, int]:
    """Bytes that are available, where the system tells it, and in all; of its container, where that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    total = min(total, int(text)) if text.isdigit() else total
    told = Path("/proc/meminfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min([total, *available]), total

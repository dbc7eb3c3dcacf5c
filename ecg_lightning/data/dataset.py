"""Batches of windows out of stores: through memory maps that each process opens for itself, or out of memory."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ecg_lightning.data.batch_memory import BatchMemory
from ecg_lightning.data.batches import Batch
from ecg_lightning.data.labelled_blocks import NoLabels, TaskLabels
from ecg_lightning.data.labels import UNKNOWN_LABEL
from ecg_lightning.data.residency import Resident, in_one_unit, places_among, places_and_starts
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.store_set import Rows
from ecg_lightning.data.window_starts import random_starts
from ecg_lightning.signals import SignalSpec

AT_ONCE = 1 << 21
"""Bytes of windows that are brought to mV at a time, out of an array that half of them fill: caches hold both."""


class ECGDataset(Dataset[Batch]):
    """Windows of the stores' records as they are stored (int16 or float32), fetched a batch at a time.

    Args:
        labels: of the task, for every record of its stores; or none.
        signal: what the backbone takes.
        training: cut one random window, keyed by (seed, epoch, record); else those of evaluation.
        seed: of the random windows.
    """

    def __init__(self, labels: TaskLabels | NoLabels, signal: SignalSpec, *, training: bool, seed: int) -> None:
        self.labels, self.stores, self.signal = labels, labels.stores, signal
        self.training, self.seed = training, seed
        self.leave_signals_out = False
        self.memory = BatchMemory()
        self.fixed_windows = 0
        """So many windows a record in training, taken in turn over the epochs; 0 draws another in each."""
        self.in_memory: Resident | None = None
        self.on_device: Rows | None = None
        self.in_millivolts = in_one_unit(self.stores) is None
        """Whether batches come as float32 mV; where they travel to a GPU, int16 is half the way."""
        self.leads = [_places(signal, store.stored.leads) for store in self.stores.stores]

    def use(self, *, in_memory: Resident | None = None, on_device: Rows | None = None) -> None:
        """Reads from memory, or leaves the windows of these records to be cut on the device; by default the stores."""
        self.in_memory, self.on_device = in_memory, on_device
        self.__dict__.pop("_views", None)

    @property
    def windows_move(self) -> bool:
        """Whether another window of a record may be cut in each epoch."""
        longer = self.stores.stored.num_time_points > self.signal.window_points
        return self.training and longer and self.signal.windows.train != "centre"

    @property
    def num_windows(self) -> int:
        """Windows of a record over all epochs; 0 where training draws one anew in each."""
        if self.training:
            return self.fixed_windows if self.windows_move else 1
        return len(self.signal.windows.evaluation_starts(self.stores.stored.num_time_points, self.signal.window_points))

    def __len__(self) -> int:
        return self.stores.num_records

    def __getstate__(self) -> dict[str, Any]:
        # A pickled map is a copy of the file (facts: 45 MiB for 45 MiB); another process reads the stores.
        return {**{name: value for name, value in self.__dict__.items() if name != "_views"}, "in_memory": None}

    def __getitem__(self, row: int) -> Batch:
        """One record as a batch of one."""
        return self.__getitems__(Request(np.array([row]), 0, 0, 1))

    def __getitems__(self, request: Request) -> Batch:
        """The records of a request, (batch, window, lead, time); what is to be cut where they lie on the device."""
        ecg_ids, labels = self.labels.of(request.rows)
        if not request.counts:
            labels = np.full_like(labels, UNKNOWN_LABEL)  # of which there is no loss and no gradient
        batch: Batch = {
            "index": torch.from_numpy(request.rows),
            "labels": torch.from_numpy(labels),
            "num_global": request.num_global,
            "first": request.first,
        }
        if not request.counts:
            batch["counts"] = False
        if self.leave_signals_out:
            return batch
        starts = self._starts(ecg_ids, request.epoch)
        if self.on_device is not None:
            batch["cuts"] = torch.from_numpy(places_and_starts(self.on_device, request.rows, starts))
        else:
            batch["ecg"] = torch.from_numpy(self._windows(request.rows, starts))
        return batch

    @cached_property
    def _views(self) -> list[NDArray[Any]]:
        """Of each store all windows that could be cut, (record, lead, first time point, time), without a copy."""
        if self.in_memory is not None:
            signals = [self.in_memory.signals.numpy()]
        else:
            signals = [np.asarray(store.signals()) for store in self.stores.stores]  # a memmap's own indexing is slower
        return [sliding_window_view(one, self.signal.window_points, axis=2) for one in signals]

    def _unit(self, number: int) -> np.float32:
        """What a 1 is in mV."""
        are_millivolts = self.in_memory is not None and in_one_unit(self.stores) is None
        return np.float32(1 if are_millivolts else self.stores.stores[number].millivolts_per_unit)

    def _windows(self, rows: Rows, starts: NDArray[np.int64]) -> NDArray[Any]:
        """Out of the map and to mV, a few records at a time so that they stay in the cache: the fastest on a thread."""
        kind = np.dtype(np.float32) if self.in_millivolts else self._views[0].dtype
        shape = (*starts.shape, len(self.signal.leads), self.signal.window_points)
        windows = self.memory.empty(shape, kind)
        at_once = max(1, AT_ONCE // max(1, windows[:1].nbytes))
        for number, here, places in self._by_store(rows):
            unit = self._unit(number)
            for start in range(0, len(places), at_once):
                part = slice(start, start + at_once)
                where = part if here is None else here[part]
                cut = self._cut(number, places[part], starts[where])
                if not self.in_millivolts:
                    windows[where] = cut
                elif here is None:
                    np.multiply(cut, unit, out=windows[part])  # one pass, where convert and scale are two
                else:
                    windows[where] = cut * unit
        return windows

    def _by_store(self, rows: Rows) -> Iterator[tuple[int, NDArray[np.int64] | None, Rows]]:
        """Each store with the places in the batch of its records (None: all of them), and their places in the store."""
        if self.in_memory is not None:
            yield 0, None, places_among(self.in_memory.rows, rows)
            return
        numbers, places = self.stores.store_of(rows)
        if len(self.stores.stores) == 1:
            yield 0, None, places
            return
        for number in np.unique(numbers).tolist():
            here = np.flatnonzero(numbers == number)
            yield number, here, places[here]

    def _cut(self, number: int, places: Rows, starts: NDArray[np.int64]) -> NDArray[Any]:
        """Windows (record, window, lead, time) of one store as they lie there."""
        view, leads = self._views[number], slice(None) if self.in_memory is not None else self.leads[number]
        if isinstance(leads, slice):
            windows: NDArray[Any] = view[places[:, None], :, starts]
        else:
            windows = view[places[:, None, None], leads, starts[:, :, None]]
        return windows

    def _starts(self, ecg_ids: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """First time points (record, window)."""
        windows, width = self.signal.windows, self.signal.window_points
        points = self.stores.stored.num_time_points
        last = points - width
        if self.training and windows.train == "random" and last:
            key = epoch % self.fixed_windows if self.fixed_windows else epoch
            return random_starts(self.seed, key, ecg_ids, last)[:, None]
        starts = [last // 2] if self.training else windows.evaluation_starts(points, width)
        return np.broadcast_to(np.array(starts), (len(ecg_ids), len(starts)))


def _places(signal: SignalSpec, stored_leads: tuple[str, ...]) -> slice | list[int]:
    """The backbone's leads among those stored; all of them in order as a slice, which is a view."""
    leads = signal.lead_indices(stored_leads)
    return slice(None) if leads == list(range(len(stored_leads))) else leads

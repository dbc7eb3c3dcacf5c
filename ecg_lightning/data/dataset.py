"""Batches of windows out of stores, read through memory maps that each process opens for itself."""

from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ecg_lightning.data.batch_memory import BatchMemory
from ecg_lightning.data.batches import Batch
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.splits import NoLabels, TaskLabels
from ecg_lightning.data.store_set import Rows
from ecg_lightning.signals import SignalSpec

IN_CACHE = 1 << 20
"""Bytes of windows that are brought to mV at a time: about what the second-level cache of a core holds."""


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
        self.fixed_windows = 0
        """So many windows a record in training, taken in turn over the epochs; 0 draws another in each."""
        self.in_millivolts = self.units is None
        """Whether batches come as float32 mV; where they travel to a GPU, int16 is half the way."""
        self._memory = BatchMemory()
        self.leads = [_places(signal, store.stored.leads) for store in self.stores.stores]

    @property
    def units(self) -> float | None:
        """What a 1 of every store is in mV; None where they differ."""
        kinds = {(store.dtype, store.millivolts_per_unit) for store in self.stores.stores}
        return kinds.pop()[1] if len(kinds) == 1 else None

    def __len__(self) -> int:
        return self.stores.num_records

    def __getstate__(self) -> dict[str, Any]:
        # A pickled map is a copy of the file (facts: 45 MiB for 45 MiB).
        return {name: value for name, value in self.__dict__.items() if name != "_signals"}

    def __getitem__(self, row: int) -> Batch:
        """One record as a batch of one."""
        return self.__getitems__(Request(np.array([row]), 0, 0, 1))

    def __getitems__(self, request: Request) -> Batch:
        """The records of a request, (batch, window, lead, time)."""
        ecg_ids, labels = self.labels.of(request.rows)
        batch: Batch = {
            "index": torch.from_numpy(request.rows),
            "labels": torch.from_numpy(labels),
            "num_global": request.num_global,
            "first": request.first,
        }
        if not self.leave_signals_out:
            batch["ecg"] = torch.from_numpy(self._windows(request.rows, ecg_ids, request.epoch))
        return batch

    @cached_property
    def _signals(self) -> list[NDArray[Any]]:
        return [np.asarray(store.signals()) for store in self.stores.stores]  # a memmap's own indexing is slower

    @cached_property
    def _units(self) -> NDArray[np.float32]:
        return np.array([store.millivolts_per_unit for store in self.stores.stores], np.float32)

    def _windows(self, rows: Rows, ecg_ids: NDArray[np.int64], epoch: int) -> NDArray[Any]:
        """Record by record out of the map, then to mV a few records at a time: the fastest on one thread."""
        width = self.signal.window_points
        last = self.stores.stored.num_time_points - width
        starts = [self._starts(ecg_id, epoch, last) for ecg_id in ecg_ids.tolist()] if last else [[0]] * len(rows)
        kind = np.dtype(np.float32) if self.in_millivolts else self._signals[0].dtype
        windows = self._memory.empty((len(rows), len(starts[0]), len(self.signal.leads), width), kind)
        numbers, places = self.stores.store_of(rows)
        units = self._units[numbers, None, None, None]
        records = zip(windows, numbers.tolist(), places.tolist(), starts, strict=True)
        at_once = max(1, IN_CACHE // max(1, windows[:1].nbytes))
        for start in range(0, len(rows), at_once):
            self._fill(islice(records, at_once), width)
            if self.in_millivolts:
                windows[start : start + at_once] *= units[start : start + at_once]
        return windows

    def _fill(self, records: Iterable[tuple[NDArray[Any], int, int, list[int]]], width: int) -> None:
        """Copies the windows of some records, each (its place in the batch, store, row, first time points)."""
        signals, leads = self._signals, self.leads
        as_it_is = [
            isinstance(places, slice) and ecgs.shape[-1] == width for places, ecgs in zip(leads, signals, strict=True)
        ]
        for windows, number, row, starts in records:
            ecg = signals[number][row]
            if as_it_is[number]:
                windows[...] = ecg
            else:
                for window, start in zip(windows, starts, strict=True):
                    window[...] = ecg[leads[number], start : start + width]

    def _starts(self, ecg_id: int, epoch: int, last: int) -> list[int]:
        windows = self.signal.windows
        if not self.training:
            return windows.evaluation_starts(last + self.signal.window_points, self.signal.window_points)
        if windows.train == "centre":
            return [last // 2]
        key = epoch % self.fixed_windows if self.fixed_windows else epoch
        return [int(np.random.default_rng((self.seed, key, ecg_id)).integers(last + 1))]


def _places(signal: SignalSpec, stored_leads: tuple[str, ...]) -> slice | list[int]:
    """The backbone's leads among those stored; all of them in order as a slice, which is a view."""
    leads = signal.lead_indices(stored_leads)
    return slice(None) if leads == list(range(len(stored_leads))) else leads

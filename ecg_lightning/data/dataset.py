"""Batches of windows out of stores, read through memory maps that each process opens for itself."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ecg_lightning.data.batches import Batch
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.splits import NoLabels, TaskLabels
from ecg_lightning.data.store_set import Rows
from ecg_lightning.signals import SignalSpec


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
        self.in_millivolts = self.units is None
        """Whether batches come as float32 mV; where they travel to a GPU, int16 is half the way."""
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
    def _units(self) -> list[np.float32]:
        return [np.float32(store.millivolts_per_unit) for store in self.stores.stores]

    def _windows(self, rows: Rows, ecg_ids: NDArray[np.int64], epoch: int) -> NDArray[Any]:
        """Record by record, without an array in between: the fastest on one thread, with or without conversion."""
        signals, units, width = self._signals, self._units, self.signal.window_points
        last = self.stores.stored.num_time_points - width
        starts = [self._starts(ecg_id, epoch, last) for ecg_id in ecg_ids.tolist()] if last else [[0]] * len(rows)
        kind = np.dtype(np.float32) if self.in_millivolts else signals[0].dtype
        windows = np.empty((len(rows), len(starts[0]), len(self.signal.leads), width), kind)
        numbers, places = (array.tolist() for array in self.stores.store_of(rows))
        as_it_is = [last == 0 and isinstance(leads, slice) for leads in self.leads]
        for record, number, row, cuts in zip(windows, numbers, places, starts, strict=True):
            ecg, leads = signals[number][row], self.leads[number]
            record[...] = ecg if as_it_is[number] else [ecg[leads, start : start + width] for start in cuts]
            if self.in_millivolts:
                record *= units[number]  # while it is in the cache
        return windows

    def _starts(self, ecg_id: int, epoch: int, last: int) -> list[int]:
        windows = self.signal.windows
        if not self.training:
            return windows.evaluation_starts(last + self.signal.window_points, self.signal.window_points)
        if windows.train == "centre":
            return [last // 2]
        return [int(np.random.default_rng((self.seed, epoch, ecg_id)).integers(last + 1))]


def _places(signal: SignalSpec, stored_leads: tuple[str, ...]) -> slice | list[int]:
    """The backbone's leads among those stored; all of them in order as a slice, which is a view."""
    leads = signal.lead_indices(stored_leads)
    return slice(None) if leads == list(range(len(stored_leads))) else leads

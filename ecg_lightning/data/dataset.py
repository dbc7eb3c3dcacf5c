"""Batches of windows out of a store, read through a memory map that each process opens for itself."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ecg_lightning.data.batches import Batch
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.store import Store
from ecg_lightning.signals import SignalSpec


class ECGDataset(Dataset[Batch]):
    """Windows of a store's records as they are stored (int16 or float32), fetched a batch at a time.

    Args:
        store: the opened store.
        signal: what the backbone takes.
        labels: (record, label) uint8, for every record of the store.
        training: cut one random window, keyed by (seed, epoch, record); else those of evaluation.
        seed: of the random windows.
    """

    def __init__(
        self, store: Store, signal: SignalSpec, labels: NDArray[np.uint8], *, training: bool, seed: int
    ) -> None:
        self.store, self.signal, self.labels = store, signal, labels
        self.training, self.seed = training, seed
        self.leave_signals_out = False
        self.in_millivolts = False
        """Whether batches come as float32 mV; where they travel to a GPU, int16 is half the way."""
        leads = signal.lead_indices(store.stored.leads)
        self.num_leads = len(leads)
        in_order = leads == list(range(len(store.stored.leads)))
        self.leads: slice | list[int] = slice(None) if in_order else leads  # a slice is a view
        self._signals: NDArray[Any] | None = None

    def __len__(self) -> int:
        return self.store.num_records

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_signals": None}  # a pickled map is a copy of the file (facts: 45 MiB for 45 MiB)

    def __getitem__(self, row: int) -> Batch:
        """One record as a batch of one."""
        return self.__getitems__(Request(np.array([row]), 0, 0, 1))

    def __getitems__(self, request: Request) -> Batch:
        """The records of a request, (batch, window, lead, time)."""
        batch: Batch = {
            "index": torch.from_numpy(request.rows),
            "labels": torch.from_numpy(self.labels[request.rows]),
            "num_global": request.num_global,
            "first": request.first,
        }
        if not self.leave_signals_out:
            batch["ecg"] = torch.from_numpy(self._windows(request))
        return batch

    def _windows(self, request: Request) -> NDArray[Any]:
        """Record by record, without an array in between: the fastest on one thread, with or without conversion."""
        if self._signals is None:
            self._signals = np.asarray(self.store.signals())  # a memmap's own indexing is slower
        signals, width = self._signals, self.signal.num_time_points
        last = signals.shape[-1] - width
        rows = request.rows.tolist()
        starts = [self._starts(row, request.epoch, last) for row in rows] if last else [[0]] * len(rows)
        unit = np.float32(self.store.millivolts_per_unit) if self.in_millivolts else None
        kind = signals.dtype if unit is None else unit.dtype
        windows = np.empty((len(rows), len(starts[0]), self.num_leads, width), kind)
        whole = last == 0 and isinstance(self.leads, slice)
        for record, row, places in zip(windows, rows, starts, strict=True):
            ecg = signals[row]
            record[...] = ecg if whole else [ecg[self.leads, start : start + width] for start in places]
            if unit is not None:
                record *= unit  # while it is in the cache
        return windows

    def _starts(self, row: int, epoch: int, last: int) -> list[int]:
        windows = self.signal.windows
        if not self.training:
            return windows.evaluation_starts(last + self.signal.num_time_points, self.signal.num_time_points)
        if windows.train == "centre":
            return [last // 2]
        ecg_id = int(self.store.records["ecg_id"][row])
        return [int(np.random.default_rng((self.seed, epoch, ecg_id)).integers(last + 1))]

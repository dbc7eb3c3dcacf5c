"""The loader of batches, and the threads that read ahead for it."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ecg_lightning.data.batches import Batch
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.sampler import Request

MORE_AHEAD = 1
"""Batches that are ready or being made, more than there are threads: no thread waits for the step to take its last."""


class BatchLoader(DataLoader[Batch]):
    """Makes the batches that are asked for, in order, each as a whole; threads read ahead.

    Threads, where torch's own loader starts processes: what a batch costs is NumPy's copying, in which it lays
    Python's lock down, so that threads work side by side. They share the stores' maps and the signals in memory, hand
    a batch over as it lies, and end with their loader; processes would write each batch once more, map it, and heed
    signals of their own (measured: benchmarks/README.md). The chain behind the crop runs where the network does.

    Args:
        dataset: fetches all records of a request at once.
        requests: of the batches, in order; this process's part of each.
        num_threads: that read ahead; 0 makes each batch when it is asked for, in the thread that trains.
        pin_for: the GPU that batches will be copied to: they are put to where it fetches them from.
    """

    def __init__(
        self,
        dataset: ECGDataset,
        requests: Iterable[Request],
        *,
        num_threads: int = 0,
        pin_for: torch.device | None = None,
    ) -> None:
        super().__init__(dataset, batch_sampler=requests, pin_memory=pin_for is not None)  # type: ignore[arg-type]
        self.num_threads, self.pin_for = num_threads, pin_for

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """The batches; those in the making when an iterator is closed are dropped."""
        requests: Iterable[Request] = self.batch_sampler  # type: ignore[assignment]
        if self.num_threads:
            return self._ahead(iter(requests))
        return map(self._made, requests)

    def _made(self, request: Request) -> Batch:
        batch = self.dataset.__getitems__(request)  # type: ignore[attr-defined]
        return _pinned(batch) if self.pin_memory else batch

    def _ahead(self, requests: Iterator[Request]) -> Iterator[Batch]:
        begin = None
        if self.pin_for is not None:
            torch.get_num_threads()  # settled for this thread now, else by what the others set for themselves
            begin = partial(_begin_pinning, self.pin_for)
        threads = ThreadPoolExecutor(self.num_threads, "reads-ahead", begin)
        begun: deque[Future[Batch]] = deque()
        try:
            begun.extend(threads.submit(self._made, r) for r in islice(requests, self.num_threads + MORE_AHEAD))
            while begun:
                begun.extend(threads.submit(self._made, request) for request in islice(requests, 1))
                yield begun.popleft().result()  # held by the step alone: its memory is free once that lets go of it
        finally:
            threads.shutdown(cancel_futures=True)


def _begin_pinning(pin_for: torch.device) -> None:
    """In each thread that pins memory, as torch's own loader does there. Nothing else in it is torch's."""
    torch.set_num_threads(1)  # else its copies call a team of OpenMP threads, which wait by taking cores
    torch.cuda.set_device(pin_for)  # else it would open the first GPU, in every process


def _pinned(batch: Batch) -> Batch:
    pinned: Any = {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}
    return pinned  # type: ignore[no-any-return]

"""The processes that read ahead: what they have of the process that trains, and what not."""

import random
import signal
from multiprocessing import forkserver
from typing import Any

import numpy as np
import pytest
import torch
from locked import LOCK, Locked
from processes import signal_from_elsewhere
from torch.utils.data import DataLoader

from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.loading import batch_loader
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.signals import SignalSpec


def loader(data: Any, requests: list[Any], *, num_processes: int, rank: int = 0) -> "DataLoader[Any]":
    return batch_loader(data, requests, num_workers=1, rank=rank, num_processes=num_processes, pin_memory=False)


# Python 3.12 and later, where a fork follows threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize(("num_processes", "had"), [(1, False), (2, True)])
def test_only_a_worker_of_several_processes_is_free_of_the_locks_that_were_held_when_it_started(
    num_processes: int, had: bool
) -> None:
    """In one process nothing holds any: with others there are threads that do, and are not there to give them back."""
    with LOCK:
        assert [*loader(Locked(), [[0]], num_processes=num_processes)] == [had]


def test_workers_of_several_processes_read_what_the_process_itself_reads(tiny_store: Any) -> None:
    labels = TaskLabels(StoreSet(tiny_store), "all")
    data = ECGDataset(labels, SignalSpec(100, 1000), training=False, seed=3)
    requests = [Request(np.array(rows), 0, 0, 3) for rows in ([0, 1, 2], [5, 3, 4])]
    for request, batch in zip(requests, loader(data, requests, num_processes=2), strict=True):
        for name, value in data.__getitems__(request).items():
            assert torch.equal(torch.as_tensor(batch[name]), torch.as_tensor(value)), name


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_worker_heeds_its_own_process_alone(num_processes: int) -> None:
    """Schedulers signal the whole group; the loader itself ends a worker that does not end by itself."""
    batches = iter(loader(Locked(), [[0]] * 4, num_processes=num_processes))
    assert next(batches)
    (worker,) = batches._workers  # type: ignore[attr-defined]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal_from_elsewhere(worker.pid, number)
    assert [*batches] == [True] * 3
    batches = iter(loader(Locked(), [[0]] * 4, num_processes=num_processes))
    assert next(batches)
    (worker,) = batches._workers  # type: ignore[attr-defined]
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def test_the_process_that_starts_workers_stays_through_signals_to_the_group() -> None:
    assert [*loader(Locked(), [[0]], num_processes=2)] == [True]
    starter = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal_from_elsewhere(starter, number)
    assert [*loader(Locked(), [[0]], num_processes=2)] == [True]
    assert forkserver._forkserver._forkserver_pid == starter  # type: ignore[attr-defined]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(
        {signal.SIGTERM, signal.SIGUSR1}
    )  # here they are heeded


class Drawing:
    """Its batches are what the worker's three generators give next."""

    def __getitems__(self, _: Any) -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    def __len__(self) -> int:
        return 1


def test_what_steps_of_ones_own_draw_differs_from_process_to_process_and_is_the_same_again() -> None:
    first, again = ([*loader(Drawing(), [[0]], num_processes=2)] for _ in range(2))
    other = [*loader(Drawing(), [[0]], num_processes=2, rank=1)]
    assert first == again
    assert not set(first[0]) & set(other[0])

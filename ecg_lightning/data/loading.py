"""The loader of batches, and the processes that read ahead for it."""

import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ecg_lightning.data.batches import Batch
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.workers import end_with_parent

STARTED_WITH = ["ecg_lightning.data.loading"]
"""What the process that starts the workers imports, once for all of them."""


def shares_memory(num_processes: int) -> bool:
    """Whether workers see what lies in the memory of the process that they read for."""
    return num_processes == 1


def worker_context(num_processes: int) -> BaseContext | None:
    """How the workers of one of so many training processes are started; None as the system does, by a fork on Linux.

    A process that trains with others has their connections' threads in it. A fork copies the locks that these hold at
    that moment, and not them: a worker was seen to wait for ever, and all processes for it. So one process per training
    process, without threads, stands ready to be forked.
    """
    if shares_memory(num_processes):
        return None
    context = get_context("forkserver")
    context.set_forkserver_preload(STARTED_WITH)
    return context


def make_ready(num_workers: int, num_processes: int) -> None:
    """Starts in the background, where it is needed, the process that workers are forked from: it takes seconds.

    It stays when a whole group of processes receives a signal, as its workers do, and ends with the process that
    trains. With it comes Python's own that tidies up behind a process that ends at once, as behind a signal, and would
    say so.
    """
    if not num_workers or worker_context(num_processes) is None:
        return
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        resource_tracker.ensure_running()  # first: it lets signals through again
        with _held_back(signal.SIGTERM, signal.SIGUSR1):  # for good in what is started here; SIGINT it leaves alone
            forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONWARNINGS")
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


@contextmanager
def _held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Signals that come meanwhile are heeded behind it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def batch_loader(
    dataset: ECGDataset,
    batches: Iterable[Request],
    *,
    num_workers: int,
    rank: int,
    num_processes: int,
    pin_memory: bool,
) -> "DataLoader[Batch]":
    """Makes the batches that are asked for, in order.

    Args:
        dataset: fetches all records of a request at once.
        batches: the requests.
        num_workers: processes that read ahead; 0 reads in the process that trains.
        rank: of the process that it is made for.
        num_processes: that train together.
        pin_memory: copies batches to where a GPU fetches them from.
    """
    make_ready(num_workers, num_processes)
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=_as_is,  # `__getitems__` has made the batch
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # its own: an iterator takes one draw from the global stream otherwise
        multiprocessing_context=worker_context(num_processes) if num_workers else None,
        worker_init_fn=partial(_begin, trains=os.getpid(), rank=rank),
    )


def _begin(worker: int, *, trains: int, rank: int) -> None:
    """In the worker, whose random numbers are for steps of one's own: ours draw none.

    Lightning's seeding would load all of Lightning.
    """
    _heed_only(trains)
    if os.getppid() != trains:  # torch has it end with its parent, here the process that it was forked from
        end_with_parent()
    seeds = np.random.SeedSequence([torch.initial_seed() - worker, worker, rank]).generate_state(3)
    torch.manual_seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    random.seed(int(seeds[2]))


def _heed_only(trains: int) -> None:
    """Leaves signals to the process that trains, which ends its workers in its own time, by a SIGTERM if need be.

    One to the whole group, as terminals and schedulers send it, would take them from a fit that ends behind its next
    checkpoint.
    """

    def heed() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trains:
            pass
        os._exit(0)

    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=heed, daemon=True, name="signals").start()


def _as_is(batch: Any) -> Any:
    return batch

"""Work on records in several processes, and what becomes of them when the first one is interrupted or killed."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from ecg_lightning.errors import InputError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(work: Callable[[JobT], ResultT], jobs: Sequence[JobT], workers: int) -> Generator[ResultT, None, None]:
    """Results of ``work`` on each of ``jobs`` from ``workers`` processes, in the order in which they come.

    Raises:
        InputError: when a worker process died.
    """
    # Spawned, not forked: the caller may hold torch threads.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a worker process died ({error}): run the same command again, it goes on from here, with --workers 1 if "
            "memory was short"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive one that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

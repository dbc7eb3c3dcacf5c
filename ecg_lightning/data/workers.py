"""Work on records in several processes, and what becomes of them when the first one is interrupted or killed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from ecg_lightning.errors import InputError

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
CHUNK = 16
"""Records per job."""
POOL_PAYS_SECONDS = 2.0
"""Work, on one core, from which on worker processes are started unasked: they take half a second to come up."""
_AHEAD = 3
"""Jobs per process that are begun or finished and not yet taken: results of more would pile up in memory."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_chunks(
    work: Callable[[Sequence[JobT]], ResultT], jobs: Sequence[JobT], workers: int | None
) -> Generator[ResultT, None, None]:
    """Results of ``work`` on `CHUNK` jobs at a time, in any order; ``workers=None`` starts processes only if that pays.

    Raises:
        InputError: when a worker process died.
    """
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    if workers is None and chunks:
        started = time.perf_counter()
        first = work(chunks.pop(0))
        pays = (time.perf_counter() - started) * len(chunks) > POOL_PAYS_SECONDS
        workers = usable_cores() if pays else 1
        yield first
    if workers == 1:
        yield from (work(chunk) for chunk in chunks)
    elif chunks:
        yield from in_processes(work, chunks, min(workers or 1, len(chunks)))


def in_processes(work: Callable[[JobT], ResultT], jobs: Sequence[JobT], workers: int) -> Generator[ResultT, None, None]:
    """Results of ``work`` on each of ``jobs`` from ``workers`` processes, in the order in which they come.

    Raises:
        InputError: when a worker process died.
    """
    # Spawned, not forked: the caller may hold torch threads.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent)
    left = iter(jobs)
    begun: set[Future[ResultT]] = set()
    try:
        while begun := begun | {pool.submit(work, job) for job in islice(left, _AHEAD * workers - len(begun))}:
            done, begun = wait(begun, return_when=FIRST_COMPLETED)
            while done:
                yield done.pop().result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a worker process died ({error}): run the same command again, with --workers 1 if memory was short; "
            "`prepare` and `synthesize` go on from here"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive one that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

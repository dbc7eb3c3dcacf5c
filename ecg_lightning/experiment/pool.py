"""Several runs at once: worker processes that take the next run when they are free, one GPU each if there are any."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ecg_lightning.experiment.contained import Stops
from ecg_lightning.experiment.plan import Run
from ecg_lightning.experiment.single import LOGS, Outcome, run_here
from ecg_lightning.screen import set_up_screen

_SPAWN = multiprocessing.get_context("spawn")  # a forked process could not use CUDA


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    environment: Mapping[str, str]
    run: Run | None = None


def places(parallel: int) -> list[dict[str, str]]:
    """Environment of each worker: its GPU, in turn; without one, its share of the cores."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(torch.cuda.device_count())] if visible is None else visible.split(",")
    gpus = [gpu for gpu in gpus if gpu.strip() not in ("", "-1")]
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(parallel)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // parallel))
    return [{"OMP_NUM_THREADS": threads}] * parallel


def run_pool(
    runs: Sequence[Run],
    folder: Path,
    environments: Sequence[Mapping[str, str]],
    ended: Callable[[Run, Outcome], bool],
) -> None:
    """Runs all, as many at once as there are environments.

    A worker that dies takes its run with it, not the others; a new one takes its place.

    Args:
        runs: in the order in which they are started.
        folder: of the grid.
        environments: variables of each worker.
        ended: is told how each run ended; False: no other is started.
    """
    waiting = deque(runs)
    workers = [_start(folder, environment) for environment in environments[: len(runs)]]
    try:
        while True:
            for worker in workers:
                if worker.run is None and waiting:
                    worker.run = waiting.popleft()
                    worker.pipe.send(worker.run)
            busy = {worker.pipe: worker for worker in workers if worker.run is not None}
            if not busy:
                return
            for pipe in wait([*busy]):
                worker = busy[pipe]  # type: ignore[index]
                run, outcome = worker.run, _received(worker)
                assert run is not None
                worker.run = None
                if not ended(run, outcome):
                    waiting.clear()
                if outcome.spoiled:
                    workers[workers.index(worker)] = _start(folder, worker.environment)
    finally:
        _end(workers, ended)


def _start(folder: Path, environment: Mapping[str, str]) -> _Worker:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_work, args=(theirs, folder))
    with _variables(environment):  # set before torch is loaded there
        process.start()
    theirs.close()
    return _Worker(process, ours, environment)


@contextmanager
def _variables(environment: Mapping[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _received(worker: _Worker) -> Outcome:
    try:
        outcome: Outcome = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode or 1
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return Outcome(code if code > 0 else 128 - code, f"its process ended {how}", spoiled=True)
    return outcome


def _end(workers: Sequence[_Worker], ended: Callable[[Run, Outcome], bool]) -> None:
    """Lets idle workers go; terminates the others, waits until they have marked their runs, and tells of them."""
    for worker in workers:
        if worker.run is None:
            worker.pipe.close()
        else:
            worker.process.terminate()
    try:
        for worker in workers:
            if worker.run is not None:
                ended(worker.run, _received(worker))
            worker.process.join()
    except BaseException:  # a second Ctrl-C: at once
        for worker in workers:
            worker.process.kill()
            worker.process.join()
        raise


def _work(pipe: Connection, folder: Path) -> None:
    """A worker: takes runs until there are none; what it prints goes into a file for each run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stops(interrupts=False) as stops:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        set_up_screen()
        while not stops.received:
            try:
                run: Run = pipe.recv()
            except EOFError:
                return
            _print_into(folder / LOGS / f"{run.name}.txt")
            outcome = run_here(run, folder, stops)
            pipe.send(outcome)
            if outcome.spoiled:
                return


def _print_into(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _end_with_parent() -> None:
    """A worker whose parent was killed marks its run and ends, as on SIGTERM."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)

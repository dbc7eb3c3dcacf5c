"""Files of PTB-XL made right, each on one of several threads: looked into if there, fetched if not, hashed always."""

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from ecg_lightning.data.inventory import sha256_of
from ecg_lightning.data.published import PARTIAL, PublishedFile
from ecg_lightning.data.server import Server, ServerError, StoppedError
from ecg_lightning.errors import InputError

TRIES = 3
"""Times that a file may come with a wrong hash before that is an error."""
_GRACE = 2.0
"""Seconds for the threads to end in; one that waits for a silent server is left behind, and writes no more."""


class Outcome(NamedTuple):
    """What became of a file: whether it was fetched, what had been wrong with it, and what still is."""

    file: PublishedFile
    num_bytes: int = 0
    fetched: bool = False
    mended: str = ""
    problem: str = ""


def fetch_all(
    server: Server,
    folder: Path,
    files: Sequence[PublishedFile],
    connections: int,
    advance: Callable[[int], object],
) -> Generator[Outcome, None, None]:
    """Yields what became of each file, in the order in which they are done; ``advance`` is told of bytes.

    Closing the iterator stops the threads.

    Raises:
        ServerError: when the server as a whole is of no use.
        OSError: when the folder cannot be written.
    """
    jobs: queue.SimpleQueue[PublishedFile] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for file in files:
        jobs.put(file)

    def work() -> None:
        try:
            while True:
                outcomes.put(_settle(server, folder, jobs.get_nowait(), advance))
        except (queue.Empty, StoppedError):
            pass
        except BaseException as error:  # for the thread that waits for outcomes
            outcomes.put(error)

    # Daemons: Ctrl-C must not wait for a server that does not answer.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(connections, len(files)))]
    for thread in threads:
        thread.start()
    try:
        for _ in files:
            outcome = outcomes.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    except BaseException:
        server.stop()
        raise
    finally:
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _settle(server: Server, folder: Path, file: PublishedFile, advance: Callable[[int], object]) -> Outcome:
    target = folder / file.path
    mended = ""
    if target.is_file():
        if (got := sha256_of(target)) == file.sha256:
            advance(target.stat().st_size)
            return Outcome(file, target.stat().st_size)
        target.unlink()  # at once: a kill must not leave it to be trusted
        mended = f"it was there with sha256 {got}"
    try:
        return _fetch(server, target, file, advance, mended)
    except ServerError:
        raise
    except InputError as error:
        return Outcome(file, problem=str(error))


def _fetch(server: Server, target: Path, file: PublishedFile, advance: Callable[[int], object], mended: str) -> Outcome:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    for _ in range(TRIES):
        server.fetch(file.path, partial, advance)
        got, num_bytes = sha256_of(partial), partial.stat().st_size
        if got == file.sha256:
            _bring_to_disk(partial)
            partial.replace(target)
            return Outcome(file, num_bytes, fetched=True, mended=mended)
        partial.unlink()
        advance(-num_bytes)
        mended = f"it came with sha256 {got}"
    return Outcome(
        file,
        problem=f"{server.url}{file.path} came {TRIES} times with a wrong hash: sha256 {got}, published is "
        f"{file.sha256}; a proxy may change files on the way, or the server's are damaged: try another --url",
    )


def _bring_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

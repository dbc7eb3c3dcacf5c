"""Several processes watch one another: when one dies, is stopped or hangs, all end, and say which it was.

Without, a process that waits in a collective for one that never comes waits for half an hour, then says "timeout"; it
does not even answer to SIGTERM. A thread beside each training thread writes its process's sign into the processes'
common store every few seconds, and reads those of the others (`ecg_lightning.attendance` judges them).
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from ecg_lightning import progress
from ecg_lightning.attendance import DONE, FOLLOWED, Sign, Verdict, judged
from ecg_lightning.errors import UsageError
from ecg_lightning.runs import RunFolder

PATIENCE = 1800.0
"""Seconds; as long as torch's own collectives wait. A validation passes a point with every batch."""
LONGEST_SILENCE = 120.0
"""Seconds without a sign of a process: its thread gives them whatever the training does."""
INTERVAL = 2.0
"""Seconds between signs."""
GRACE = 4.0
"""Seconds for a process's own end, by a signal or an error, before it is ended for another's."""
ENDED_BY_ANOTHER = 1
"""Exit code."""


class Watch(Callback):
    """Ends this process when another cannot go on, with a message that names it; starts with the first of them.

    Args:
        run: where the state is set to interrupted, if its own process no longer can.
        patience: seconds without any progress (a batch, an epoch's end, a checkpoint) after which a process hangs.
    """

    def __init__(self, run: RunFolder, patience: float = PATIENCE) -> None:
        if not patience > 0:
            raise UsageError(f"--patience is {patience}, it must be above 0: seconds without progress")
        self.run, self.patience = run, patience
        self.silence = min(LONGEST_SILENCE, patience)
        self.interval = min(INTERVAL, patience / 5)
        self._thread: threading.Thread | None = None
        self._ended = ""
        self._stop = threading.Event()
        self._at, self._together = "the start", 0

    def settle_timeout(self, trainer: Trainer) -> None:
        """Lets torch's collectives wait a little longer than this watch, unless the config says how long.

        Theirs is the second line: they know that somebody is missing, not who.
        """
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and strategy._timeout == torch.distributed.default_pg_timeout:
            strategy._timeout = timedelta(seconds=max(600.0, self.patience + 60))

    # --- start and end ---

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts behind the making of the process group; collective."""
        if trainer.world_size == 1 or self._thread is not None:
            return
        self.trainer = trainer
        self.rank, self.num_processes = trainer.global_rank, trainer.world_size
        key = trainer.strategy.broadcast(uuid4().hex)  # torchrun's store outlives a restart
        self._keys = [f"ecg_lightning/{key}/{rank}" for rank in range(self.num_processes)]
        self._verdict_key = f"ecg_lightning/{key}/verdict"
        # A connection of its own: the process group's may be in a long wait.
        self._store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
            timeout=timedelta(seconds=self.silence),
        )  # fmt: skip
        self._main = threading.get_ident()
        self._beat, self._passed_at, self._passed = 0, time.monotonic(), progress.passed()
        self._store.set(self._keys[self.rank], self._sign().dumped())
        trainer.strategy.barrier()
        signs = [Sign.loaded(line) for line in self._store.multi_get(self._keys)]
        self._signs, self._new_at = signs, [time.monotonic()] * len(signs)
        self._descriptors = {sign.rank: os.pidfd_open(sign.pid) for sign in signs if self._is_beside(sign)}
        self._pool = ThreadPoolExecutor(1)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch")
        self._thread.start()
        self._take_over()

    def _take_over(self) -> None:
        """From Lightning's observer, which kills all processes, the first included, without a word in the run."""
        for thread in threading.enumerate():
            if thread.name == "child-process-observer":
                thread._child_processes = []  # type: ignore[attr-defined]

    @staticmethod
    def of(trainer: Trainer) -> "Watch | None":
        """The trainer's own; none where it was not built by the command line."""
        return next((one for one in trainer.callbacks if isinstance(one, Watch)), None)  # type: ignore[attr-defined]

    def first_has_ended(self) -> bool:
        """Whether the process that writes the run's state no longer can; seen on its own machine."""
        return self._thread is not None and 0 in self._dead()

    def _is_beside(self, sign: Sign) -> bool:
        own = self._signs[self.rank]
        same = (sign.host, sign.space) == (own.host, own.space)
        return same and sign.rank != self.rank and hasattr(os, "pidfd_open")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tells the others; an error of a collective is what another's end looks like from here: waits for that."""
        if self._thread is None:
            return
        if _is_of_a_collective(exception):
            self._stop.wait(self.silence + GRACE + 3 * self.interval)  # ends with this process, in all but odd cases
        self._ended = f"{type(exception).__name__}: {exception}"

    def leave(self) -> None:
        """Before a process ends by a signal, without the way back: the others do not take it for a fault."""
        if self._thread is not None:
            self._ended = DONE
            with suppress(NoAnswer, RuntimeError):
                self._pool.submit(self._exchange).result(self.interval)

    def stop(self) -> None:
        """At the end of a command: the first process, which may take the store with it, waits for the others' signs."""
        if self._thread is None:
            return
        self._ended = self._ended or DONE
        if self.rank == 0:
            self._await_others(self.silence)
        self._stop.set()
        self._thread.join(self.silence)
        self._thread = None
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def _await_others(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.is_set():
            dead = self._dead()
            if all(sign.ended or sign.rank in dead for sign in self._signs if sign.rank != self.rank):
                return
            time.sleep(self.interval / 10)

    # --- the thread ---

    def _watch(self) -> None:
        since = None
        while not self._stop.wait(self.interval):
            verdict, adopted = self._look()
            if verdict is None or self._ended:
                since = None
                continue
            since = since or time.monotonic()
            if adopted or time.monotonic() - since >= GRACE:
                self._end(verdict)
        with suppress(NoAnswer, RuntimeError):
            self._pool.submit(self._exchange).result(self.silence)  # how it ended; none is given behind this one

    def _look(self) -> tuple[Verdict | None, bool]:
        """What is wrong, if anything, and whether another process has judged so before."""
        dead = self._dead()
        try:
            lines, verdict = self._pool.submit(self._exchange).result(self.silence)
        except (NoAnswer, RuntimeError):
            return self._without_store(dead), False
        now = time.monotonic()
        for rank, line in enumerate(lines):
            sign = Sign.loaded(line)
            if sign.beat != self._signs[rank].beat:
                self._new_at[rank] = now
            self._signs[rank] = sign
        if verdict is not None:
            return verdict, True
        silent = [now - new_at for new_at in self._new_at]
        return judged(self._signs, silent, dead, patience=self.patience, silence=self.silence), False

    def _exchange(self) -> tuple[list[bytes], Verdict | None]:
        self._store.set(self._keys[self.rank], self._sign().dumped())
        lines = self._store.multi_get(self._keys)
        if not self._store.check([self._verdict_key]):
            return lines, None
        ranks, *rest = json.loads(self._store.get(self._verdict_key))
        return lines, Verdict(tuple(ranks), *rest)

    def _without_store(self, dead: set[int]) -> Verdict:
        found = judged(self._signs, [0.0] * self.num_processes, dead, patience=float("inf"), silence=float("inf"))
        if found is not None:
            return found
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            return Verdict(
                (), f"torchrun's store at {place} does not answer: its agent has ended or its machine is gone"
            )
        first = self._signs[0]
        return Verdict(
            (0,),
            f"{first.name} does not answer: ended, stopped, or its machine is gone; last seen at {first.at}",
            lives=True,
        )

    def _sign(self) -> Sign:
        passed, now = progress.passed(), time.monotonic()
        if passed != self._passed:
            self._passed, self._passed_at = passed, now
        self._beat += 1
        frame = sys._current_frames().get(self._main)
        code = frame.f_code if frame else None
        return Sign(
            rank=self.rank, host=socket.gethostname(), space=_space(), pid=os.getpid(), beat=self._beat,
            passed=self._together, still=now - self._passed_at, at=self._at, ended=self._ended,
            place=f"{code.co_filename}:{frame.f_lineno} in {code.co_name}" if frame and code else "no place",
            waits=code is not None and code.co_filename.endswith(_WAITS_IN),
        )  # fmt: skip

    def _dead(self) -> set[int]:
        """Processes of this machine that have ended."""
        ended = select.poll()
        rank_of = {descriptor: rank for rank, descriptor in self._descriptors.items()}
        for descriptor in rank_of:
            ended.register(descriptor, select.POLLIN)
        return {rank_of[descriptor] for descriptor, _ in ended.poll(0)}

    def _end(self, verdict: Verdict) -> None:
        """Ends this process for another's sake: its own thread may wait in a collective, where no signal reaches it."""
        left = [rank for rank in range(self.num_processes) if rank not in verdict.ranks] or [0]
        speaker = left[0]  # of a fault of all, one that has the fault: it is not killed before it has spoken
        self._ended = FOLLOWED
        with suppress(NoAnswer, RuntimeError):
            self._pool.submit(self._publish, verdict).result(self.interval)
        for rank in verdict.ranks if verdict.lives else ():
            if rank in self._descriptors and rank != speaker:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._descriptors[rank], signal.SIGKILL)
        if self.rank == speaker:
            self._say(verdict)
        if self.rank == 0:  # with it goes the store, and with that the verdict
            self._linger()
        os._exit(ENDED_BY_ANOTHER)

    def _publish(self, verdict: Verdict) -> None:
        """All say the same: the first one's."""
        self._store.set(self._keys[self.rank], self._sign().dumped())
        self._store.compare_set(self._verdict_key, "", json.dumps(verdict))

    def _linger(self) -> None:
        for _ in range(3):
            time.sleep(self.interval)
            with suppress(NoAnswer, RuntimeError):
                lines, _ = self._pool.submit(self._exchange).result(self.interval)
                dead = self._dead()
                if all(sign.ended or sign.rank in dead for sign in map(Sign.loaded, lines)):
                    return

    def _say(self, verdict: Verdict) -> None:
        message = (
            f"ecg-lightning fit: {verdict.reason}: all processes end (one may stand still for --patience "
            f"{self.patience:g} s); go on with: ecg-lightning fit --run {self.run.path} --resume auto\n"
        )
        sys.stderr.write(message)
        sys.stderr.flush()
        with (self.run.path / "log.txt").open("a") as log:
            log.write(message)
        self.run.set_state("interrupted")

    # --- the points that a training passes ---

    def _pass(self, trainer: Trainer, what: str, *, together: bool = True) -> None:
        progress.pass_point()
        self._together += together
        self._at = f"epoch {trainer.current_epoch}, {what}"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A point."""
        self._pass(trainer, "start")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """A point."""
        self._pass(trainer, f"batch {batch_idx}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A point."""
        self._pass(trainer, f"behind batch {batch_idx}")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """A point of this process: another may validate one batch less."""
        self._pass(trainer, f"behind validation batch {batch_idx}", together=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A point."""
        self._pass(trainer, "behind validation")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A point."""
        self._pass(trainer, "checkpoint")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A point."""
        self._pass(trainer, "end")


_WAITS_IN = (
    "torch/distributed/distributed_c10d.py",
    "torch/distributed/nn/functional.py",
    "torch/nn/parallel/distributed.py",
    "torch/autograd/graph.py",
)
"""Files of torch in which a thread stands while it waits for other processes: collectives, DDP's two passes."""


def _is_of_a_collective(exception: BaseException) -> bool:
    words = ("gloo", "nccl", "connection", "store")
    return isinstance(exception, torch.distributed.DistError) or (
        isinstance(exception, RuntimeError) and any(word in str(exception).lower() for word in words)
    )


def _space() -> str:
    """The process namespace: two containers may bear one host's name."""
    try:
        return Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return ""

"""SIGTERM, SIGINT, SIGUSR1 and the end of `trainer.max_time`: a checkpoint first, then the end; nothing is lost."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from ecg_lightning.errors import StoppedError
from ecg_lightning.watch import Watch

log = logging.getLogger(__name__)
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a terminated fit."""
CUT_SHORT = 1
"""Exit code of a fit that a limit of the trainer ended before its last epoch."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE = 20.0
"""Seconds that several processes have for their checkpoint: one that waits for a dead one gets no further, and
launchers kill 30 s behind a SIGTERM."""


class Interrupted(BaseException):
    """Ends a fit with this exit code: no error, so that nothing but `fit` takes it up."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class EndOnSignal(Callback):
    """Takes the signals of a fit: in training, ends behind the next checkpoint, which it has written at once.

    - One process ends between two batches; in validation, behind the epoch's own checkpoint.
    - Of several, the first writes the checkpoint, asks no other, and ends those that it launched: what waits in a
      collective ignores a SIGTERM. The others leave it to the first, tell it where it launched them (but for Ctrl-C,
      which a terminal sends to all), and end by themselves when it has ended, or `GRACE` later.
    - A second Ctrl-C, and any signal outside training, ends at once: checkpoints are written whole or not at all.
    - Under SLURM its requeue signal (SIGUSR1) requeues the job as well, unless that was switched off in Lightning.

    Attributes:
        code: the exit code that a signal asked for, 128 and its number, or a limit of the trainer; None: go on.
        last_words: is called before the processes end without the way back through the trainer.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        self.last_words: Callable[[], None] = lambda: None
        self._saved = self._training = False
        self._trainer: Trainer | None = None
        self._former: dict[int, Any] = {}
        self._process = os.getpid()
        self._forced: threading.Event | None = None

    @staticmethod
    def of(trainer: Trainer) -> "EndOnSignal | None":
        """The trainer's own; none where it was not built by the command line."""
        return next((one for one in trainer.callbacks if isinstance(one, EndOnSignal)), None)  # type: ignore[attr-defined]

    # --- the handlers ---

    def __enter__(self) -> "EndOnSignal":
        self._take()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._forced is not None:
            signal.set_wakeup_fd(-1)
            self._forced.set()
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _take(self) -> None:
        """Puts our handlers in place, from Lightning's own where it set them; what is ignored stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            present = signal.getsignal(number)
            if present not in (signal.SIG_IGN, self._receive):
                self._former.setdefault(number, present)
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child that was forked from it
            return
        again, self.code = self.code is not None, self.code or 128 + number
        former = self._former.get(number)
        if callable(former) and former is not signal.default_int_handler:
            former(number, frame)
        if not self._training or (again and number == signal.SIGINT):
            if self._trainer is not None and self._trainer.world_size > 1:
                self._end_now()
            raise Interrupted(self.code)
        assert self._trainer is not None
        if not self._trainer.is_global_zero:
            if number != signal.SIGINT:  # a terminal sends it to all: told, the first would take it for a second one
                _tell_the_first(self._trainer, number)
        elif not again:
            name = signal.Signals(number).name  # not by `log`: the signal may have come inside of it
            os.write(2, f"{name}: ending behind the next checkpoint; Ctrl-C once more ends at once\n".encode())

    # --- the places at which training ends ---

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """From here on it is known how many processes there are."""
        self._trainer = trainer

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes SIGTERM over from Lightning, whose handler waits for the other processes."""
        self._take()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for a checkpoint."""
        self._take()
        self._training = True
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            self._watch()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Behind a checkpoint and the figures of its step."""
        self._end_where_saved(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Behind the checkpoint of an epoch."""
        self._end_where_saved(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is left to save."""
        self._training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Nothing more will be saved."""
        self._training = False

    def wants_checkpoint(self, trainer: Trainer) -> bool:
        """Whether to write one behind this batch: a signal came, or the trainer's time is up."""
        timers = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
        if trainer.should_stop and any((one.time_remaining() or 0) <= 0 for one in timers):
            trainer.should_stop = False  # it would validate inside the epoch, which no resume would do again
            self.code = self.code or CUT_SHORT
        return self.code is not None

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved = self.code is not None

    def _end_where_saved(self, trainer: Trainer) -> None:
        if not self._saved or self.code is None or not trainer.is_global_zero:
            return
        if self.code == 128 + _requeue_signal(trainer):
            requeue()
        if trainer.world_size > 1:
            self._end_now()
        raise Interrupted(self.code)

    # --- several processes ---

    def _end_now(self) -> None:
        """Ends this process and those that it launched, whatever they wait for."""
        assert self._trainer is not None
        if watch := Watch.of(self._trainer):
            watch.leave()
        self.last_words()
        end_launched(self._trainer)
        os._exit(self.code or CUT_SHORT)

    def _watch(self) -> None:
        """Ends the process `GRACE` behind a signal: a handler waits for a main thread that may wait for others."""
        received, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget_wakeup)
        self._forced = ended = threading.Event()

        def end() -> None:
            while (number := os.read(received, 1)[0]) not in SIGNALS:
                pass
            if not self._await_end(ended):
                self.code = self.code or 128 + number
                self._end_now()

        threading.Thread(target=end, name="end on signal", daemon=True).start()

    def _await_end(self, ended: threading.Event) -> bool:
        """Whether the fit ends by itself: within `GRACE`, and before the first process, which writes the checkpoint."""
        watch = Watch.of(self._trainer) if self._trainer is not None else None
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if ended.wait(0.5):
                return True
            if watch is not None and watch.first_has_ended():
                return False
        os.write(2, f"no checkpoint within {GRACE:g} s of the signal: ending with the one before\n".encode())
        return False


def end_launched(trainer: Trainer) -> None:
    """Ends the processes that this one launched: without it they would wait for it, at the start for half an hour."""
    launcher: Any = trainer.strategy.launcher
    for process in getattr(launcher, "procs", None) or []:
        process.kill()


def is_of_taken_port(error: BaseException) -> bool:
    """Whether another program took the port on which the processes meet, between its choice and its use."""
    return isinstance(error, RuntimeError) and "EADDRINUSE" in str(error)


def taken_port(error: BaseException) -> StoppedError:
    """The message: which port, and how another is chosen."""
    port = os.environ.get("MASTER_PORT", "?")
    return StoppedError(
        f"port {port} of this machine, on which the processes would have met, is taken by another program "
        f"({' '.join(str(error).split())[:120]}): leave MASTER_PORT unset, or set it to a free one; nothing is lost"
    )


def _forget_wakeup() -> None:
    signal.set_wakeup_fd(-1)


def _tell_the_first(trainer: Trainer, number: int) -> None:
    """Where Lightning launched this process, the first of its machine is its parent."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, LightningEnvironment) and environment.node_rank() == 0:
        os.kill(os.getppid(), number)


def _requeue_signal(trainer: Trainer) -> int:
    """The signal that SLURM announces a requeue by; -1 where there is no SLURM, or it is not asked for."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return int(environment.requeue_signal or signal.SIGUSR1)
    return -1


def requeue() -> None:
    """Puts this SLURM job back into the queue; the same command then goes on by `--resume auto`."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("SLURM job %s could not be requeued (%s): submit it again, it goes on by --resume auto", job, error)
        return
    if asked.returncode:
        reason = " ".join((asked.stderr or asked.stdout).split())
        log.warning("SLURM job %s could not be requeued (%s): submit it again", job, reason)
    else:
        log.info("SLURM job %s is requeued", job)

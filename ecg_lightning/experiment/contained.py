"""A run inside this process leaves nothing behind: the next one starts from what a new process would start from."""

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

_LOGGERS = ("", "ecg_lightning", "lightning", "lightning.pytorch", "lightning.fabric", "py.warnings", "wandb")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stops:
    """Takes SIGTERM and Ctrl-C while a grid runs: remembers the signal, and ends what is going on.

    A fit is left to itself: it ends behind a checkpoint and says so by its exit code.

    Args:
        interrupts: whether to take Ctrl-C; a worker leaves it to the process that started it.

    Attributes:
        received: the signal, once there was one.
        fitting: whether a fit is running in this process.
    """

    def __init__(self, *, interrupts: bool = True) -> None:
        self.interrupts = interrupts
        self.received: int | None = None
        self.fitting = False
        self._former: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it; 0 where there was none."""
        return 128 + self.received if self.received else 0

    def __enter__(self) -> "Stops":
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Any] = {signal.SIGTERM: self._terminated}
            if self.interrupts:
                handlers[signal.SIGINT] = self._interrupted
            self._former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self.fitting and signal.getsignal(signal.SIGTERM) != self._terminated:
            return  # the fit called us behind its own handler
        raise SystemExit(128 + number)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self.fitting and signal.getsignal(signal.SIGINT) != self._interrupted:
            return  # the fit called us behind its own handler
        raise KeyboardInterrupt


@contextmanager
def contained(arguments: Sequence[str]) -> Iterator[None]:
    """What is called inside sees ``arguments`` as its command line, and all process-wide state is put back behind it.

    Put back are: random states, environment variables, handlers of signals and logs, filters of warnings, torch's
    defaults (dtype, threads, precision, deterministic algorithms, gradients) and what torch.compile keeps.
    """
    put_back = [take() for take in (_command_line, _random_states, _environment, _torch_defaults, _handlers)]
    sys.argv = ["ecg-lightning", *arguments]
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for restore in put_back:
            restore()
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


def _command_line() -> Callable[[], None]:
    former = sys.argv

    def restore() -> None:
        sys.argv = former

    return restore


def _random_states() -> Callable[[], None]:
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

    def restore() -> None:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_cuda is not None:
            torch.cuda.set_rng_state_all(of_cuda)

    return restore


def _environment() -> Callable[[], None]:
    former = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - former.keys():
            del os.environ[name]
        os.environ.update(former)

    return restore


def _torch_defaults() -> Callable[[], None]:
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn = cudnn.benchmark, cudnn.deterministic

    def restore() -> None:
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.benchmark, cudnn.deterministic = of_cudnn
        if (dynamo := sys.modules.get("torch._dynamo")) is not None:
            dynamo.reset()

    return restore


def _handlers() -> Callable[[], None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    of_loggers = [(one, one.level, [*one.handlers], [*one.filters]) for one in loggers]
    main = threading.current_thread() is threading.main_thread()
    of_signals = {number: signal.getsignal(number) for number in _SIGNALS} if main else {}

    def restore() -> None:
        for logger, level, handlers, filters in of_loggers:
            logger.setLevel(level)
            logger.handlers[:], logger.filters[:] = handlers, filters
        for number, handler in of_signals.items():
            if handler is not None:  # None: set by something that is not Python
                signal.signal(number, handler)

    return restore

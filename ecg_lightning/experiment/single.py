"""One run of a grid, `fit` and then `test`: in this process, or in one of its own."""

import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ecg_lightning import training
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.experiment.contained import Stops, contained
from ecg_lightning.experiment.plan import Run
from ecg_lightning.experiment.progress import add_seconds, standing_of
from ecg_lightning.termination import CUT_SHORT, TERMINATED

LOGS = "logs"
_CUT_SHORT = "stopped before its end by a limit of the trainer"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: 0 when it is trained and tested.
        reason: why not, in a line.
        spoiled: whether the process that it ran in cannot be trusted with another run.
    """

    code: int = 0
    reason: str = ""
    spoiled: bool = False


def run_here(run: Run, folder: Path, stops: Stops) -> Outcome:
    """Trains, or goes on training, and tests; whatever happens becomes an outcome, nothing is raised."""
    path, begin = folder / run.name, time.monotonic()
    fit = ["fit", *run.arguments, "--run", str(path), "--resume", "auto"]
    outcome = None
    try:
        with contained(fit):
            outcome = _fit(path, fit[1:], stops)
        if not outcome.code and not stops.received:
            test = ["test", "--run", str(path)]
            with contained(test):
                training.test(test[1:])
    except InputError as error:
        outcome = Outcome(2 if isinstance(error, UsageError) else 1, str(error))
    except (KeyboardInterrupt, SystemExit) as end:
        code = end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 1
        outcome = Outcome(code or 1, f"ended with exit code {code}")
    except Exception as error:
        outcome = _unexpected(error, folder / LOGS / f"{run.name}.txt")
    finally:
        add_seconds(path, time.monotonic() - begin)
    return Outcome(stops.exit_code, "interrupted") if stops.received else outcome


def _fit(path: Path, arguments: Sequence[str], stops: Stops) -> Outcome:
    if standing_of(path) == "to test":
        return Outcome()
    stops.fitting = True
    try:
        code = training.fit(arguments)
    finally:
        stops.fitting = False
    return Outcome(
        code, {0: "", TERMINATED: "terminated", CUT_SHORT: _CUT_SHORT}.get(code, f"ended by signal {code - 128}")
    )


def _unexpected(error: Exception, log: Path) -> Outcome:
    """The traceback goes into a file: nobody may be watching."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write("".join(traceback.format_exception(error)))
    return Outcome(1, f"{type(error).__name__}: {error} ({log} shows where)", spoiled=_cuda_is_lost())


def _cuda_is_lost() -> bool:
    """Behind some errors of a GPU, every later call of the process fails."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except RuntimeError:
        return True
    return False


def run_apart(run: Run, folder: Path, stops: Stops) -> Outcome:
    """The same by two commands: where several processes train, the launcher starts this process's command again."""
    path, begin = folder / run.name, time.monotonic()
    fit = ["fit", *run.arguments, "--run", str(path), "--resume", "auto"]
    commands = [["test", "--run", str(path)]] if standing_of(path) == "to test" else [fit, ["test", "--run", str(path)]]
    try:
        for command in commands:
            if code := _command(command):
                return Outcome(code, f"{command[0]} ended with exit code {code}: see {path / 'log.txt'}")
    except (KeyboardInterrupt, SystemExit):
        return Outcome(stops.exit_code or 1, "interrupted")
    finally:
        add_seconds(path, time.monotonic() - begin)
    return Outcome()


def _command(arguments: Sequence[str]) -> int:
    process = subprocess.Popen([sys.executable, "-m", "ecg_lightning", *arguments])
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise

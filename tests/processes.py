"""Runs the real command line in real processes, and kills it where a test says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ecg_lightning.frozen_backbone import read_checkpoint

TESTS = Path(__file__).parent


class KillAt(Callback):
    """Kills the whole process group, as a power cut would, before a batch or behind an epoch's last checkpoint."""

    def __init__(self, epoch: int, batch: int | None = None) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            kill_group()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.batch is None and trainer.current_epoch == self.epoch:
            kill_group()


def kill_group() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


def signal_from_elsewhere(process: int, number: int) -> None:
    """As a scheduler or a terminal sends it, by no process of the run; a negative ``process`` is a group."""
    command = [sys.executable, "-c", f"import os; os.kill({process}, {int(number)})"]
    subprocess.run(command, check=True, start_new_session=True)


def environment() -> dict[str, str]:
    """One thread a process, our test modules importable, nothing of a launcher around the tests."""
    path = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    others = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    return {**others, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", "PYTHONPATH": os.pathsep.join(path)}


def run_cli(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """``python -m ecg_lightning ...`` in a process group of its own, one thread a process."""
    return run_python("-m", "ecg_lightning", *arguments, timeout=timeout)


def torchrun(processes: int) -> list[str]:
    """What launches one node of so many processes, on a free port."""
    return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def run_commands(folder: Path, processes: int, commands: Sequence[Sequence[str]], timeout: float = 600) -> str:
    """Commands, one behind the other, in one set of processes under torchrun; what they said. All must end with 0."""
    asked = folder / f"commands-{processes}.json"
    asked.write_text(json.dumps([[*command] for command in commands]))
    launcher = torchrun(processes) if processes > 1 else []
    ended = run_python(*launcher, str(TESTS / "several_commands.py"), str(asked), timeout=timeout)
    codes = [json.loads(asked.with_suffix(f".{rank}").read_text()) for rank in range(processes)]
    assert codes == [[0] * len(commands)] * processes, ended.stdout
    return ended.stdout


def run_python(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Python in a process group of its own, one thread a process."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # each says where it stands
        try:
            output, _ = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{output}") from None
    return subprocess.CompletedProcess(arguments, process.returncode, output)


def kill_at(epoch: int, batch: int | None = None) -> list[str]:
    """Flags that kill a fit."""
    spec = f'{{"class_path": "processes.KillAt", "init_args": {{"epoch": {epoch}, "batch": {batch or 0}}}}}'
    if batch is None:
        spec = f'{{"class_path": "processes.KillAt", "init_args": {{"epoch": {epoch}, "batch": null}}}}'
    return ["--trainer.callbacks", f"[{spec}]"]


def differences(one: Path, other: Path) -> list[str]:
    """What two runs' last checkpoints, metrics and predictions differ in, bit for bit."""
    a, b = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, other))
    found = [
        f"weights {name}" for name in a["state_dict"] if not torch.equal(a["state_dict"][name], b["state_dict"][name])
    ]
    found += [f"{name} {a[name]} {b[name]}" for name in ("epoch", "global_step") if a[name] != b[name]]
    one_state, other_state = (checkpoint["optimizer_states"][0]["state"] for checkpoint in (a, b))
    if one_state.keys() != other_state.keys():
        found.append(f"optimizer state of {sorted(one_state)} and {sorted(other_state)}")
    else:
        found += [
            f"optimizer {key} {name}"
            for key in one_state
            for name in one_state[key]
            if not torch.equal(one_state[key][name], other_state[key][name])
        ]
    if (one / "metrics.csv").read_text() != (other / "metrics.csv").read_text():
        found.append("metrics.csv")
    with np.load(one / "predictions" / "val.npz") as x, np.load(other / "predictions" / "val.npz") as y:
        found += [f"predictions {name}" for name in x.files if name != "meta" and not np.array_equal(x[name], y[name])]
    return found


class SignalAt(Callback):
    """Sends this process alone a signal at the first batch of an epoch."""

    def __init__(self, epoch: int, number: int) -> None:
        self.epoch, self.number = epoch, number

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, 0):
            os.kill(os.getpid(), self.number)


class WriteReplica(Callback):
    """Writes each process's own weights when the training ends."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")


class WithoutRewrap(Callback):
    """Takes the re-wrap out of the phase switch."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        import ecg_lightning.post_training

        ecg_lightning.post_training.rewrap = lambda trainer: None


class Drift(Callback):
    """Moves one process's head in the probe's last epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1 and trainer.global_rank == 1:
            with torch.no_grad():
                pl_module.head.bias += 1e-6


class TerminateAt(Callback):
    """Sends SIGTERM to the first process alone, as `kill PID` does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == self.epoch and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGTERM)


class CompiledBy(Callback):
    """Puts another compiler in place of inductor, which takes minutes."""

    def __init__(self, backend: str) -> None:
        import ecg_lightning.compiling

        ecg_lightning.compiling.BACKEND = backend


def compiled_by(backend: str, more: str | None = None) -> list[str]:
    """Flags of a compiled fit; ``more`` is another callback's spec."""
    spec = f'{{"class_path": "processes.CompiledBy", "init_args": {{"backend": "{backend}"}}}}'
    return ["--model.compile", "default", "--trainer.callbacks", f"[{spec}{', ' + more if more else ''}]"]


class FaultAt(Callback):
    """Lets one process kill or stop itself, loop forever, raise or wait, at the second batch of an epoch."""

    def __init__(self, rank: int, epoch: int, fault: str) -> None:
        self.rank, self.epoch, self.fault = rank, epoch, fault

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.global_rank, trainer.current_epoch, batch_idx) == (self.rank, self.epoch, 1):
            print(f"fault: {self.fault} of process {self.rank}", flush=True)
            getattr(self, self.fault)()

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def loop(self) -> None:
        while True:
            pass

    def slow(self) -> None:
        time.sleep(8)

    def error(self) -> None:
        raise LookupError("a fault of one process")


def fault_at(rank: int, epoch: int, fault: str) -> list[str]:
    """Flags that let one process fail."""
    arguments = {"rank": rank, "epoch": epoch, "fault": fault}
    return ["--trainer.callbacks", json.dumps([{"class_path": "processes.FaultAt", "init_args": arguments}])]

"""Steps of the real Trainer, with loader, callbacks and logger: how long they take, and where they wait for CUDA."""

import logging
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from step_parts import network, noise_store, wait

from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.phases import FineTune, Probe
from ecg_lightning.post_training import PostTraining
from ecg_lightning.tracking import MetricsFile


class Clock(Callback):
    """Times ``number`` steps from ``first`` on, or notes where they wait for the device."""

    def __init__(
        self, first: int, number: int, *, notes_waits: bool = False, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.first, self.end, self.notes_waits, self.now = first, first + number, notes_waits, now
        self.started = self.seconds = float("nan")

    @property
    def running(self) -> bool:
        """Between the first and the last of its steps."""
        return self.started == self.started and self.seconds != self.seconds

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts and ends the watch."""
        if batch_idx not in (self.first, self.end):
            return
        notes = self.notes_waits and pl_module.device.type == "cuda"
        if notes:
            torch.cuda.set_sync_debug_mode("default")
        wait(pl_module.device)
        if batch_idx == self.first:
            self.started = self.now()
            if notes:
                torch.cuda.set_sync_debug_mode("warn")
        else:
            self.seconds = (self.now() - self.started) / (self.end - self.first)


class ModelTime(Callback):
    """Adds up, on a CPU, what of the clock's steps is the model's: forward, loss, backward, optimizer."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.seconds, self._since = clock, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the watch around the classifier's two parts, and behind the optimizer's step."""
        for name in ("window_logits", "record_losses"):
            setattr(pl_module, name, self._watched(getattr(pl_module, name)))
        trainer.optimizers[0].register_step_post_hook(lambda *arguments: self._end())

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        """The backward pass starts."""
        self._begin()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """It ends."""
        self._end()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """The step starts: Lightning's closure, inside the optimizer's own call, is over."""
        self._begin()

    def _begin(self) -> None:
        self._since = self.clock.now()

    def _end(self) -> None:
        if self.clock.running:
            self.seconds += self.clock.now() - self._since

    def _watched(self, part: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self._begin()
            result = part(*arguments)
            self._end()
            return result

        return run


def train(
    store: Path, name: str, size: int, device: torch.device, clock: Clock, *more: Callback, half: bool, workers: int
) -> None:
    """Fine-tuning under stochastic depth, as many steps as the clock needs; figures are logged as in a run."""
    logging.getLogger("ecg_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    backbone = network(name, torch.device("cpu"))
    data = PTBXLDataModule(str(store), batch_size=size, num_workers=workers)
    plan = PostTraining(Probe(epochs=0), FineTune(epochs=1, learning_rate=1e-5), drop_path_rate=0.1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if half else "32-true",
            callbacks=[plan, clock, *more],
            logger=MetricsFile(Path(folder) / "metrics.csv"),
            log_every_n_steps=10,
            max_epochs=1,
            limit_train_batches=clock.end + 1,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(ECGClassifier(backbone, data.label_names), data)


def seconds_per_step(
    folder: Path, name: str, size: int, device: torch.device, *, half: bool, steps: int, workers: int = 0
) -> float:
    """Mean over ``steps`` behind 5 that warm up."""
    clock = Clock(5, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(_store(folder, name, size * (steps + 7)), name, size, device, clock, half=half, workers=workers)
    return clock.seconds


def model_share(
    folder: Path, name: str, size: int, *, steps: int, warm_up: int = 2, workers: int = 0
) -> tuple[float, float]:
    """Processor time of a step of the Trainer on a CPU, in float32, and the model's share of it."""
    clock = Clock(warm_up, steps, now=time.process_time)
    meter = ModelTime(clock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = _store(folder, name, size * (steps + warm_up + 2))
        train(store, name, size, torch.device("cpu"), clock, meter, half=False, workers=workers)
    return clock.seconds, meter.seconds / steps / clock.seconds


def waits(folder: Path, name: str, size: int, device: torch.device, *, half: bool, steps: int) -> Counter[str]:
    """Where ``steps`` steps wait for CUDA, by the line that does, as `torch.cuda.set_sync_debug_mode` says."""
    clock = Clock(5, steps, notes_waits=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(_store(folder, name, size * (steps + 7)), name, size, device, clock, half=half, workers=0)
    lines = [f"{'/'.join(Path(one.filename).parts[-3:])}:{one.lineno}" for one in caught
             if re.search("synchroniz", str(one.message))]  # fmt: skip
    return Counter(lines)


def _store(folder: Path, name: str, num_records: int) -> Path:
    """One store a backbone and size, made once."""
    path = folder / f"{name}-{num_records}.h5"
    return path if path.exists() else noise_store(path, network(name, torch.device("cpu")), num_records + 64)

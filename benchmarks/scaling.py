"""Many processes and many records: what was measured here, and what a model of it says of more GPUs than one has.

`measure`: the real command line on 1, 2 and 4 processes (gloo, one thread each) with the same global batch: time of a
step and bytes that the gradients' all-reduce moves in each phase, counted in DDP's own hook.
`predict`: step time, communication, reading and validation for 8 to 512 GPUs and 1 to 100 million records; each number
that is assumed is printed, and each is an argument; a step's own time is an H100's, measured.

    python benchmarks/scaling.py measure --store STORE
    python benchmarks/scaling.py predict [--network 12e9] [--disk 10e9] ...
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from ecg_lightning.backbones import meta_backbone
from ecg_lightning.post_training import PostTraining

NUM_LABELS = 71
BATCH = 64
"""Records of the global batch of the measurement."""


class Watch(Callback):
    """Times each step and counts the bytes of its all-reduce; the first process writes both at the end."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.seconds: dict[str, list[float]] = {}
        self.bytes: dict[str, list[int]] = {}
        self.watched: list[DistributedDataParallel] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Puts the counting hook on a reducer that is new: there is another one behind the phase switch."""
        model = trainer.strategy.model
        if isinstance(model, DistributedDataParallel) and not any(model is one for one in self.watched):
            model.register_comm_hook(None, self._counted)
            self.watched.append(model)
        self.phase = str(PostTraining.of(trainer).settled)
        self.moved = 0
        self.begin = time.perf_counter()

    def _counted(self, state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.moved += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Notes the step."""
        self.seconds.setdefault(self.phase, []).append(time.perf_counter() - self.begin)
        self.bytes.setdefault(self.phase, []).append(self.moved)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes all steps."""
        if trainer.is_global_zero:
            self.path.write_text(json.dumps({"seconds": self.seconds, "bytes": self.bytes}))


def measure(arguments: argparse.Namespace) -> None:
    """Prints a line per number of processes and phase; medians over the steps of all rounds, in turn."""
    taken: dict[int, list[dict[str, dict[str, list[float]]]]] = {1: [], 2: [], 4: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for processes in taken:
                taken[processes].append(_fitted(arguments, processes, Path(folder) / f"{processes}-{number}"))
    print(f"{arguments.backbone}, global batch of {BATCH}, gloo, one thread a process, {os.cpu_count()} cores")
    print(f"{'processes':>9}  {'phase':<10}{'step, ms':>10}{'of one':>8}{'all-reduced, bytes':>20}")
    for phase in ("probe", "fine_tune"):
        for processes, runs in taken.items():
            steps = [median(step for run in runs for step in run["seconds"][phase]) for runs in (runs, taken[1])]
            moved = max(byte for run in runs for byte in run["bytes"][phase])
            print(f"{processes:>9}  {phase:<10}{1e3 * steps[0]:>10.1f}{steps[0] / steps[1]:>8.2f}{int(moved):>20,}")


def _fitted(arguments: argparse.Namespace, processes: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    watch = {"class_path": "scaling.Watch", "init_args": {"path": str(folder) + ".json"}}
    flags = {
        "config": f"backbone/{arguments.backbone}", "data.store": arguments.store, "run": folder,
        "data.batch_size": BATCH, "post_training.probe.epochs": 1, "post_training.fine_tune.epochs": 1,
        "trainer.callbacks": json.dumps([watch]), "trainer.accelerator": "cpu", "trainer.devices": processes,
        "trainer.enable_progress_bar": "false", "post_training.probe.precompute": "false",
    }  # fmt: skip
    if processes > 1:
        flags["trainer.strategy"] = "ddp"
    command = [sys.executable, "-m", "ecg_lightning", "fit", *(f"--{name}={value}" for name, value in flags.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    taken: dict[str, dict[str, list[float]]] = json.loads(Path(f"{folder}.json").read_text())
    return taken


@dataclass(frozen=True)
class Load:
    """What a training step of a backbone costs one GPU."""

    name: str
    records: int
    """Of the step."""
    seconds: float
    """Of the step on an H100, bf16-mixed, fused AdamW (`benchmarks/gpu.sh`, 28 November 2026)."""
    stored: int
    """Bytes of a record in the store: int16, or float32 where a filter ran before."""

    @property
    def gradients(self) -> float:
        """Bytes that a step reduces in fine-tuning, in float32."""
        return 4.0 * sum(parameter.numel() for parameter in meta_backbone(self.name).parameters())

    @property
    def head(self) -> float:
        """The same in the probe."""
        return 4.0 * NUM_LABELS * (meta_backbone(self.name).feature_dim + 1)


LOADS = (
    Load("vit", 1024, 34.4e-3, 24_000),  # through the Trainer, which adds 15 ms to a step of 19 ms
    Load("st_mem_base", 64, 54.6e-3, 120_000),
    Load("ecgfounder", 64, 62.3e-3, 240_000),
    Load("hubert_ecg_large", 64, 61.1e-3, 240_000),
)


def predict(arguments: argparse.Namespace) -> None:
    """Prints the assumptions, then a table per backbone."""
    for name, (_, meaning) in ASSUMED.items():
        print(f"{name} {getattr(arguments, name):g}: {meaning}")
    for load in LOADS:
        print(
            f"\n{load.name}: {load.records} records a GPU and step, {1e3 * load.seconds:g} ms; "
            f"{load.gradients / 1e6:.1f} MB of gradients, {load.stored / 1e3:g} kB a record\n"
        )
        print("| GPUs | all-reduce, ms (probe) | left of the speed | records/s | read, GB/s a node | slowest |")
        print("|---|---|---|---|---|---|")
        for gpus in (8, 32, 128, 512):
            print(_line(load, gpus, arguments))
    _records()


def _line(load: Load, gpus: int, a: argparse.Namespace) -> str:
    """One row."""
    reduced, probe = _all_reduce(load.gradients, gpus, a), _all_reduce(load.head, gpus, a)
    exposed = max(0.0, reduced - 2 / 3 * load.seconds)  # overlaps with the backward pass, two thirds of the step
    rate = gpus * load.records / (load.seconds + exposed)
    per_node = min(gpus, 8) / gpus * rate * load.stored
    slowest = "network" if exposed > 0.05 * load.seconds else "the step"
    slowest = f"disk, {per_node / a.disk:.1f} x" if per_node > a.disk else slowest
    return (
        f"| {gpus} | {1e3 * reduced:.2f} ({1e3 * probe:.2f}) | {load.seconds / (load.seconds + exposed):.0%} | "
        f"{rate:,.0f} | {per_node / 1e9:.2f} | {slowest} |"
    )


def _all_reduce(size: float, gpus: int, a: argparse.Namespace) -> float:
    """Seconds: a ring inside each node of 8, then a ring of nodes; each hop costs its latency."""
    local, nodes = min(gpus, 8), max(1, gpus // 8)
    inside = 2 * (local - 1) / local * size / a.nvlink + 2 * (local - 1) * a.hop
    between = 2 * (nodes - 1) / nodes * size / a.network + 2 * (nodes - 1) * a.hop
    return inside + (between if nodes > 1 else 0.0)


def _records() -> None:
    """What grows with the records, whatever the number of GPUs."""
    print("\n| records | int16 at 100 Hz | at 500 Hz | features of width 768 | validation of a tenth, each process |")
    print("|---|---|---|---|---|")
    for records in (1e6, 1e7, 1e8):
        cells = (records * 24e3, records * 120e3, records * 768 * 4, records / 10 * (NUM_LABELS * 5 + 12))
        print(f"| {records:,.0f} | " + " | ".join(f"{cell / 1e9:,.1f} GB" for cell in cells) + " |")


ASSUMED = {
    "nvlink": (450e9, "bytes/s, one direction, H100 SXM (its data sheet)"),
    "network": (50e9, "bytes/s of a node to the others, 400 Gb/s; an assumption (clouds: 12e9 to 400e9)"),
    "hop": (10e-6, "seconds of latency a hop; an assumption"),
    "disk": (3e9, "bytes/s of random whole records a node, one NVMe drive; an assumption"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--store", required=True)
    measuring.add_argument("--backbone", default="vit")
    measuring.add_argument("--rounds", type=int, default=3)
    measuring.set_defaults(command=measure)
    predicting = commands.add_parser("predict")
    for name, (value, meaning) in ASSUMED.items():
        predicting.add_argument(f"--{name}", type=float, default=value, help=meaning)
    predicting.set_defaults(command=predict)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()

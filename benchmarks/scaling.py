"""Many processes and many records: what was measured here, and what a model of it says of more GPUs than one has.

`measure`: the real command line on 1, 2 and 4 processes (gloo, one thread each) with the same global batch: time of a
step and bytes that the gradients' all-reduce moves in each phase, counted in DDP's own hook.
`predict`: step time, communication, reading and validation for 8 to 512 GPUs and 1 to 100 million records; each number
that goes in is printed with where it is from, and each is an argument.

    python benchmarks/scaling.py measure --store STORE
    python benchmarks/scaling.py predict [--utilisation 0.3] [--disk 3e9] ...
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
from torch.utils.flop_counter import FlopCounterMode

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
    """What one record of a backbone costs."""

    name: str
    parameters: int
    flops: float
    """Of one training step of one window: forward and backward, counted by torch on the meta device."""
    stored: int
    """Bytes of a record in the store."""

    @classmethod
    def of(cls, name: str, bytes_per_point: int) -> "Load":
        """Counts them."""
        backbone = meta_backbone(name).train()
        signal = backbone.signal
        ecg = torch.empty(1, len(signal.leads), signal.num_time_points, device="meta")
        with FlopCounterMode(display=False) as counter:
            backbone(ecg).sum().backward()
        parameters = sum(parameter.numel() for parameter in backbone.parameters())
        points = len(signal.leads) * int(signal.record_rate * 10)
        return cls(name, parameters, float(counter.get_total_flops()), points * bytes_per_point)


def predict(arguments: argparse.Namespace) -> None:
    """Prints the assumptions, then a table per backbone."""
    for name, (_, meaning) in ASSUMED.items():
        print(f"{name} {getattr(arguments, name):g}: {meaning}")
    for name, bytes_per_point in (("vit", 2), ("st_mem_base", 2), ("ecgfounder", 4), ("hubert_ecg_large", 4)):
        load = Load.of(name, bytes_per_point)
        print(
            f"\n{name}: {load.parameters / 1e6:.1f} M parameters, {load.flops / 1e9:.2f} GFLOP a record and step, "
            f"{load.stored / 1e3:g} kB a record\n"
        )
        print("| GPUs | step, ms | all-reduce, ms (probe) | records/s | read, GB/s a node | slowest |")
        print("|---|---|---|---|---|---|")
        for gpus in (8, 32, 128, 512):
            print(_line(load, gpus, arguments))
    _records(arguments)


def _line(load: Load, gpus: int, a: argparse.Namespace) -> str:
    """One row: a step of ``local_batch`` records a GPU."""
    compute = a.local_batch * load.flops / (a.peak * a.utilisation)
    step = max(compute, a.floor)
    reduced = _all_reduce(4.0 * load.parameters, gpus, a)
    probe = _all_reduce(4.0 * NUM_LABELS * 769, gpus, a)
    exposed = max(0.0, reduced - 2 / 3 * step)  # overlaps with the backward pass, two thirds of the step
    rate = gpus * a.local_batch / (step + exposed)
    per_node = min(gpus, 8) / gpus * rate * load.stored
    slowest = "compute" if compute > a.floor else "launching"
    slowest = "network" if exposed > 0.05 * step else slowest
    slowest = f"disk, {per_node / a.disk:.1f} x" if per_node > a.disk else slowest
    return (
        f"| {gpus} | {1e3 * step:.1f} | {1e3 * reduced:.2f} ({1e3 * probe:.2f}) | {rate:,.0f} | "
        f"{per_node / 1e9:.2f} | {slowest} |"
    )


def _all_reduce(size: float, gpus: int, a: argparse.Namespace) -> float:
    """Seconds: a ring inside each node of 8, then a ring of nodes; each hop costs its latency."""
    local, nodes = min(gpus, 8), max(1, gpus // 8)
    inside = 2 * (local - 1) / local * size / a.nvlink + 2 * (local - 1) * a.hop
    between = 2 * (nodes - 1) / nodes * size / a.network + 2 * (nodes - 1) * a.hop
    return inside + (between if nodes > 1 else 0.0)


def _records(a: argparse.Namespace) -> None:
    """What grows with the records, whatever the number of GPUs."""
    print("\n| records | int16 at 100 Hz | at 500 Hz | features of width 768 | validation of a tenth, each process |")
    print("|---|---|---|---|---|")
    for records in (1e6, 1e7, 1e8):
        cells = (records * 24e3, records * 120e3, records * 768 * 4, records / 10 * (NUM_LABELS * 5 + 12))
        print(f"| {records:,.0f} | " + " | ".join(f"{cell / 1e9:,.1f} GB" for cell in cells) + " |")


ASSUMED = {
    "local_batch": (64.0, "records a GPU and step"),
    "peak": (989e12, "FLOP/s of an H100 SXM in bf16, dense (its data sheet)"),
    "utilisation": (0.3, "share of the peak that training reaches; an assumption where no GPU was measured"),
    "floor": (8e-3, "seconds of a step however small: kernels launched one by one, the loop; an assumption"),
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

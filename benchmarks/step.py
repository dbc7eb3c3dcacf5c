"""Processor time of a step through the real Trainer against the same network trained the plain way, one thread.

Ours: loader, callbacks, logger and all, fused AdamW, stochastic depth at 0.1. Plain: records fetched one by one from
HDF5 and collated, the network written out with explicit softmax attention (benchmarks/backbones.py), AdamW tensor by
tensor, no stochastic depth, no Trainer. Both float32, the same store of noise, in turn (A B A B), medians. Then the
share of our steps that is not forward, loss, backward or optimizer, from watches inside the same steps.

    python benchmarks/step.py [NAME ...]
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import torch
from backbones import PLAIN
from step_parts import Plain, network, noise_store
from torch.utils.data import DataLoader, Dataset
from trained_steps import model_share

from ecg_lightning.chains import run_batch_chain
from ecg_lightning.data.labels import ABSENT

NAMES = ("vit", "mtecg_ti", "multiresnet", "xresnet1d101", "s4", "ecgfounder")
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(PLAIN)}; by default {', '.join(NAMES)}"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="of each round, behind two that warm up")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in PLAIN]
    if unknown:
        parser.error(f"no plain form of {', '.join(unknown)}: there are {', '.join(PLAIN)}")
    torch.set_num_threads(1)
    print(
        f"batch of {arguments.batch}, one thread, {arguments.rounds} rounds of {arguments.steps} steps in turn, medians"
    )
    print("| backbone | ours, s a step | plain, s | ratio | not the model's |")
    print("|---|---|---|---|---|")
    for name in arguments.names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), name, arguments.batch, arguments.steps, arguments.rounds)


def compare(folder: Path, name: str, size: int, steps: int, rounds: int) -> None:
    """One line of the table."""
    store = noise_store(folder / "plain.h5", network(name, torch.device("cpu")), size * (steps + WARM_UP))
    ours, plain, shares = [], [], []
    for _ in range(rounds):
        seconds, share = model_share(folder, name, size, steps=steps, warm_up=WARM_UP)
        ours.append(seconds)
        shares.append(share)
        plain.append(plain_step(store, name, size, steps))
    ratio = median(a / b for a, b in zip(ours, plain, strict=True))
    print(
        f"| {name} | {median(ours):.3f} | {median(plain):.3f} | {ratio:.2f} | {100 * (1 - median(shares)):.1f} % |",
        flush=True,
    )


class OneByOne(Dataset[Any]):
    """A record at a time: read, scaled, run through the chain, its labels beside it."""

    def __init__(self, store: Path, name: str) -> None:
        self.file = h5py.File(store, "r")
        self.signals, self.likelihood = self.file["signals"], self.file["statements/likelihood"]
        self.chain = network(name, torch.device("meta")).signal.batch_chain
        self.unit = self.file.attrs["millivolts_per_unit"]

    def __len__(self) -> int:
        """Records."""
        return len(self.signals)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(lead, time) in mV behind the chain, and (label,)."""
        ecg = torch.from_numpy(np.float32(self.signals[place] * self.unit))
        return run_batch_chain(self.chain, ecg), torch.from_numpy(self.likelihood[place] != ABSENT)


def plain_step(store: Path, name: str, size: int, steps: int) -> float:
    """Seconds a step, reading included."""
    plain = Plain(name, size, torch.device("cpu"))
    loader = iter(DataLoader(OneByOne(store, name), size, shuffle=True))
    for _ in range(WARM_UP):
        plain.step(*next(loader))
    start = time.process_time()
    for _ in range(steps):
        plain.step(*next(loader))
    return (time.process_time() - start) / steps


if __name__ == "__main__":
    main()

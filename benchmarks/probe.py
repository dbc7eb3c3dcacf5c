"""What 30 epochs of linear probe cost against 1: the real command line, in turn, in fresh processes.

`fit` with `post_training.fine_tune.epochs=0`, real records: seconds, seconds of the processor, megabytes written (as
the system counts them for the process), and the run folder's size. Every epoch validates and writes a checkpoint.

    ecg-lightning prepare --source PTBXL_500 --output ecgfounder.h5 --backbone ecgfounder
    ecg-lightning prepare --source PTBXL_100 --output vit.h5 --backbone vit
    python benchmarks/probe.py --backbone ecgfounder --store ecgfounder.h5
    python benchmarks/probe.py --backbone vit --store vit.h5
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

EPOCHS = (1, 30)


class Cost(NamedTuple):
    """Of one fit."""

    wall: float
    processor: float
    written: float
    """MB."""
    kept: float
    """MB of the run folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit")
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the runs are written (by default a temporary folder)")
    arguments, more = parser.parse_known_args()
    costs: dict[int, list[Cost]] = {epochs: [] for epochs in EPOCHS}
    for number in range(arguments.rounds + 1):
        for epochs in EPOCHS:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                cost = fit(arguments, epochs, Path(folder) / "run", more)
            if number:  # the first round finds the files cold
                costs[epochs].append(cost)
    report(arguments.backbone, costs)


def fit(arguments: argparse.Namespace, epochs: int, run: Path, more: list[str]) -> Cost:
    """One fit in a fresh process."""
    command = [
        *(sys.executable, "-m", "ecg_lightning", "fit", "--config", f"backbone/{arguments.backbone}"),
        *("--config", "recipe/linear_probe", "--post_training.probe.epochs", str(epochs), "--run", str(run)),
        *("--data.store", str(arguments.store), "--data.task", "superdiagnostic"),
        *("--data.batch_size", str(arguments.batch_size), *more),
    ]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, processor, (after.ru_oublock - before.ru_oublock) * 512 / 1e6, kept / 1e6)


def report(backbone: str, costs: dict[int, list[Cost]]) -> None:
    """Medians, and what the epochs behind the first one cost."""
    middle = {epochs: Cost(*map(median, zip(*measured, strict=True))) for epochs, measured in costs.items()}
    for epochs, cost in middle.items():
        print(
            f"{backbone}, {epochs:2d} epochs: {cost.wall:6.2f} s, processor {cost.processor:6.2f} s, "
            f"{cost.written:7.1f} MB written, {cost.kept:6.1f} MB kept"
        )
    one, many = (middle[epochs] for epochs in EPOCHS)
    print(
        f"{backbone}, {EPOCHS[1]} / {EPOCHS[0]}: {many.wall / one.wall:.2f}, processor "
        f"{many.processor / one.processor:.2f}; an epoch more takes "
        f"{1e3 * (many.wall - one.wall) / (EPOCHS[1] - EPOCHS[0]):.0f} ms"
    )


if __name__ == "__main__":
    main()

"""How many simulated records a second `synthesize` writes, both rates, start of the processes included.

    OMP_NUM_THREADS=1 python benchmarks/synthesize.py --records 1000 --workers 1 2 --rounds 3

Each round is a process of its own. On a shared machine the wall time says how busy it was: the records per second of
processor time, times the cores, are what a machine of one's own would reach.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def measure(records: int, workers: int, rounds: int) -> tuple[float, float]:
    """Median seconds on the clock and of processor time, all processes together."""
    wall, processor = [], []
    for turn in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "ecg_lightning", "synthesize", "--output", str(Path(folder) / "tree")]
            command += ["--records", str(records), "--seed", str(turn), "--workers", str(workers)]
            before, started = _processor_seconds(), time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall.append(time.perf_counter() - started)
            processor.append(_processor_seconds() - before)
    return statistics.median(wall), statistics.median(processor)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table = Table("workers", "records/s (clock)", "records/s of processor time", "load before")
    for workers in arguments.workers:
        load = os.getloadavg()[0]
        wall, processor = measure(arguments.records, workers, arguments.rounds)
        rates = (arguments.records / wall, arguments.records / processor)
        table.add_row(str(workers), *(f"{rate:.0f}" for rate in rates), f"{load:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()

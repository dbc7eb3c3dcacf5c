"""`prepare` against the plain way: a loop over wfdb.rdrecord that writes into HDF5, one process.

    OMP_NUM_THREADS=1 python benchmarks/prepare.py --source PTBXL [PTBXL500 ...] --workers 2 --rounds 5

Both in turn (A B A B ...), in processes of their own so that each pays for its imports; medians of the wall times.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

PLAIN = """
import csv, sys
import h5py, wfdb
source, output, column = sys.argv[1:]
with open(f"{source}/ptbxl_database.csv", newline="", encoding="utf-8") as file:
    names = [row[column] for row in csv.DictReader(file)]
with h5py.File(output, "w") as store:
    for index, name in enumerate(names):
        ecg = wfdb.rdrecord(f"{source}/{name}").p_signal.T
        if index == 0:
            signals = store.create_dataset("signals", (len(names), *ecg.shape), "f4")
        signals[index] = ecg
"""
OURS = """
import sys
from ecg_lightning.data.prepare import prepare
from ecg_lightning.signals import SignalSpec
if __name__ == "__main__":
    source, output, rate, workers = sys.argv[1:]
    spec = SignalSpec(float(rate), 10 * int(rate))
    prepare(source, output, spec, workers=int(workers) or None, progress=False)
"""


def seconds(script: Path, *arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, str(script), *arguments], check=True)
    return time.perf_counter() - started


def measure(source: Path, workers: int, rounds: int) -> tuple[float, float]:
    """Median seconds of the plain loop and of `prepare`."""
    rate, column = ("100", "filename_lr") if (source / "records100").is_dir() else ("500", "filename_hr")
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        scripts = {"plain": PLAIN, "ours": OURS}
        paths = {name: Path(folder) / f"{name}.py" for name in scripts}
        for name, text in scripts.items():
            paths[name].write_text(text)
        for turn in range(rounds):
            plain.append(seconds(paths["plain"], str(source), f"{folder}/plain{turn}.h5", column))
            ours.append(seconds(paths["ours"], str(source), f"{folder}/ours{turn}.h5", rate, str(workers)))
    return statistics.median(plain), statistics.median(ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=2, help="0: as `prepare` decides")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    table = Table("source", "workers", "wfdb loop (s)", "prepare (s)", "ratio")
    for source in arguments.source:
        plain, ours = measure(source, arguments.workers, arguments.rounds)
        table.add_row(
            source.name, str(arguments.workers or "auto"), f"{plain:.2f}", f"{ours:.2f}", f"{plain / ours:.1f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()

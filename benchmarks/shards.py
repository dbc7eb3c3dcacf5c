"""Millions of records in shards: how long until the first training batch, and in how much memory.

Writes shards of simulated tables (labels, folds, patients; the signals a hole in the file, so that ten million records
fit on any disk), then opens them in a fresh process: all stores, the training split counted, the loader made, the first
batch read. Beside it, in a process of its own, the plain way: every table read into memory. Time, medians of the
rounds, and the peak of the resident memory above that of the imports.

    python benchmarks/shards.py --records 10000000 --shards 10
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from ecg_lightning.chains import Crop
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.labels import ABSENT, ptbxl_statements
from ecg_lightning.data.store import Store
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.signals import LEADS_12, SignalSpec, StoredSignal

SIGNAL = SignalSpec(100, 1000, chain=(Crop(),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the shards are written (by default a temporary folder)")
    parser.add_argument("--way", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(*WAYS[arguments.way](arguments.folder))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        start = time.perf_counter()
        for shard in range(arguments.shards):
            write_shard(Path(folder) / f"shard-{shard:04d}.h5", shard, arguments.records // arguments.shards)
        print(
            f"{arguments.records:,} records in {arguments.shards} shards written in {time.perf_counter() - start:.0f} s"
        )
        rounds = [{way: measured(way, folder) for way in WAYS} for _ in range(arguments.rounds)]
        report({way: [one[way] for one in rounds] for way in WAYS})


def write_shard(path: Path, shard: int, num_records: int) -> None:
    """Random labels with PTB-XL's 71 statements, three each; folds by patient."""
    random = np.random.default_rng(shard)
    codes = tuple(f"S{place:02d}" for place in range(71))
    flags = {kind: np.ones(71, bool) for kind in ("diagnostic", "form", "rhythm")}
    likelihood = np.full((num_records, 71), ABSENT, np.uint8)
    for _ in range(3):
        likelihood[np.arange(num_records), random.integers(71, size=num_records)] = 100
    patients = random.integers(num_records // 2 + 1, size=num_records) + shard * num_records
    records = {
        "ecg_id": np.arange(num_records) + shard * num_records,
        "patient_id": patients,
        "strat_fold": (patients % 10 + 1).astype(np.int8),
        "age": random.uniform(18, 90, num_records),
        "sex": random.integers(2, size=num_records).astype(np.int8),
        "checksum": np.zeros(num_records, np.uint32),
    }
    attributes = {"source": "made up", "millivolts_per_unit": 0.001}
    statements = ptbxl_statements(codes, flags, codes, codes)
    create_store(path, StoredSignal(100.0, LEADS_12, 1000), "<i2", records, likelihood, statements, attributes)
    finish_store(path, {})


def ours(folder: Path) -> tuple[float, float, float]:
    """Seconds until the training records are counted, and to the first batch; MB it took."""
    before, start = resident(), time.perf_counter()
    data = PTBXLDataModule(str(folder / "shard-*.h5"), batch_size=64).use_signal(SIGNAL)
    assert len(data.split("train")) > 0
    opened = time.perf_counter() - start
    batch = next(iter(data.train_dataloader()))
    assert batch["ecg"].shape == (64, 1, 12, 1000)
    return opened, time.perf_counter() - start, peak() - before


def plain(folder: Path) -> tuple[float, float, float]:
    """The same with all tables in memory: labels and folds of every record, then one batch of a plain shuffle."""
    before, start = resident(), time.perf_counter()
    stores = [Store(path) for path in sorted(folder.glob("shard-*.h5"))]
    labels = np.concatenate([store.likelihood for store in stores])
    folds = np.concatenate([store.records["strat_fold"] for store in stores])
    train = np.flatnonzero((folds <= 8) & (labels != ABSENT).any(axis=1))
    opened = time.perf_counter() - start
    rows = np.random.default_rng(0).permutation(train)[:64]
    size = stores[0].num_records
    assert np.stack([stores[row // size].signals()[row % size] for row in rows]).shape == (64, 12, 1000)
    return opened, time.perf_counter() - start, peak() - before


WAYS = {"ours": ours, "plain": plain}


def peak() -> float:
    """Peak resident memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
    """Resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def measured(way: str, folder: str) -> list[float]:
    """One way in a fresh process."""
    command = [sys.executable, __file__, "--way", way, "--folder", folder]
    return [
        float(value) for value in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    ]


def report(measured_ways: dict[str, list[list[float]]]) -> None:
    """One line a way."""
    for way, runs in measured_ways.items():
        opened, first, megabytes = (median(values) for values in zip(*runs, strict=True))
        print(f"{way:<6} opened after {opened:6.2f} s, first batch after {first:6.2f} s, {megabytes:8.1f} MB")


if __name__ == "__main__":
    main()

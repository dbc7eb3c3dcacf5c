"""Records per second of float32 training batches: the data module against the usual ways to read ECGs.

Every way delivers the same batches of 64 random records, float32 mV, in one thread and one process, in turn (A B A B),
medians. The data module is measured through its own loader, workers 0, and `on_after_batch_transfer`; its backbone
takes mV as they are, so that all ways do the same work. `map` is a bare memory map without a loader, `copy` a plain
copy of the batch's float32 bytes: the two bounds.

    python benchmarks/read.py --source PTBXL_DIR --sampling_rate 100
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import torch
import wfdb

from ecg_lightning.chains import Crop
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.ptbxl import read_table
from ecg_lightning.signals import SignalSpec

BATCH = 64
Batches = Callable[[int], Iterator[torch.Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of PTB-XL")
    parser.add_argument("--sampling_rate", type=int, default=100, choices=(100, 500))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = make_ways(arguments.source, arguments.sampling_rate, Path(folder))
        check_equal(ways)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(arguments.rounds + 1):
            for name, way in ways.items():
                rate = records_per_second(way, round_number)
                if round_number:  # the first warms the page cache
                    rates[name].append(rate)
    report({name: median(measured) for name, measured in rates.items()}, arguments.sampling_rate)


def make_ways(source: Path, sampling_rate: int, folder: Path) -> dict[str, Batches]:
    """Each way as a function from a seed to an epoch's batches (batch, lead, time)."""
    signal = SignalSpec(sampling_rate, 10 * sampling_rate, chain=(Crop(),))
    store = folder / "store.h5"
    prepare(source, store, signal, workers=1, progress=False)
    data = PTBXLDataModule(
        str(store), batch_size=BATCH, keep="all", train_folds=range(1, 11), val_folds=(), test_folds=()
    )
    data.use_signal(signal)
    opened = data.stores.stores[0]
    rows = data.rows("train")
    paths = [
        str(source / name)
        for name in read_table(source).filenames["filename_lr" if sampling_rate == 100 else "filename_hr"]
    ]
    signals = np.array(opened.signals()) * np.float32(opened.millivolts_per_unit)
    for row, ecg in enumerate(signals):
        np.save(folder / f"{row}.npy", ecg)
    with h5py.File(folder / "gzip.h5", "w") as file:
        file.create_dataset("ecg", data=signals, chunks=(1, *signals.shape[1:]), compression="gzip")
    gzip = h5py.File(folder / "gzip.h5", "r")["ecg"]
    bare = opened.signals()
    unit = np.float32(opened.millivolts_per_unit)

    def order(seed: int) -> list[np.ndarray]:
        shuffled = rows[np.random.default_rng((data.seed, seed)).permutation(len(rows))]
        return [shuffled[start : start + BATCH] for start in range(0, len(rows), BATCH)]

    def one_by_one(read: Callable[[int], np.ndarray]) -> Batches:
        return lambda seed: (torch.from_numpy(np.stack([read(int(row)) for row in batch])) for batch in order(seed))

    loader = data.train_dataloader()  # once, as in a fit; its iterators are made anew per epoch

    def module(seed: int) -> Iterator[torch.Tensor]:
        loader.batch_sampler.set_epoch(seed)
        return (data.on_after_batch_transfer(batch, 0)["ecg"].squeeze(1) for batch in loader)

    return {
        "data module": module,
        "wfdb": one_by_one(lambda row: wfdb.rdrecord(paths[row]).p_signal.T.astype(np.float32)),
        "npy": one_by_one(lambda row: np.load(folder / f"{row}.npy")),
        "gzip h5py": one_by_one(lambda row: gzip[row]),
        "map": lambda seed: (torch.from_numpy(bare[batch] * unit) for batch in order(seed)),
        "copy": lambda seed: (torch.from_numpy(signals[: len(batch)].copy()) for batch in order(seed)),
    }


def check_equal(ways: dict[str, Batches]) -> None:
    """All ways must deliver the same numbers, or the comparison means nothing."""
    expected = next(iter(ways["npy"](0)))
    for name in ("data module", "wfdb", "gzip h5py", "map"):
        torch.testing.assert_close(next(iter(ways[name](0))), expected, rtol=0, atol=1e-6, msg=f"{name} differs")


def records_per_second(way: Batches, seed: int) -> float:
    """Repeats short epochs until there is something to time."""
    records, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < 0.5:
        for batch in way(seed):
            assert batch.dtype == torch.float32
            records += len(batch)
    return records / elapsed


def report(rates: dict[str, float], sampling_rate: int) -> None:
    """One line a way: its rate, and how many times faster the data module and the bare map are."""
    print(f"{sampling_rate} Hz, batches of {BATCH}, medians")
    print(f"{'way':<12}{'records/s':>12}{'data module is':>16}{'bare map is':>14}{'share of the map':>18}")
    for name, rate in rates.items():
        ours, bare = rates["data module"] / rate, rates["map"] / rate
        print(f"{name:<12}{rate:>12,.0f}{ours:>14.2f} x{bare:>12.2f} x{ours / bare:>17.0%}")


if __name__ == "__main__":
    main()

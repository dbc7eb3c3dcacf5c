"""Records per second of float32 training batches, as a step receives them: the data module against other loaders.

Random windows of 2.5 s out of PTB-XL's real records, labels beside them, without workers and with two (worker
processes of torch's loader; threads of ours), all ways in turn (A B A B), medians. The real records are repeated
under new ids until no cache holds them; ways that read a file per record read the few real files, which the system
keeps in memory. What comes first are the usual ways: `wfdb`, one .npy a record, one HDF5 file with a gzip chunk a
record, the whole set in memory as float32 with a collate of single items.
`copy` is what nothing can beat: a plain copy of a batch's float32 bytes, in order, without loader, labels or windows;
`copied at random` the same of random records.

A second table holds three networks' own loaders, rebuilt from their description, against ours with that network's
preprocessing: what reaches the network is compared and is equal. ECGFounder's users read by wfdb and filter each item
(500 Hz, 10 s); ST-MEM's read a pickle, resample, crop and filter (250 Hz, 9 s); the PTB-XL benchmark's hold the
standardised set in memory and crop (100 Hz, 2.5 s).

    OMP_NUM_THREADS=1 python benchmarks/loaders.py --ptbxl PTBXL_100 --ptbxl500 PTBXL_500
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from item_readers import Read, ecgfounder_reads, ptbxl_benchmark_reads, st_mem_reads, usual_reads
from made_stores import tiled
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.chains import Crop
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.residency import Residency
from ecg_lightning.data.window_starts import random_starts
from ecg_lightning.signals import SignalSpec

SECONDS_A_TURN = 1.0
LEAST_BATCHES = 4
Batches = Callable[[int], Iterator[Tensor]]
"""A number of workers -> an epoch's batches (batch, lead, time)."""


class Items(Dataset[tuple[Tensor, Tensor]]):
    """One record an item: read, with a random window, as the loaders of published code have it."""

    def __init__(self, read: Read, rows: NDArray[np.int64], labels: NDArray[np.float32], last: int) -> None:
        self.read, self.rows, self.labels, self.last = read, rows, labels, last

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        start = int(torch.randint(self.last + 1, ()))
        return torch.from_numpy(self.read(int(self.rows[place]), start)), torch.from_numpy(self.labels[place])


@dataclass
class Setting:
    """A store, and what reaches the network."""

    store: Path
    signal: SignalSpec
    batch_size: int

    def data(self, residency: Residency = "memmap") -> PTBXLDataModule:
        """Folds 1-8 train, fold 9 validates, 10 is not in the excerpt."""
        data = PTBXLDataModule(str(self.store), batch_size=self.batch_size, keep="all", residency=residency)
        return data.use_signal(self.signal)

    def ours(self, residency: Residency) -> Batches:
        """As a fit reads them, the steps behind the crop included."""
        data = self.data(residency)
        data.copy_signals()

        def batches(num_workers: int) -> Iterator[Tensor]:
            data.num_workers = num_workers
            return (data.on_after_batch_transfer(batch, 0)["ecg"].squeeze(1) for batch in data.train_dataloader())

        return batches

    def per_item(self, read: Read, batch_size: int | None = None) -> Batches:
        """Single items, collated."""
        data = self.data()
        last = data.stores.stored.num_time_points - self.signal.window_points
        self._check(data, read, last)
        items = Items(read, data.rows("train"), data.train_labels().astype(np.float32), last)
        size = batch_size or self.batch_size
        return lambda workers: (
            ecg for ecg, _ in DataLoader(items, size, shuffle=True, num_workers=workers, generator=torch.Generator())
        )

    def _check(self, data: PTBXLDataModule, read: Read, last: int) -> None:
        """Both must deliver the same numbers, or the comparison means nothing."""
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
        rows = batch["index"].numpy()[:8]
        starts = random_starts(data.seed, 0, data.stores.take("ecg_id", rows).astype(np.int64), last)
        theirs = np.stack([read(int(row), int(start)) for row, start in zip(rows, starts, strict=True)])
        np.testing.assert_allclose(batch["ecg"][:8, 0].numpy(), theirs, rtol=0, atol=2e-3)


def copies(windows: NDArray[np.float32], batch_size: int) -> dict[str, Batches]:
    """Plain copies of batches out of ``windows`` (record, lead, time) into one array, in order and at random."""
    batch = np.empty((batch_size, *windows.shape[1:]), np.float32)

    def in_order(_: int) -> Iterator[Tensor]:
        for start in range(0, len(windows) - batch_size + 1, batch_size):
            np.copyto(batch, windows[start : start + batch_size])
            yield torch.from_numpy(batch)

    def at_random(_: int) -> Iterator[Tensor]:
        order = np.random.default_rng(0).permutation(len(windows))
        for start in range(0, len(windows) - batch_size + 1, batch_size):
            np.take(windows, order[start : start + batch_size], axis=0, out=batch, mode="clip")
            yield torch.from_numpy(batch)

    return {"copy": in_order, "copied at random": at_random}


def records_per_second(way: Batches, num_workers: int) -> float:
    """Over whole epochs, one behind the other, for `SECONDS_A_TURN` and `LEAST_BATCHES`.

    Left out of each are the first batch, what workers have ready then and what they had at its end, and the end itself:
    they take as long to start and to stop as several batches do.
    """
    records, seconds, times = 0, 0.0, 0
    while seconds < SECONDS_A_TURN or times < LEAST_BATCHES:
        found = _counted(way, num_workers, SECONDS_A_TURN - seconds)
        records, seconds, times = records + found[0], seconds + found[1], times + found[2]
    return records / seconds


def _counted(way: Batches, num_workers: int, most_seconds: float) -> tuple[int, float, int]:
    """Records, seconds and batches of one epoch, or of so much of it."""
    ahead = 2 * num_workers
    with closing(way(num_workers)) as batches:  # type: ignore[type-var]
        for _, _ in zip(range(1 + ahead), batches, strict=False):
            pass
        records, times = [0], [time.perf_counter()]
        for batch in batches:
            assert batch.dtype == torch.float32
            records.append(len(batch))
            times.append(time.perf_counter())
            if times[-1] - times[0] > most_seconds and len(times) > LEAST_BATCHES:
                break
        else:
            records, times = records[: len(records) - ahead], times[: len(times) - ahead]
    assert len(times) > 1, "too few batches: more --records"
    return sum(records), times[-1] - times[0], len(times) - 1


def measured(ways: Mapping[str, Batches], workers: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Medians per way, one for each number of workers."""
    rates: dict[tuple[str, int], list[float]] = {(name, number): [] for name in ways for number in workers}
    for _ in range(rounds):
        for (name, number), found in rates.items():
            found.append(records_per_second(ways[name], number))
    return {name: [median(rates[name, number]) for number in workers] for name in ways}


def usual(source: Path, sampling_rate: int, folder: Path, arguments: argparse.Namespace) -> None:
    """The first table, for one rate."""
    real = folder / f"real{sampling_rate}.h5"
    signal = SignalSpec(sampling_rate, round(2.5 * sampling_rate), chain=(Crop(),))
    prepare(source, real, signal, workers=1, progress=False)
    setting = Setting(
        tiled(real, folder / f"store{sampling_rate}.h5", arguments.records * 200 // (100 + sampling_rate)),
        signal, arguments.batch_size,
    )  # fmt: skip
    reads, windows = usual_reads(source, real, sampling_rate, signal.window_points, setting.data().stores, folder)
    ways = {name: setting.per_item(read) for name, read in reads.items()}
    ways |= copies(windows, arguments.batch_size)
    ours = {f"ours, {residency}": setting.ours(residency) for residency in ("memmap", "memory", "device")}
    rates = measured(ways | ours, arguments.workers, arguments.rounds)
    print(f"\n{sampling_rate} Hz, {len(setting.data().rows('train'))} records, windows of 2.5 s, device cpu\n")
    heads = [f"{number} workers: records/s | ours, memmap | ours, memory" for number in arguments.workers]
    print(f"| way | {' | '.join(heads)} |\n|---|{'---|' * 3 * len(heads)}")
    for name, found in rates.items():
        cells = [
            f"{rate:,.0f} | {rates['ours, memmap'][place] / rate:.2f} x | {rates['ours, memory'][place] / rate:.2f} x"
            for place, rate in enumerate(found)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def published(arguments: argparse.Namespace, folder: Path) -> None:
    """The second table."""
    heads = [f"{number} workers: theirs | ours, memmap | times | ours, memory | times" for number in arguments.workers]
    print(f"\nloaders of published networks, records/s\n\n| network | {' | '.join(heads)} |")
    print(f"|---|{'---|' * 5 * len(heads)}")
    kinds = {
        "ecgfounder": (arguments.ptbxl500, ecgfounder_reads, 4),
        "st_mem_base": (arguments.ptbxl500, st_mem_reads, 8),
        "xresnet1d101": (arguments.ptbxl, ptbxl_benchmark_reads, None),
    }
    for name, (source, reads, batch_size) in kinds.items():
        signal, real = backbone_signal(name), folder / f"{name}.h5"
        prepare(source, real, signal, workers=2, progress=False)
        setting = Setting(tiled(real, folder / f"{name}-tiled.h5", 4000), signal, arguments.batch_size)
        ways = {
            "theirs": setting.per_item(reads(source, real, setting.data().stores, folder), batch_size),
            "ours, memmap": setting.ours("memmap"),
            "ours, memory": setting.ours("memory"),
        }
        rates = measured(ways, arguments.workers, arguments.rounds)
        cells = []
        for place in range(len(arguments.workers)):
            theirs, memmap, memory = (found[place] for found in rates.values())
            cells.append(
                f"{theirs:,.0f} | {memmap:,.0f} | {memmap / theirs:.1f} | {memory:,.0f} | {memory / theirs:.1f}"
            )
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", type=Path, required=True, help="folder of PTB-XL with 100 Hz")
    parser.add_argument("--ptbxl500", type=Path, required=True, help="folder of PTB-XL with 500 Hz")
    parser.add_argument("--records", type=int, default=20_000, help="at 100 Hz; a third of them at 500 Hz")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("100", "500", "published"), nargs="+", default=["100", "500", "published"])
    parser.add_argument("--folder", type=Path, help="for 3 GB of temporary files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"batches of {arguments.batch_size}, {arguments.rounds} rounds in turn, medians; one thread a process")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for source, rate in ((arguments.ptbxl, 100), (arguments.ptbxl500, 500)):
            if str(rate) in arguments.only:
                usual(source, rate, Path(folder), arguments)
        if "published" in arguments.only:
            published(arguments, Path(folder))


if __name__ == "__main__":
    main()

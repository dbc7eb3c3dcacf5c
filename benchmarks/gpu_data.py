"""Records per second that arrive on a GPU as float32 mV, by where the signals lie: data.residency against .npy files.

20,000 simulated records of 100 Hz (int16), batches of 256, whole records and random windows of 2.5 s, labels beside
them; transferred as Lightning does it. The batches of all three residencies are first held against one another bit for
bit, and whether they come in pinned memory is printed. `copy` is the bound of what travels: one pinned float32 batch,
again and again. Says so in one line, and ends with 0, where there is no GPU.

    python benchmarks/gpu_data.py                # under 60 s on 16 cores
    python benchmarks/gpu_data.py --device cpu   # the same code, without a GPU
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from made_stores import simulated
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ecg_lightning.chains import Crop
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.residency import Residency
from ecg_lightning.data.store import Store
from ecg_lightning.signals import SignalSpec

BATCH = 256
RESIDENCIES: tuple[Residency, ...] = ("memmap", "memory", "device")
Batches = Callable[[], Iterator[Tensor]]


class NpyItems(Dataset[tuple[Tensor, Tensor]]):
    """One .npy a record, float32 mV: read, cut, collated one by one."""

    def __init__(self, folder: Path, num_records: int, width: int) -> None:
        self.folder, self.num_records, self.width = folder, num_records, width

    def __len__(self) -> int:
        return self.num_records

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        ecg = np.load(self.folder / f"{row}.npy")
        start = int(torch.randint(ecg.shape[-1] - self.width + 1, ()))
        return torch.from_numpy(ecg[:, start : start + self.width]), torch.zeros(71)


def data_on(device: torch.device, store: Path, width: int, residency: Residency) -> PTBXLDataModule:
    """A data module as in a fit on ``device``, its signals copied."""
    data = PTBXLDataModule(str(store), batch_size=BATCH, residency=residency)
    data.use_signal(SignalSpec(100, width, chain=(Crop(),)))
    strategy = SimpleNamespace(root_device=device)
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, lightning_module=None, strategy=strategy)
    data.trainer = trainer
    data.copy_signals()
    return data


def arriving(data: PTBXLDataModule, device: torch.device, num_workers: int) -> Iterator[dict[str, Any]]:
    """An epoch's batches as they reach the step."""
    data.num_workers = num_workers
    return (data.on_after_batch_transfer(move_data_to_device(batch, device), 0) for batch in data.train_dataloader())


def endless(epoch: Batches) -> Iterator[Tensor]:
    while True:
        yield from epoch()


def rate(batches: Iterator[Tensor], device: torch.device, warm: int, seconds: float) -> float:
    """Records per second behind ``warm`` batches, until all that was asked for has arrived."""
    with closing(batches):  # type: ignore[type-var]
        for _ in islice(batches, warm):
            pass
        _wait(device)
        records, start = 0, time.perf_counter()
        for ecg in batches:
            assert ecg.dtype == torch.float32
            assert ecg.device.type == device.type
            records += len(ecg)
            if time.perf_counter() - start > seconds:
                break
        _wait(device)
        return records / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_equal(modules: dict[Residency, PTBXLDataModule], device: torch.device) -> None:
    """All residencies must deliver the same bits."""
    for batches in islice(zip(*(arriving(data, device, 0) for data in modules.values()), strict=True), 5):
        for other in batches[1:]:
            assert batches[0].keys() == other.keys()
            for name, value in batches[0].items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def pinned(data: PTBXLDataModule) -> str:
    batch = next(iter(data.train_dataloader()))
    return ", ".join(f"{name} {value.is_pinned()}" for name, value in batch.items() if isinstance(value, Tensor))


def copies(device: torch.device, width: int) -> Iterator[Tensor]:
    batch = torch.zeros(BATCH, 12, width)
    batch = batch.pin_memory() if device.type == "cuda" else batch
    while True:
        yield batch.to(device, non_blocking=True, copy=True)


def ways_of(
    device: torch.device, folder: Path, store: Path, width: int, workers: Iterable[int]
) -> dict[str, tuple[int, Callable[[], Iterator[Tensor]]]]:
    """Each way with the batches that are left out of its timing."""
    modules = {name: data_on(device, store, width, name) for name in RESIDENCIES}
    check_equal(modules, device)
    num_records = len(modules["memmap"].rows("train"))
    ways: dict[str, tuple[int, Callable[[], Iterator[Tensor]]]] = {"copy": (3, lambda: copies(device, width))}
    for number in workers:
        npy = DataLoader(
            NpyItems(folder, num_records, width), BATCH, shuffle=True, num_workers=number,
            pin_memory=device.type == "cuda", drop_last=True,
        )  # fmt: skip
        ways[f".npy per record, {number} workers"] = (
            1 + 2 * number,
            lambda npy=npy: endless(lambda: (move_data_to_device(batch, device)[0] for batch in npy)),
        )
        for name, data in modules.items():
            ways[f"{name}, {number} workers"] = (
                1 + 2 * number,
                lambda data=data, number=number: endless(
                    lambda: (batch["ecg"].squeeze(1) for batch in arriving(data, device, number))
                ),
            )
    print(
        f"\nwindows of {width} time points; in pinned memory: {pinned(modules['memmap'])}; {pinned(modules['device'])}"
    )
    return ways


def write_npy(store: Path, folder: Path) -> None:
    opened = Store(store)
    for row, ecg in enumerate(opened.signals()):
        np.save(folder / f"{row}.npy", ecg * np.float32(opened.millivolts_per_unit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu tries the code out")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each timing")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 8])
    parser.add_argument("--folder", type=Path, help="for 1.5 GB of temporary files")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing was measured")
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        store = simulated(folder / "store.h5", arguments.records)
        write_npy(store, folder)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        print(f"{name}, torch {torch.__version__}, {arguments.records} records, batches of {BATCH}, 100 Hz")
        for width in (1000, 250):
            ways = ways_of(device, folder, store, width, arguments.workers)
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(arguments.rounds):
                for way, (warm, make) in ways.items():
                    rates[way].append(rate(make(), device, warm, arguments.seconds))
            report({way: median(found) for way, found in rates.items()}, arguments.workers)
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def report(rates: dict[str, float], workers: Iterable[int]) -> None:
    best = max(rates[f".npy per record, {number} workers"] for number in workers)
    print("\n| way | records/s | times the best .npy loader | share of the copy |\n|---|---|---|---|")
    for way, found in rates.items():
        print(f"| {way} | {found:,.0f} | {found / best:.1f} | {found / rates['copy']:.2f} |", flush=True)


if __name__ == "__main__":
    main()

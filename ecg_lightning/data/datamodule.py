"""PTBXLDataModule: the folds and a task of a store, as batches."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ecg_lightning.chains import run_batch_chain
from ecg_lightning.data.batch_memory import KEPT
from ecg_lightning.data.batches import Batch
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labelled_blocks import NoLabels, TaskLabels
from ecg_lightning.data.loading import MORE_AHEAD, BatchLoader
from ecg_lightning.data.residency import Residency, Resident, copy_of_signals, fits, in_one_unit
from ecg_lightning.data.sampler import (
    SHUFFLE_RECORDS,
    EvaluationBatches,
    FixedChunks,
    Order,
    Request,
    Rows,
    Shuffled,
    TrainingBatches,
    Weighted,
)
from ecg_lightning.data.splits import Split, Splits, check_folds
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.progress import next_position
from ecg_lightning.signals import SignalSpec

log = logging.getLogger(__name__)
FEATURE_CHUNK = 64
_OF_AN_EPOCH = {"batch_size", "weights", "shuffle_records"}
"""How records are dealt out: may be another in the next epoch of a resumed run, on the same records."""


class PTBXLDataModule(LightningDataModule):
    """PTB-XL, or any stores, split by their folds: 1-8 train, 9 validates, 10 tests unless told otherwise.

    Args:
        store: the file that `ecg-lightning prepare` wrote, a glob, or a list of either: all of them are one data set.
        task: which labels; PTB-XL has all (71), diagnostic (44), subdiagnostic (23), superdiagnostic (5), form (19),
            rhythm (12), another source its own (`inspect STORE` lists them).
        batch_size: records of a global batch, split over the processes.
        train_folds: values of strat_fold to train on.
        val_folds: to validate on.
        test_folds: to test on; read by `test` alone. A split that a command does not read may be `[]`.
        weights: of the entries of `store` in training: how often their records are drawn, whatever their number.
        shuffle_records: records that are mixed at a time; a data set up to this size is shuffled as a whole.
        train_fraction: share of the training patients that is used; a smaller share lies inside a larger one.
        min_likelihood: a statement counts from this likelihood on (0 to 100); 0 as in the PTB-XL benchmark.
        keep: `labelled` drops the records without a label of the task, as the benchmark does; `all` keeps them.
        num_workers: threads that read ahead, so that no step waits; 0 reads in the one that trains.
        residency: where the training and validation signals lie in a fit: `memmap` reads the stores' files (the system
            keeps what fits of them in memory), `memory` copies them once into the memory of each process, `device` onto
            its GPU, where the windows are then cut. PTB-XL takes 0.47 GB at 100 Hz, 2.4 GB at 500 Hz, twice that where
            filtered; what does not fit half of the memory is read by memmap, and said so. The batches are the same.
        seed: of the order, the random windows and the fraction (linked from seed_everything on the command line).
    """

    def __init__(
        self,
        store: list[str] | str,
        task: str = "all",
        *,
        batch_size: int = 256,
        train_folds: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8),
        val_folds: Sequence[int] = (9,),
        test_folds: Sequence[int] = (10,),
        weights: Sequence[float] | None = None,
        shuffle_records: int = SHUFFLE_RECORDS,
        train_fraction: float = 1.0,
        min_likelihood: float = 0.0,
        keep: Literal["labelled", "all"] = "labelled",
        num_workers: int = 2,
        residency: Residency = "memmap",
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.stores = StoreSet(store)
        self.task, self.batch_size, self.num_workers, self.seed = task, batch_size, num_workers, seed
        self.folds = {"train": tuple(train_folds), "val": tuple(val_folds), "test": tuple(test_folds)}
        self.train_fraction, self.keep, self.min_likelihood = train_fraction, keep, min_likelihood
        self.weights = tuple(weights) if weights is not None else None
        self.shuffle_records, self.residency = shuffle_records, residency
        self._check()
        self.task_labels = self._labels()
        self.label_names: tuple[str, ...] = self.task_labels.names
        self.signal: SignalSpec | None = None
        self._datasets: dict[str, ECGDataset] = {}
        self._on_device: Resident | None = None
        self._splits = Splits(
            self.task_labels,
            self.folds,
            only_labelled=keep == "labelled",
            train_fraction=train_fraction,
            seed=seed,
        )
        self._position = (0, 0)

    def _labels(self) -> TaskLabels | NoLabels:
        return TaskLabels(self.stores, self.task, self.min_likelihood)

    def _check(self) -> None:
        check_folds(self.folds)
        if not 0 <= self.min_likelihood <= 100:
            raise UsageError(f"data.min_likelihood is {self.min_likelihood}, it must lie in 0..100")
        if self.num_workers < 0:
            raise UsageError(f"data.num_workers is {self.num_workers}, it must be 0 or more")
        if not 0 < self.train_fraction <= 1:
            raise UsageError(f"data.train_fraction is {self.train_fraction}, it must lie in 0..1, 0 left out")
        if self.shuffle_records < 1:
            raise UsageError(f"data.shuffle_records is {self.shuffle_records}, it must be 1 or more")
        if self.weights is None:
            return
        if len(self.weights) != self.stores.num_sources or min(self.weights) < 0 or not sum(self.weights):
            raise UsageError(
                f"data.weights is {list(self.weights)}, it takes one weight of 0 or more for each of the "
                f"{self.stores.num_sources} entries of data.store, not all of them 0"
            )

    # --- set-up ---

    def setup(self, stage: str) -> None:
        """Takes the backbone's spec, holds the store against it, and refuses an empty split.

        Raises:
            InputError: with the `prepare` command that makes the right store.
        """
        if self.signal is None:
            assert self.trainer is not None
            backbone: Any = self.trainer.lightning_module.backbone
            self.use_signal(backbone.signal, backbone.flag_name())
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            log.info("%s", self._splits.told(split))
        if stage == "fit" and (without := self._splits.nothing_to_test()):
            log.warning(without)
        if stage == "fit":
            self.copy_signals()

    def teardown(self, stage: str) -> None:
        """Behind a fit each record is read once: from the stores."""
        if stage == "fit":
            self._use(None)

    def copy_signals(self) -> None:
        """Copies the training and validation signals to where `residency` says; by hand where there is no trainer."""
        assert self.signal is not None
        if self.residency == "memmap":
            return
        device = torch.device("cpu") if self.residency == "memory" else self._device()
        num_records = len(self.split("train")) + len(self.split("val"))
        processes = 1 if self.trainer is None else self.trainer.num_devices
        if not fits(self.stores, num_records, self.signal, device, processes):
            return
        rows = np.sort(np.concatenate([self.rows("train"), self.rows("val")]))
        self._use(copy_of_signals(self.stores, rows, self.signal, device))

    def _use(self, copy: Resident | None) -> None:
        """Lets the loaders of a fit take their signals from this copy, or from the stores."""
        self._on_device = copy if self.residency == "device" else None
        on_device = None if self._on_device is None else self._on_device.rows
        for split in ("train", "val"):
            self._datasets[split].use(in_memory=None if self._on_device else copy, on_device=on_device)

    def use_signal(self, signal: SignalSpec, backbone: str = "NAME") -> "PTBXLDataModule":
        """Sets what the network called ``backbone`` takes; to be called by hand where there is no trainer."""
        self.stores.check_fits(signal, backbone)
        self.signal = signal
        self._datasets = {
            split: ECGDataset(self.task_labels, signal, training=split == "train", seed=self.seed)
            for split in ("train", "val", "test")
        }
        return self

    def split(self, name: str, source: int | None = None) -> Split:
        """The records of ``train``, ``val`` or ``test``, of one source alone if it is named.

        Raises:
            InputError: when there is none.
            UsageError: where no fold is named for it.
        """
        return self._splits.of(name, source)

    def rows(self, split: str) -> Rows:
        """Places in the data set of a split's records, in its order."""
        return self.split(split).all_rows()

    def train_labels(self) -> NDArray[np.uint8]:
        """(record, label) of the training split."""
        return self.task_labels.of(self.rows("train"))[1]

    # --- loaders ---

    def train_dataloader(self) -> DataLoader[Batch]:
        """Global batches in the order of (seed, epoch), from the position that a resumed run stands at."""
        rank, world_size = self._process()
        if self.batch_size < world_size:
            raise UsageError(
                f"data.batch_size is {self.batch_size}, the global batch is split over {world_size} processes: "
                f"set it to {world_size} or more"
            )
        order = self._order()
        if len(order) < world_size:
            raise InputError(f"train has {len(order)} record(s) for {world_size} processes: use fewer processes")
        batches = TrainingBatches(order, self.batch_size, seed=self.seed, rank=rank, world_size=world_size)
        batches.epoch, batches.start = self._position
        log.info(
            "global batch of %d records = %d process(es) x %g",
            self.batch_size,
            world_size,
            self.batch_size / world_size,
        )
        return self._loader(self._datasets["train"], batches)

    def _order(self) -> Order:
        if self.weights is None:
            return Shuffled(self.split("train"), self.shuffle_records)
        weighed = {source: weight for source, weight in enumerate(self.weights) if weight}
        orders = [Shuffled(self.split("train", source), self.shuffle_records) for source in weighed]
        return Weighted(orders, list(weighed.values()), self.shuffle_records)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every record of the validation split once."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every record of the test split once."""
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader[Batch]:
        rank, world_size = self._process()
        found = self.split(split)
        if len(found) < world_size:
            raise InputError(f"{split} has {len(found)} record(s) for {world_size} processes: use fewer processes")
        batches = EvaluationBatches(found, max(1, self.batch_size // world_size), rank=rank, world_size=world_size)
        return self._loader(self._datasets[split], batches)

    def _loader(self, dataset: ECGDataset, requests: Iterable[Request]) -> DataLoader[Batch]:
        device, int16 = self._device(), self.stores.stores[0].dtype == np.int16
        on_cpu = device.type == "cpu"
        dataset.in_millivolts = in_one_unit(self.stores) is None or (on_cpu and int16)
        dataset.memory.kept = KEPT + MORE_AHEAD + 2 * self.num_workers  # a thread may still hold its last one
        return BatchLoader(
            dataset,
            requests,
            num_threads=self.num_workers,
            pin_for=device if device.type == "cuda" and torch.cuda.is_available() else None,
        )

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: the windows of what lies there, to mV, then the steps of the chain behind the crop."""
        if "cuts" in batch:
            assert self._on_device is not None
            batch["ecg"] = self._on_device.windows(batch.pop("cuts"))
        if "ecg" in batch:
            assert self.signal is not None
            wanted = self._dtype()
            precise = torch.float64 if wanted == torch.float64 else torch.float32
            ecg = self._millivolts(batch["ecg"], precise)
            batch["ecg"] = run_batch_chain(self.signal.batch_chain, ecg.to(precise)).to(wanted)
        return batch

    def _millivolts(self, ecg: torch.Tensor, precise: torch.dtype) -> torch.Tensor:
        """Windows as they came; on the CPU as the data set makes its mV, whatever the network's precision."""
        if ecg.dtype != torch.int16:
            return ecg
        on_cpu = ecg.device.type == "cpu"
        return ecg.to(torch.float32 if on_cpu else precise).mul_(self.stores.stores[0].millivolts_per_unit)

    def _dtype(self) -> torch.dtype:
        if self.trainer is None or self.trainer.lightning_module is None:
            return torch.float32
        return next(self.trainer.lightning_module.parameters()).dtype

    # --- what the probe's shortcut needs ---

    def fix_windows(self, count: int) -> None:
        """In training, ``count`` windows a record in turn over the epochs; 0 draws anew. From the next iterator on."""
        self._datasets["train"].fixed_windows = count

    def num_windows(self, split: str) -> int:
        """Windows of a record over all epochs; 0 where training draws one anew in each."""
        return self._datasets[split].num_windows

    @property
    def windows_move(self) -> bool:
        """Whether training may cut another window of a record in each epoch."""
        return self._datasets["train"].windows_move

    def feature_rows(self, split: str) -> Rows:
        """Places of the records that an epoch over ``train`` or ``val`` may meet, ascending."""
        if split != "train" or self.weights is None:
            return self.rows(split)
        sources = [source for source, weight in enumerate(self.weights) if weight]
        return np.unique(np.concatenate([self.split("train", source).all_rows() for source in sources]))

    def feature_loader(self, split: str) -> DataLoader[Batch]:
        """All windows of the records of ``train`` or ``val`` in fixed chunks, this process's share of them.

        A window of training is a batch's only one, and stands for its epoch; those of evaluation come together.
        """
        rank, world_size = self._process()
        training, windows = split == "train", self.num_windows(split)
        chunk = FEATURE_CHUNK if training else max(1, FEATURE_CHUNK // windows)
        chunks = FixedChunks(
            self.feature_rows(split), chunk, epochs=windows if training else 1, rank=rank, world_size=world_size
        )
        return self._loader(self._datasets[split], chunks)

    @staticmethod
    def requests(loader: DataLoader[Batch]) -> Iterable[Request]:
        """What the batches of a loader were asked for, in their order."""
        return loader.batch_sampler  # type: ignore[return-value]

    def leave_signals_out(self, *, train: bool, evaluation: bool) -> None:
        """Whether batches come without their signals, from the next iterator on."""
        for split, dataset in self._datasets.items():
            dataset.leave_signals_out = train if split == "train" else evaluation

    # --- resume ---

    def state_dict(self) -> dict[str, Any]:
        """The position in the data, the epoch and batch that are trained next, and what it counts in."""
        assert self.trainer is not None
        return {**next_position(self.trainer.fit_loop.state_dict())._asdict(), "of": self.identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the position up; the next training loader starts there.

        Raises:
            UsageError: in a fit, when the data is not what the position was counted in; between two epochs, when its
                records are not.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
        now, then = self.identity(), state_dict["of"]
        fixed = now.keys() if state_dict["batch"] else now.keys() - _OF_AN_EPOCH
        differing = [
            f"data.{name} is {now[name]}, was {then.get(name)}" for name in sorted(fixed) if now[name] != then.get(name)
        ]
        if differing:
            raise UsageError(
                f"the run was trained on other batches: {'; '.join(differing)}: take it back, or start anew"
            )
        self._position = (state_dict["epoch"], state_dict["batch"])

    def identity(self) -> dict[str, Any]:
        """All that makes up the batches of an epoch."""
        return {
            "store": self.stores.sha256,
            "task": self.task,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "train_folds": list(self.folds["train"]),
            "val_folds": list(self.folds["val"]),
            "weights": None if self.weights is None else list(self.weights),
            "shuffle_records": self.shuffle_records,
            "train_fraction": self.train_fraction,
            "keep": self.keep,
            "min_likelihood": self.min_likelihood,
        }

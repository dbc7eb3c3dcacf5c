"""PTBXLDataModule: the folds and a task of a store, as batches."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ecg_lightning.chains import run_batch_chain
from ecg_lightning.data.batches import Batch
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labels import class_names, task_labels
from ecg_lightning.data.sampler import EvaluationBatches, FixedChunks, Rows, TrainingBatches
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.progress import next_position
from ecg_lightning.signals import SignalSpec

log = logging.getLogger(__name__)
Task = Literal["all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm"]
FEATURE_CHUNK = 64


class PTBXLDataModule(LightningDataModule):
    """PTB-XL, or any store, split by its folds: 1-8 train, 9 validates, 10 tests unless told otherwise.

    Args:
        store: the file that `ecg-lightning prepare` wrote.
        task: which labels: all (71), diagnostic (44), subdiagnostic (23), superdiagnostic (5), form (19), rhythm (12).
        batch_size: records of a global batch, split over the processes.
        train_folds: values of strat_fold to train on.
        val_folds: to validate on.
        test_folds: to test on; read by `test` alone.
        train_fraction: share of the training patients that is used; a smaller share lies inside a larger one.
        min_likelihood: a statement counts from this likelihood on (0 to 100); 0 as in the PTB-XL benchmark.
        keep: `labelled` drops the records without a label of the task, as the benchmark does; `all` keeps them.
        num_workers: processes that read ahead; 0 reads in the training process.
        seed: of the order, the random windows and the fraction (linked from seed_everything on the command line).
    """

    def __init__(
        self,
        store: str,
        task: Task = "all",
        *,
        batch_size: int = 256,
        train_folds: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8),
        val_folds: Sequence[int] = (9,),
        test_folds: Sequence[int] = (10,),
        train_fraction: float = 1.0,
        min_likelihood: float = 0.0,
        keep: Literal["labelled", "all"] = "labelled",
        num_workers: int = 0,
        seed: int = 42,
    ) -> None:
        super().__init__()
        self.store = Store(store)
        self.task, self.batch_size, self.num_workers, self.seed = task, batch_size, num_workers, seed
        self.folds = {"train": tuple(train_folds), "val": tuple(val_folds), "test": tuple(test_folds)}
        self.train_fraction, self.keep, self.min_likelihood = train_fraction, keep, min_likelihood
        _check_folds(self.folds)
        if not 0 < train_fraction <= 1:
            raise UsageError(f"data.train_fraction is {train_fraction}, it must lie in 0..1, 0 left out")
        self.label_names: tuple[str, ...] = class_names(self.store.statements, task)
        self.labels: NDArray[np.uint8] = task_labels(self.store.likelihood, self.store.statements, task, min_likelihood)
        self.signal: SignalSpec | None = None
        self._datasets: dict[bool, ECGDataset] = {}
        self._position = (0, 0)

    # --- set-up ---

    def setup(self, stage: str) -> None:
        """Takes the backbone's spec, holds the store against it, and refuses an empty split.

        Raises:
            InputError: with the `prepare` command that makes the right store.
        """
        if self.signal is None:
            assert self.trainer is not None
            backbone: Any = self.trainer.lightning_module.backbone
            kind = type(backbone)
            self.use_signal(backbone.signal, backbone.registered_name or f"{kind.__module__}.{kind.__qualname__}")
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            self._say(split)

    def use_signal(self, signal: SignalSpec, backbone: str = "NAME") -> "PTBXLDataModule":
        """Sets what the network called ``backbone`` takes; to be called by hand where there is no trainer."""
        misfits = signal.misfits(self.store.stored)
        if misfits:
            raise InputError(
                f"{self.store.path} does not fit {backbone}: {'; '.join(misfits)}. Make the right one: "
                f"ecg-lightning prepare --source PTBXL_DIR --output STORE --backbone {backbone}"
                " (with --sizes, where its signal is not that of its defaults)"
            )
        self.signal = signal
        self._datasets = {
            training: ECGDataset(self.store, signal, self.labels, training=training, seed=self.seed)
            for training in (True, False)
        }
        return self

    def rows(self, split: str) -> Rows:
        """Places in the store of a split's records, in its order."""
        in_folds = np.isin(self.store.records["strat_fold"], self.folds[split])
        if self.keep == "labelled":
            in_folds &= self.labels.any(axis=1)
        rows: Rows = np.flatnonzero(in_folds)
        if split == "train" and self.train_fraction < 1:
            rows = self._fraction(rows)
        if not len(rows):
            raise InputError(
                f"no record of {self.store.path} lies in {split}_folds {list(self.folds[split])} with a label of task "
                f"{self.task}; the store has folds {sorted(set(self.store.records['strat_fold'].tolist()))}: set "
                f"--data.{split}_folds"
            )
        return rows

    def _fraction(self, rows: Rows) -> Rows:
        """The first patients of one seeded order: nested, and never a patient in part."""
        patients = self.store.records["patient_id"]
        order = np.random.default_rng(self.seed).permutation(np.unique(patients[rows]))
        return rows[np.isin(patients[rows], order[: max(1, round(self.train_fraction * len(order)))])]

    def _say(self, split: str) -> None:
        rows, folds = self.rows(split), self.folds[split]
        unlabelled = int(np.isin(self.store.records["strat_fold"], folds).sum() - len(rows)) if split != "train" else 0
        note = f", {unlabelled} without a label left out" if unlabelled and self.keep == "labelled" else ""
        log.info("%s: %d records of fold(s) %s%s", split, len(rows), ", ".join(map(str, folds)), note)

    def train_labels(self) -> NDArray[np.uint8]:
        """(record, label) of the training split."""
        return self.labels[self.rows("train")]

    # --- loaders ---

    def train_dataloader(self) -> DataLoader[Batch]:
        """Global batches in the order of (seed, epoch), from the position that a resumed run stands at."""
        rank, world_size = self._process()
        if self.batch_size < world_size:
            raise UsageError(
                f"data.batch_size is {self.batch_size}, the global batch is split over {world_size} processes: "
                f"set it to {world_size} or more"
            )
        rows = self.rows("train")
        if len(rows) < world_size:
            raise InputError(f"train has {len(rows)} record(s) for {world_size} processes: use fewer processes")
        batches = TrainingBatches(rows, self.batch_size, seed=self.seed, rank=rank, world_size=world_size)
        batches.epoch, batches.start = self._position
        log.info(
            "global batch of %d records = %d process(es) x %g",
            self.batch_size,
            world_size,
            self.batch_size / world_size,
        )
        return self._loader(self._datasets[True], batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every record of the validation split once."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every record of the test split once."""
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader[Batch]:
        rank, world_size = self._process()
        rows = self.rows(split)
        if len(rows) < world_size:
            raise InputError(f"{split} has {len(rows)} record(s) for {world_size} processes: use fewer processes")
        batches = EvaluationBatches(rows, max(1, self.batch_size // world_size), rank=rank, world_size=world_size)
        return self._loader(self._datasets[False], batches)

    def _loader(self, dataset: ECGDataset, batches: Any) -> DataLoader[Batch]:
        on_cpu = self.trainer is None or self.trainer.strategy.root_device.type == "cpu"
        dataset.in_millivolts = on_cpu and dataset.store.dtype == np.int16
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_as_is,  # `__getitems__` has made the batch
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: an iterator takes one draw from the global stream otherwise
        )

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: to mV, then the steps of the chain behind the crop."""
        if "ecg" in batch:
            assert self.signal is not None
            wanted = self._dtype()
            ecg = batch["ecg"].to(torch.float64 if wanted == torch.float64 else torch.float32)
            if batch["ecg"].dtype == torch.int16:
                ecg.mul_(self.store.millivolts_per_unit)  # in place, on what the line above allocated
            batch["ecg"] = run_batch_chain(self.signal.batch_chain, ecg).to(wanted)
        return batch

    def _dtype(self) -> torch.dtype:
        if self.trainer is None or self.trainer.lightning_module is None:
            return torch.float32
        return next(self.trainer.lightning_module.parameters()).dtype

    # --- what the probe's shortcut needs ---

    @property
    def inputs_are_fixed(self) -> bool:
        """Whether a record looks the same in every epoch, in training as in evaluation."""
        assert self.signal is not None
        return self.store.stored.num_time_points == self.signal.num_time_points

    def feature_loader(self) -> DataLoader[Batch]:
        """The training and validation records in fixed chunks, this process's share of them."""
        rank, world_size = self._process()
        rows = np.concatenate([self.rows("train"), self.rows("val")])
        return self._loader(self._datasets[False], FixedChunks(rows, FEATURE_CHUNK, rank=rank, world_size=world_size))

    def leave_signals_out(self, leave: bool) -> None:
        """Whether batches come without their signals, from the next iterator on."""
        for dataset in self._datasets.values():
            dataset.leave_signals_out = leave

    # --- resume ---

    def state_dict(self) -> dict[str, Any]:
        """The position in the data, the epoch and batch that are trained next, and what it counts in."""
        assert self.trainer is not None
        return {**next_position(self.trainer.fit_loop.state_dict())._asdict(), "of": self.identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the position up; the next training loader starts there.

        Raises:
            UsageError: in a fit, when the data is not what the position was counted in.
        """
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return
        now, then = self.identity(), state_dict["of"]
        differing = [f"data.{name} is {now[name]}, was {then[name]}" for name in now if now[name] != then[name]]
        if differing:
            raise UsageError(
                f"the run was trained on other batches: {'; '.join(differing)}: take it back, or start anew"
            )
        self._position = (state_dict["epoch"], state_dict["batch"])

    def identity(self) -> dict[str, Any]:
        """All that makes up the batches of an epoch."""
        return {
            "store": self.store.attributes["sha256"],
            "task": self.task,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "train_folds": list(self.folds["train"]),
            "val_folds": list(self.folds["val"]),
            "train_fraction": self.train_fraction,
            "keep": self.keep,
            "min_likelihood": self.min_likelihood,
        }


def _as_is(batch: Any) -> Any:
    return batch


def _check_folds(folds: dict[str, tuple[int, ...]]) -> None:
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        common = sorted(set(folds[one]) & set(folds[other]))
        if common:
            raise UsageError(
                f"fold(s) {common} are in both data.{one}_folds and data.{other}_folds: a record is used once; "
                f"take them out of one"
            )

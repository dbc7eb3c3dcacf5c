"""The probe's shortcut: what a frozen backbone says of a record's windows is computed once, in one fixed order.

In a fixed order and in batches of a fixed size, so that the features, and with them the probe, are the same to the last
bit whether a run was resumed or not.
"""

import logging
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.errors import UsageError
from ecg_lightning.progress import pass_point

if TYPE_CHECKING:
    from ecg_lightning.classifier import ECGClassifier

log = logging.getLogger(__name__)
MOST_GIB = 4.0
"""Of features in a process; a fixed bound, so that a resumed run takes the same way as the one before it."""

SplitName = Literal["train", "val"]


class SplitFeatures(NamedTuple):
    """What the backbone says of all windows of a split's records."""

    rows: Tensor
    """(record,) int64: the records' places in the data set, ascending."""
    features: Tensor
    """(record, window, dim)."""


class FrozenFeatures(NamedTuple):
    """Features by split; None where they are computed at each step."""

    train: SplitFeatures | None
    val: SplitFeatures | None

    def of(self, index: Tensor, training_epoch: int | None) -> Tensor:
        """Features (batch, window, dim) of the records at these places.

        All windows of evaluation, or, in training, the one of the epoch: they are taken in turn.
        """
        split = self.val if training_epoch is None else self.train
        assert split is not None
        places = torch.searchsorted(split.rows, index)
        if training_epoch is None:
            return split.features[places]
        return split.features[places, training_epoch % split.features.shape[1]].unsqueeze(1)


def precompute_features(trainer: Trainer, classifier: "ECGClassifier") -> None:
    """One pass over the training and validation records; the loaders then leave their signals out. Collective.

    Leaves out, and says so, a split whose windows are drawn anew in every epoch, or would fill the memory.
    """
    data = _data_module(trainer, "precompute=false")
    splits: tuple[SplitName, ...] = ("val", "train") if trainer.limit_val_batches else ("train",)
    left = MOST_GIB
    found: dict[SplitName, SplitFeatures | None] = {"train": None, "val": None}
    for split in splits:
        rows = torch.from_numpy(data.feature_rows(split))
        size = (len(rows), data.num_windows(split), classifier.backbone.feature_dim)
        gib = math.prod(size) * classifier.head.weight.itemsize / 2**30
        if not size[1]:
            log.info(
                "the probe trains on another window of a record in each epoch: its features are computed in every "
                "epoch anew (--post_training.probe.windows N: N windows a record, computed once)"
            )
        elif gib > left:
            log.info(
                "%s: features of %d records x %d window(s) would take %.1f GiB in each process, at most %g are kept: "
                "computed anew", split, *size[:2], gib, left,
            )  # fmt: skip
        else:
            left -= gib
            log.info(
                "%s: features of %d records x %d window(s), %d numbers each, computed once: %.1f MB in each process, "
                "on %s", split, *size, gib * 2**30 / 1e6, classifier.device,
            )  # fmt: skip
            found[split] = _computed(trainer, classifier, data, split, rows.to(classifier.device), size)
    classifier.frozen_features = FrozenFeatures(**found)
    data.leave_signals_out(train=found["train"] is not None, evaluation=found["val"] is not None)


def _computed(
    trainer: Trainer,
    classifier: "ECGClassifier",
    data: PTBXLDataModule,
    split: SplitName,
    rows: Tensor,
    size: tuple[int, int, int],
) -> SplitFeatures:
    features = torch.zeros(size, dtype=classifier.head.weight.dtype, device=classifier.device)
    loader = data.feature_loader(split)
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        for request, batch in zip(data.requests(loader), loader, strict=True):
            batch = trainer.strategy.batch_to_device(batch)  # and through the chain behind the crop
            ecg = batch["ecg"]
            computed = classifier.backbone(ecg.flatten(0, 1)).unflatten(0, ecg.shape[:2]).to(features.dtype)
            places = torch.searchsorted(rows, batch["index"])
            if split == "train":
                features[places, request.epoch] = computed.squeeze(1)
            else:
                features[places] = computed
            pass_point()
    if trainer.world_size > 1:  # each process filled in its share and left zeros elsewhere
        torch.distributed.all_reduce(features)
    return SplitFeatures(rows, features)


def fix_windows(trainer: Trainer, count: int) -> None:
    """In training, ``count`` windows a record in turn over the epochs; 0 draws another in each."""
    data = _data_module(trainer, "windows=0")
    if count and not data.windows_move:
        log.info("post_training.probe.windows has no effect: the backbone takes the same window in every epoch anyway")
    data.fix_windows(count)


def forget_features(trainer: Trainer, classifier: "ECGClassifier") -> None:
    """The backbone moves from now on: the loaders read signals again."""
    classifier.frozen_features = None
    _data_module(trainer, "precompute=false").leave_signals_out(train=False, evaluation=False)


def _data_module(trainer: Trainer, way_out: str) -> PTBXLDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, PTBXLDataModule):
        raise UsageError(
            f"post_training.probe.{way_out.partition('=')[0]} needs a PTBXLDataModule, the trainer was given a "
            f"{type(data).__name__}: set post_training.probe.{way_out}"
        )
    return data

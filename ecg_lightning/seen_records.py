"""Weights that were trained on the records that they are to be judged on are refused."""

from collections.abc import Iterable
from pathlib import Path

from ecg_lightning.backbones.provenance import Pretraining, seen_in
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.trained_on import source_name
from ecg_lightning.errors import UsageError, joined


def refuse_seen(
    weights: str | Path, history: Iterable[Pretraining], data: PTBXLDataModule, splits: Iterable[str]
) -> None:
    """Refuses weights whose own file says that validation or test folds of these stores were trained on.

    Args:
        weights: the file, to be named.
        history: what it says.
        data: the stores and folds.
        splits: those that are judged.

    Raises:
        UsageError: naming the folds.
    """
    history = tuple(history)
    for split in splits:
        if told := seen_folds(history, data, split):
            raise UsageError(
                f"the weights of {weights} were trained on {told}, which are in data.{split}_folds: a score on them "
                "would flatter; pre-train without them (ecg-lightning pretrain --data.train_folds ...) or set other "
                f"--data.{split}_folds"
            )


def seen_folds(history: Iterable[Pretraining], data: PTBXLDataModule, split: str) -> str:
    """The folds of a split that a history holds, and of which source, in words; empty where there are none."""
    sources = [source_name(one.attributes) for one in data.stores.stores]
    seen = seen_in(history, sources, set(data.folds[split]) & set(data.stores.folds))
    return joined([f"fold(s) {', '.join(map(str, folds))} of {one.source}" for one, folds in seen])

"""The probe's shortcut: what a frozen backbone says of a record is computed once, in one fixed order.

In a fixed order and in batches of a fixed size, so that the features, and with them the probe, are the same to the last
bit whether a run was resumed or not.
"""

import logging
import math

import torch
from lightning.pytorch import Trainer

from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.errors import UsageError

log = logging.getLogger(__name__)
MOST_GIB = 4.0
"""Of features; a fixed bound, so that a resumed run takes the same way as the one before it."""


def precompute_features(trainer: Trainer, classifier: ECGClassifier) -> None:
    """One pass over the training and validation records; the loaders then leave their signals out. Collective.

    Does nothing, and says so, where a random window precedes the backbone, or where they would fill the memory.
    """
    data = _data_module(trainer)
    if not data.inputs_are_fixed:
        log.info("the probe sees windows of longer records: its features are computed in every epoch anew")
        return
    size = (data.stores.num_records, classifier.backbone.feature_dim)
    gib = math.prod(size) * classifier.head.weight.itemsize / 2**30
    if gib > MOST_GIB:
        log.info(
            "features of %d records would take %.1f GiB, at most %g are kept: computed anew", size[0], gib, MOST_GIB
        )
        return
    features = torch.zeros(size, dtype=classifier.head.weight.dtype, device=classifier.device)
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        for batch in data.feature_loader():
            batch = data.on_after_batch_transfer(trainer.strategy.batch_to_device(batch), 0)
            features[batch["index"]] = classifier.backbone(batch["ecg"].squeeze(1)).to(features.dtype)
    if trainer.world_size > 1:  # each process filled in its share and left zeros elsewhere
        torch.distributed.all_reduce(features)
    classifier.frozen_features = features.unsqueeze(1)
    data.leave_signals_out(True)
    log.info("features of the frozen backbone computed once: %d records, %.1f MB", len(features), features.nbytes / 1e6)


def forget_features(trainer: Trainer, classifier: ECGClassifier) -> None:
    """The backbone moves from now on: the loaders read signals again."""
    classifier.frozen_features = None
    _data_module(trainer).leave_signals_out(False)


def _data_module(trainer: Trainer) -> PTBXLDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, PTBXLDataModule):
        raise UsageError(
            f"post_training.probe.precompute needs a PTBXLDataModule, the trainer was given a {type(data).__name__}: "
            "set post_training.probe.precompute=false"
        )
    return data

"""Weights that were pre-trained on the records that they are to be judged on are refused."""

from ecg_lightning.backbones.provenance import pretraining_of, seen_in
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.unlabelled import source_name
from ecg_lightning.errors import UsageError, joined


def refuse_seen(classifier: ECGClassifier, data: PTBXLDataModule) -> None:
    """Refuses weights whose own file says that validation or test folds of these stores were trained on.

    Raises:
        UsageError: naming the folds.
    """
    if classifier.weights is None:
        return
    history = pretraining_of(classifier.weights)
    sources = [source_name(one.attributes) for one in data.stores.stores]
    for split in ("val", "test"):
        seen = seen_in(history, sources, set(data.folds[split]) & set(data.stores.folds))
        if seen:
            told = [f"fold(s) {', '.join(map(str, folds))} of {one.source}" for one, folds in seen]
            raise UsageError(
                f"model.weights {classifier.weights} were pre-trained on {joined(told)}, which are in "
                f"data.{split}_folds: a score on them would flatter; pre-train without them (ecg-lightning pretrain "
                f"--data.train_folds ...) or set other --data.{split}_folds"
            )

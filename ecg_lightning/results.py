"""What a pass over a split leaves in the run folder: predictions and metrics, with where they came from."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

import ecg_lightning
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.metrics import Scores
from ecg_lightning.runs import NO_DEVICE, RunFolder, file_sha256, write_json

log = logging.getLogger(__name__)
_IDENTITY = ("task", "folds", "keep", "min_likelihood", "checkpoint_sha256", "store_sha256")
"""What makes two results the same, wherever their files lie."""


@rank_zero_only
def write_results(
    run: RunFolder, split: str, trainer: Trainer, checkpoint: Path, *, overwrite: bool = False, unfinished: bool = False
) -> None:
    """Writes ``predictions/NAME.npz`` and ``metrics_NAME.json`` of the pass that the trainer just made.

    ``NAME`` is the split for the run's own store and best checkpoint, and says what is different otherwise: what an
    ``unfinished`` run has learnt so far is not its result, and bears the checkpoint's name.

    Raises:
        InputError: where results of something else stand under that name already.
    """
    classifier, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(classifier, ECGClassifier)
    assert isinstance(data, PTBXLDataModule)
    assert classifier.scores is not None
    scores = classifier.scores
    meta = _meta(split, data, checkpoint)
    name = _name(run, split, meta, checkpoint, unfinished)
    path = run.predictions / f"{name}.npz"
    if path.exists() and not overwrite:
        _refuse_other(path, meta)
    stores, rows = data.stores, scores.index.numpy()
    Predictions(
        record_id=stores.take("ecg_id", rows).astype(np.int64),
        patient_id=stores.take("patient_id", rows).astype(np.int64),
        fold=stores.take("strat_fold", rows).astype(np.int8),
        probabilities=scores.probabilities.numpy(),
        labels=scores.labels.numpy(),
        label_names=scores.label_names,
        meta=meta,
        store=stores.store_of(rows)[0].astype(np.int16) if len(stores.stores) > 1 else None,
    ).save(path)
    write_json(run.path / f"metrics_{name}.json", {**_metrics(scores), "meta": meta})
    _say(name, scores)


def _refuse_other(path: Path, meta: dict[str, Any]) -> None:
    former = Predictions.load(path).meta
    differing = [name for name in _IDENTITY if former.get(name) != meta[name]]
    if differing:
        raise InputError(f"{path} holds results with another {', '.join(differing)}: add --overwrite to replace them")


def _name(run: RunFolder, split: str, meta: dict[str, Any], checkpoint: Path, unfinished: bool) -> str:
    parts = [split]
    if run.store_sha256 not in (None, meta["store_sha256"]):
        first, *more = [meta["store"]] if isinstance(meta["store"], str) else meta["store"]
        parts.append(f"{Path(first).stem}+{len(more)}" if more else Path(first).stem)
    if unfinished or checkpoint.resolve() != run.best_checkpoint().resolve():
        parts.append(checkpoint.stem)
    return "-".join(parts)


def _meta(split: str, data: PTBXLDataModule, checkpoint: Path) -> dict[str, Any]:
    paths = [str(Path(path).resolve()) for path in data.stores.paths]  # whoever reads this stands in another folder
    return {
        "split": split,
        "task": data.task,
        "protocol": "per_task",
        "folds": list(data.folds[split]),
        "keep": data.keep,
        "min_likelihood": data.min_likelihood,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": file_sha256(checkpoint),
        "store": paths[0] if len(paths) == 1 else paths,
        "store_sha256": data.stores.sha256,
        "ecg_lightning": ecg_lightning.__version__,
        "note": NO_DEVICE,
    }


def _metrics(scores: Scores) -> dict[str, Any]:
    positives, known = scores.positives, scores.known
    return {
        **{key: None if value != value else value for key, value in scores.summary().items()},
        "num_records": len(scores.index),
        "labels": {
            label: {
                "positives": positives[label],
                "known": known[label],
                "auroc": scores.auroc.get(label),
                "auprc": scores.auprc.get(label),
            }
            for label in scores.label_names
        },
        "labels_without_both_classes": list(scores.undefined),
    }


def _say(name: str, scores: Scores) -> None:
    summary = scores.summary()
    print(
        f"{name}: macro AUROC {summary['auroc']:.4f}, macro AUPRC {summary['auprc']:.4f} over "
        f"{len(scores.auroc)} of {len(scores.label_names)} labels, {len(scores.index)} records"
    )
    if scores.undefined:
        print(f"{name}: without both classes, so not counted: {', '.join(scores.undefined)}")

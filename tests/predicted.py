"""Predictions as tests need them: made of a shift between the classes, patients with several records, seeds."""

import csv

import numpy as np

from ecg_lightning.evaluate.predictions import Predictions

NAMES = ("CD", "HYP", "MI", "NORM", "STTC")


def predicted(
    num_records=120,
    names=NAMES,
    *,
    seed=0,
    model=0,
    shift=1.5,
    prevalence=0.3,
    num_patients=None,
    first_id=1,
    decimals=None,
    unknown=0.0,
    **meta,
):
    """``seed`` decides on records and labels, ``model`` on the noise of the scores."""
    random = np.random.default_rng(seed)
    shape = (num_records, len(names))
    labels = (random.random(shape) < prevalence).astype(np.uint8)
    shared = random.normal(size=shape)
    patients = np.arange(num_records) if num_patients is None else random.integers(0, num_patients, num_records)
    hidden = random.random(shape) < unknown
    own = np.random.default_rng((seed, model)).normal(size=shape)
    probabilities = 1 / (1 + np.exp(-(0.7 * shared + 0.7 * own + shift * labels - 1)))
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    labels[hidden] = 255
    return Predictions(
        record_id=np.arange(first_id, first_id + num_records),
        patient_id=patients + 1000,
        fold=np.full(num_records, 10, np.int8),
        probabilities=probabilities.astype(np.float32),
        labels=labels,
        label_names=tuple(names),
        meta={"task": "superdiagnostic", "protocol": "per_task", "split": "test", **meta},
    )


def validation_of(test, **arguments):
    """Other records of the same labels and the same checkpoint."""
    return predicted(
        **{"names": test.label_names, "seed": 99, "first_id": 10_001, **test.meta, **arguments, "split": "val"}
    )


def write_csv(predictions, path, *, fold=True):
    """The csv form; unknown labels are empty cells."""
    names = predictions.label_names
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["record_id", "patient_id", *(["fold"] if fold else [])]
        writer.writerow([*head, *(f"p:{name}" for name in names), *(f"y:{name}" for name in names)])
        for row in range(len(predictions.record_id)):
            ids = [predictions.record_id[row], predictions.patient_id[row], *([predictions.fold[row]] if fold else [])]
            truth = ["" if label > 1 else label for label in predictions.labels[row]]
            writer.writerow([*ids, *(repr(float(p)) for p in predictions.probabilities[row]), *truth])
    return path

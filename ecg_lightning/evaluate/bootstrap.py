"""How sure a figure is: Bayesian bootstrap draws of patients, all labels and figures under the same draw.

A draw gives every patient a weight from Dirichlet(1, ..., 1), and every record that of its patient: records of a
patient are not independent, nor are labels of a record. No weight is 0, so no label vanishes from a draw, as rare ones
do when patients are drawn with replacement.

Source: Rubin 1981, The Bayesian Bootstrap (doi 10.1214/aos/1176345338). What the intervals cover, measured:
``benchmarks/coverage.py``.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t as student
from torch import Tensor

from ecg_lightning.evaluate.ranking import ranked, weighted_scores

FIGURES = ("auroc", "auprc", "f1", "sensitivity", "specificity", "brier")
"""Figures that have an interval. The expected calibration error has none: its bins bias it, more so under weights."""
PERCENTILES = (2.5, 97.5)
_AT_ONCE = {"cpu": 70_000, "cuda": 10_000_000}
"""Weights at once: on a CPU, 32 draws of 2,198 records stay in its cache; 1,000 draws at once took twice as long."""


def best_device() -> str:
    """Where to compute by default."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def draws_at_once(num_records: int, device: str) -> int:
    """How many draws to compute together, so that memory stays bounded."""
    return max(1, _AT_ONCE[device] // num_records)


class Weighed(Protocol):
    """What `bootstrap` asks for its figures: a `Judge`, or one of several folds."""

    device: torch.device

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        """Each of `FIGURES` (label, draw) under ``weights`` (record, draw)."""
        ...


class Judge:
    """The figures of one file under any weights of its records.

    Args:
        probabilities: (record, label) in 0..1.
        labels: (record, label) 0, 1, or 255 where unknown; each label is judged on the records where it is known.
        thresholds: (label,) a record is called positive from here on; NaN where a label has none; None: no label has.
        device: where to compute; the GPU, if there is one.
    """

    def __init__(
        self,
        probabilities: NDArray[np.floating[Any]],
        labels: NDArray[np.uint8],
        thresholds: NDArray[np.float64] | None = None,
        *,
        device: str | None = None,
    ) -> None:
        device = device or best_device()
        scores = torch.from_numpy(np.ascontiguousarray(probabilities)).to(device)
        truth = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        self.num_records, self.num_labels = truth.shape
        self.device = scores.device
        self.ranked = [ranked(scores[:, column], truth[:, column]) for column in range(self.num_labels)]
        self.defined = np.array([label is not None for label in self.ranked])
        """(label,) whether both classes are among the known records."""
        cut = torch.full((self.num_labels,), torch.nan, dtype=torch.float64, device=device)
        if thresholds is not None:
            cut = torch.from_numpy(thresholds).to(device)
        self._no_threshold = cut.isnan()
        called, carries, lacks = scores.double() >= cut, truth == 1, truth == 0
        self._terms = {
            "hits": (called & carries).double().T,
            "false alarms": (called & lacks).double().T,
            "carries": carries.double().T,
            "lacks": lacks.double().T,
            "squared error": ((scores.double() - carries.double()) ** 2 * (carries | lacks)).T,
        }

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        """Each of `FIGURES` (label, draw) under ``weights`` (record, draw); NaN where it is not defined."""
        auroc = torch.full((self.num_labels, weights.shape[1]), torch.nan, dtype=torch.float64, device=self.device)
        auprc = auroc.clone()
        for column, label in enumerate(self.ranked):
            if label is not None:
                auroc[column], auprc[column] = weighted_scores(label, weights)
        sums = {name: terms @ weights.double() for name, terms in self._terms.items()}
        hits, false_alarms = sums["hits"], sums["false alarms"]
        decided = {
            "f1": 2 * hits / (hits + false_alarms + sums["carries"]),
            "sensitivity": hits / sums["carries"],
            "specificity": 1 - false_alarms / sums["lacks"],
        }
        for values in decided.values():
            values[self._no_threshold] = torch.nan
        brier = sums["squared error"] / (sums["carries"] + sums["lacks"])
        return {"auroc": auroc, "auprc": auprc, **decided, "brier": brier}

    def point(self) -> dict[str, NDArray[np.float64]]:
        """Each of `FIGURES` (label,) with every record counted once."""
        ones = torch.ones(self.num_records, 1, dtype=torch.float64, device=self.device)
        return {name: values[:, 0].cpu().numpy() for name, values in self(ones).items()}


def patient_weights(num_patients: int, draws: int, seed: int, *, chunk: int = 32) -> Iterator[NDArray[np.float64]]:
    """Dirichlet(1, ..., 1) weights (patient, draw) of mean 1, ``chunk`` draws at a time; the same for any chunk."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, draws, chunk):
        weights = generator.standard_exponential((min(chunk, draws - start), num_patients))
        weights /= weights.mean(axis=1, keepdims=True)
        yield weights.T


def bootstrap(
    judges: Sequence[Weighed], patient_id: NDArray[Any], *, draws: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Each of `FIGURES` as (file, label, draw), every file and label under the same draws of patients.

    Args:
        judges: one per file, all of the same records.
        patient_id: (record,) whose record it is. Equal ids count as one patient also where they come from different
            stores: at worst the interval is a little too wide.
        draws: how many.
        seed: of the draws.
    """
    patients, patient_of_record = np.unique(patient_id, return_inverse=True)
    device = judges[0].device
    places = torch.from_numpy(patient_of_record).to(device)
    parts: list[list[dict[str, Tensor]]] = [[] for _ in judges]
    for weights in patient_weights(len(patients), draws, seed, chunk=draws_at_once(len(places), device.type)):
        of_records = torch.from_numpy(weights).to(device)[places]  # (record, draw)
        for judge, part in zip(judges, parts, strict=True):
            part.append({name: values.cpu() for name, values in judge(of_records).items()})
    return {
        name: np.stack([torch.cat([chunk[name] for chunk in part], dim=1).numpy() for part in parts])
        for name in FIGURES
    }


def interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of ``drawn`` (draw,)."""
    low, high = np.percentile(drawn, PERCENTILES)
    return float(low), float(high)


def student_interval(
    point: float, drawn: NDArray[np.float64], num_rarer: int, resolution: float
) -> tuple[float, float]:
    """95 % interval of one label's AUROC or AUPRC that covers also where few patients carry it; NaN if it has none.

    The spread of ``drawn`` (draw,) on the logit scale, which keeps the interval in 0..1, times Student's t for
    ``num_rarer - 1`` degrees of freedom. Percentiles of so few patients' weights are too narrow: they cover 57 %
    with 3 positives, 73 % with 5 (``benchmarks/coverage.py``).

    Args:
        point: the figure itself.
        drawn: the figure under each draw.
        num_rarer: patients with the label, or without it, whichever are fewer. Weights from Dirichlet(1, ..., 1) of so
            many spread by (n - 1) / (n + 1) too little in the variance, which is made good.
        resolution: figures are taken to be at least this far from 0 and 1: half of what one pair of records changes.

    Source: the logit scale: Qin and Hotilovac 2008 (doi 10.1177/0962280207087173); t and the correction for n, as in
    Hesterberg 2015 (arXiv 1411.5279), carried over to these weights.
    """
    if num_rarer < 2 or not resolution < point < 1 - resolution:
        return float("nan"), float("nan")
    spread = logit(np.clip(drawn, resolution, 1 - resolution)).std(ddof=1)
    half = student.ppf(PERCENTILES[1] / 100, num_rarer - 1) * spread * np.sqrt((num_rarer + 1) / (num_rarer - 1))
    low, high = expit(logit(point) + np.array([-half, half]))
    return float(low), float(high)

"""Whether a probability of 0.3 comes true three times in ten, and one temperature that mends what it can.

Temperature scaling divides the logits by one number for all labels, chosen on validation so that the binary
cross-entropy over all known labels is smallest. It changes no order within a label, and so neither AUROC nor AUPRC.

Source: Guo et al. 2017 (arXiv 1706.04599); expected calibration error: Naeini et al. 2015, here of each label as a
binary question: the mean over bins, weighted by their records, of |mean probability - share of positives|.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from ecg_lightning.errors import InputError

Binning = Literal["equal_mass", "equal_width"]
NUM_BINS = 15
_LARGEST_LOG_TEMPERATURE = 4.0


def logits(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Logits of probabilities; 0 and 1 count as half way from their neighbour in the type of ``probabilities``."""
    precision = np.finfo(probabilities.dtype)
    p = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        values = np.log(p) - np.log1p(-p)
    ends = np.log(float(precision.smallest_subnormal)), -np.log(float(precision.epsneg) / 2)
    clipped: NDArray[np.float64] = np.clip(values, *ends)
    return clipped


def calibrated(probabilities: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Probabilities with their logits divided by ``temperature``."""
    result: NDArray[np.float64] = expit(logits(probabilities) / temperature)
    return result


def fit_temperature(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.uint8]) -> float:
    """The temperature of the smallest binary cross-entropy; ``probabilities`` and ``labels`` (record, label).

    Raises:
        InputError: where no label is known, or the best temperature lies outside 0.018 to 55.
    """
    known = labels <= 1
    z = logits(probabilities)[known]
    signed = np.where(labels[known] == 1, z, -z)
    if not len(signed):
        raise InputError("no label is known on validation, so no temperature can be chosen: leave out --calibrate")

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed * np.exp(-log_temperature)).mean())

    limit = _LARGEST_LOG_TEMPERATURE
    best = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-8})
    if abs(best.x) > limit - 1e-3:
        raise InputError(
            f"no temperature from {np.exp(-limit):.3f} to {np.exp(limit):.0f} is the best on validation (all records "
            "on the right side, or no better than chance): leave out --calibrate"
        )
    return float(np.exp(best.x))


def calibration_error(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[np.uint8],
    *,
    num_bins: int = NUM_BINS,
    binning: Binning = "equal_mass",
) -> NDArray[np.float64]:
    """Expected calibration error of each label (label,), on the records where it is known; NaN where there is none.

    Args:
        probabilities: (record, label).
        labels: (record, label) 0, 1, or 255 where unknown.
        num_bins: bins per label; those without a record do not count.
        binning: ``equal_mass``: bins of as many records each, equal probabilities in one bin; ``equal_width``: of 0..1.
    """
    columns = range(labels.shape[1])
    return np.array([_error(probabilities[:, c], labels[:, c], num_bins, binning) for c in columns], np.float64)


def _error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.uint8], num_bins: int, binning: Binning
) -> float:
    known = labels <= 1
    p, carries = probabilities[known].astype(np.float64), labels[known] == 1
    if not len(p):
        return float("nan")
    inner = np.arange(1, num_bins) / num_bins
    edges = np.quantile(p, inner, method="higher") if binning == "equal_mass" else inner
    bins = np.digitize(p, edges)
    gaps = np.bincount(bins, weights=p - carries, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(p))

"""AUROC and AUPRC of one label under many weightings of its records at once: exact, ties as in scikit-learn.

The records are sorted once per label; each weighting then costs one cumulative sum over them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FIGURES = ("auroc", "auprc")


class RankedLabel(NamedTuple):
    """The records of which a label is known, by falling probability; all indices (int64) are places in this order."""

    order: Tensor
    """(known,) the records' places in the file."""
    positives: Tensor
    """(positive,) places of the records that carry the label."""
    ties_start: Tensor
    """(positive,) first place of the records with the same probability."""
    ties_end: Tensor
    """(positive,) last place of them."""


def ranked(probabilities: Tensor, labels: Tensor) -> RankedLabel | None:
    """Sorts a label's records; None where its known records are not of both classes.

    ``probabilities`` (record,) may be any score, ``labels`` (record,) is 0, 1, or 255 where unknown.
    """
    known = (labels <= 1).nonzero().squeeze(1)
    scores, order = probabilities[known].sort(descending=True, stable=True)
    order = known[order]
    carries = labels[order] == 1
    if not carries.any() or carries.all():
        return None
    lower = scores[1:] < scores[:-1]  # than the one above it
    edge = torch.ones(1, dtype=torch.bool, device=lower.device)
    starts, ends = (torch.cat(parts).nonzero().squeeze(1) for parts in ((edge, lower), (lower, edge)))
    positives = carries.nonzero().squeeze(1)
    group = torch.searchsorted(ends, positives)
    return RankedLabel(order, positives, starts[group], ends[group])


class Sums(NamedTuple):
    """Sums of weights at the places of a label's positives, (positive, draw) float64 each; the last two (draw,)."""

    carried: Tensor
    """The positive's own weight."""
    up_to: Tensor
    """All weight down to the last record with the same probability."""
    before: Tensor
    """All weight above the first of them."""
    hits: Tensor
    """Of `up_to`, that of positives."""
    hits_before: Tensor
    """Of `before`, that of positives."""
    positive: Tensor
    total: Tensor

    def complement(self, unit: "Sums") -> "Sums":
        """The sums of 1 - weights, where ``unit`` are those of weights of 1, (positive, 1)."""
        return Sums(*(ones - own for ones, own in zip(unit, self, strict=True)))


def weight_sums(label: RankedLabel, weights: Tensor) -> Sums:
    """Sums of ``weights`` (record, draw), 0 or more, of all records of the file.

    Weights in float32 are summed in float32, which is exact for whole numbers.
    """
    sorted_weights = weights[label.order]
    total = sorted_weights.cumsum(0)
    carried = sorted_weights[label.positives].double()
    positive = carried.cumsum(0)
    # positives are sorted as well, so the number of them up to a place is a place in their own order
    last = torch.searchsorted(label.positives, label.ties_end, right=True)
    first = torch.searchsorted(label.positives, label.ties_start)
    return Sums(
        carried,
        up_to=total[label.ties_end].double(),
        before=_before(total, label.ties_start),
        hits=positive[last - 1],
        hits_before=_before(positive, first),
        positive=positive[-1],
        total=total[-1].double(),
    )


def scores(sums: Sums) -> tuple[Tensor, Tensor]:
    """AUROC and AUPRC (average precision), (draw,) float64 each; NaN where a class has no weight in a draw.

    Source: equal, ties included, to scikit-learn's ``roc_auc_score`` and ``average_precision_score`` with
    ``sample_weight``; only places of positives count in either sum, so that only these are computed.
    """
    negative = sums.total - sums.positive
    false_alarms = ((sums.up_to - sums.hits) + (sums.before - sums.hits_before)) / 2  # half of those that tie
    auroc = (sums.carried * (negative - false_alarms)).sum(0) / (sums.positive * negative)
    precision = sums.hits / sums.up_to.clamp(min=torch.finfo(torch.float64).tiny)  # a draw may leave out the first
    auprc = (sums.carried * precision).sum(0) / sums.positive
    return auroc, auprc.masked_fill(negative <= 0, torch.nan)


def weighted_scores(label: RankedLabel, weights: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC and AUPRC, (draw,) float64 each, under ``weights`` (record, draw)."""
    return scores(weight_sums(label, weights))


def _before(sums: Tensor, place: Tensor) -> Tensor:
    """The cumulative sum above each place: (place, draw) float64."""
    values = sums[(place - 1).clamp(min=0)].double()
    return values.masked_fill_((place == 0).unsqueeze(1), 0)

"""Macro AUROC and AUPRC on the device: exact, each record once, labels without both classes named and left out.

A label is 0, 1, or 255 where a record's truth is not known; each label is judged on the records where it is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchmetrics import Metric

AT_ONCE = 1 << 22
"""Numbers (record, label) that are ranked at once: a bound on memory, about 40 bytes each."""


@dataclass(frozen=True)
class Scores:
    """What one pass over a split gave, on the CPU, its records in the data set's order."""

    label_names: tuple[str, ...]
    index: Tensor
    """(record,) int64: the record's place in the data set."""
    probabilities: Tensor
    """(record, label) float32."""
    labels: Tensor
    """(record, label) uint8: 0, 1, or 255 where unknown."""
    loss: float
    """Mean over the records with a known label."""
    auroc: dict[str, float] = field(default_factory=dict)
    """Per label with both classes among the records where it is known."""
    auprc: dict[str, float] = field(default_factory=dict)

    @property
    def undefined(self) -> tuple[str, ...]:
        """Labels without both classes: not in the macro means."""
        return tuple(name for name in self.label_names if name not in self.auroc)

    @property
    def positives(self) -> dict[str, int]:
        """Per label."""
        return dict(zip(self.label_names, (self.labels == 1).sum(dim=0).tolist(), strict=True))

    @property
    def known(self) -> dict[str, int]:
        """Records per label of which its truth is known."""
        return dict(zip(self.label_names, (self.labels <= 1).sum(dim=0).tolist(), strict=True))

    def summary(self) -> dict[str, float]:
        """The macro figures: ``auroc``, ``auprc`` (NaN when no label has both classes), ``loss``, ``num_labels``."""
        return {
            "auroc": macro(self.auroc),
            "auprc": macro(self.auprc),
            "loss": self.loss,
            "num_labels": float(len(self.auroc)),
        }


def macro(per_label: dict[str, float]) -> float:
    """Plain mean over labels; NaN over none."""
    return sum(per_label.values()) / len(per_label) if per_label else float("nan")


def label_scores(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> tuple[dict[str, float], ...]:
    """AUROC and AUPRC (average precision) of each label that has both classes, over the records where it is known.

    ``probabilities`` (record, label) in 0..1, ``labels`` (record, label) 0, 1, or 255 where unknown. Exact, ties as in
    scikit-learn.
    """
    positives, known = (labels == 1).sum(dim=0), (labels <= 1).sum(dim=0)
    columns = ((positives > 0) & (positives < known)).nonzero().squeeze(1)
    if not len(columns):
        return {}, {}
    if probabilities.device.type == "mps":  # it has no float64
        probabilities, labels, columns = probabilities.cpu(), labels.cpu(), columns.cpu()
    parts = torch.split(columns, max(1, AT_ONCE // len(labels)))
    auroc, auprc = (
        torch.cat(figures).tolist()
        for figures in zip(*(_ranked_scores(probabilities[:, part], labels[:, part]) for part in parts), strict=True)
    )
    kept = [names[column] for column in columns.tolist()]
    return dict(zip(kept, auroc, strict=True)), dict(zip(kept, auprc, strict=True))


def _ranked_scores(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC and AUPRC (label,) float64, on the CPU, of labels (record, label) that all have both classes.

    One sort for all labels. `evaluate.ranking` is the counterpart for many weightings of one label; over labels, its
    loop takes twice the time.
    """
    known = (labels <= 1).T.contiguous()
    scores, order = probabilities.T.masked_fill(~known, -torch.inf).sort(dim=1, descending=True)
    carries, known = (labels == 1).T.gather(1, order), known.gather(1, order)
    hits, seen = (flags.cumsum(dim=1, dtype=torch.int32).flatten() for flags in (carries, known))
    num_positive, num_known = (flags.sum(dim=1) for flags in (carries, known))
    # Only places of positives count in either sum; a place counts over all labels, one behind the other.
    places = carries.flatten().nonzero().squeeze(1)
    first, last = _ties(scores, places)
    before, hits_before = seen[first] - known.flatten()[first].int(), hits[first] - carries.flatten()[first].int()
    up_to, hits_up_to = seen[last], hits[last]
    false_alarms = ((up_to - hits_up_to) + (before - hits_before)).double() / 2  # half of those that tie
    label = places // len(labels)
    correct = (num_known - num_positive)[label] - false_alarms
    precision = hits_up_to.double() / up_to
    # On the CPU, where the order of a sum is always the same: each process must get the very same figures.
    label, num_positive, num_known = label.cpu(), num_positive.cpu(), num_known.cpu()
    of_label = [label.bincount(values.cpu(), len(num_known)) for values in (correct, precision)]
    return of_label[0] / (num_positive * (num_known - num_positive)), of_label[1] / num_positive


def _ties(scores: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place of the same score as each of ``places``, in ``scores`` (label, record) that fall."""
    lower = scores[:, 1:] < scores[:, :-1]  # than the one before it
    edge = lower.new_ones(len(scores), 1)
    firsts, lasts = (torch.cat(parts, dim=1).flatten().nonzero().squeeze(1) for parts in ((edge, lower), (lower, edge)))
    group = torch.searchsorted(lasts, places)
    return firsts[group], lasts[group]


class SplitScores(Metric):
    """Collects a split's probabilities over all processes; `scores` gives `Scores`, the same on each process."""

    full_state_update = False
    index: list[Tensor]
    probabilities: list[Tensor]
    labels: list[Tensor]
    losses: list[Tensor]

    def __init__(self, label_names: Sequence[str]) -> None:
        super().__init__()
        self.label_names = tuple(label_names)
        for state in ("index", "probabilities", "labels", "losses"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, probabilities: Tensor, labels: Tensor, loss: Tensor) -> None:
        """One batch: ``index`` (batch,), ``probabilities`` and ``labels`` (batch, label), ``loss`` (batch,)."""
        self.index.append(index)
        self.probabilities.append(probabilities.float())
        self.labels.append(labels.to(torch.uint8))
        self.losses.append(loss.float())

    def compute(self) -> tuple[Tensor, ...]:
        """Index, probabilities, labels and losses of all records, in the order of the index."""
        index, *rest = (
            torch.cat(state) if isinstance(state, list) else state
            for state in (self.index, self.probabilities, self.labels, self.losses)
        )
        order = index.argsort()  # the same sums whatever process a record was on
        return index[order], *(state[order] for state in rest)

    def scores(self) -> Scores:
        """The split's scores, over all processes; collective.

        Raises:
            FloatingPointError: when a probability is not a number: the training has diverged.
        """
        index, probabilities, labels, losses = self.compute()
        shape = (-1, len(self.label_names))  # torchmetrics squeezes what holds one number
        probabilities, labels, losses = probabilities.reshape(shape), labels.reshape(shape), losses.reshape(-1)
        if not torch.isfinite(probabilities).all():
            raise FloatingPointError(
                "the network gave probabilities that are not numbers: the training has diverged; "
                "lower the learning rate or set trainer.gradient_clip_val=1"
            )
        auroc, auprc = label_scores(probabilities, labels, self.label_names)
        loss = float(losses[(labels <= 1).any(dim=1)].mean())
        return Scores(self.label_names, index.reshape(-1).cpu(), probabilities.cpu(), labels.cpu(), loss, auroc, auprc)

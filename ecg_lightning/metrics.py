"""Macro AUROC and AUPRC on the device: exact, each record once, labels without both classes named and left out.

A label is 0, 1, or 255 where a record's truth is not known; each label is judged on the records where it is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision


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
    Computed label by label through torchmetrics, which counts a label without both classes as 0 in its own mean.
    """
    known = labels <= 1
    positives, num_known = (labels == 1).sum(dim=0), known.sum(dim=0)
    both = ((positives > 0) & (positives < num_known)).tolist()
    columns = [column for column, defined in enumerate(both) if defined]
    target = labels.long()
    if not columns:
        return {}, {}
    pairs = [(probabilities[known[:, c], c], target[known[:, c], c]) for c in columns]
    auroc = torch.stack([binary_auroc(p, t, validate_args=False) for p, t in pairs]).tolist()
    auprc = torch.stack([binary_average_precision(p, t, validate_args=False) for p, t in pairs]).tolist()
    kept = [names[column] for column in columns]
    return dict(zip(kept, auroc, strict=True)), dict(zip(kept, auprc, strict=True))


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

"""A cross-validation judged fold by fold: the mean over the test folds of the macro figure within each.

Each fold was predicted by a network of its own. One ranking of all folds compares scores of different networks, which
need not be on one scale, and a gain within the folds can vanish in it. Here records are ranked within their fold alone:

- The macro figure of a fold is the mean over the labels that have both classes in that fold; the figure is the mean
  over the folds that have such a label, every fold counting the same; of several files (seeds) the mean over them.
- Bootstrap: patients' weights as in `bootstrap`. As a fold's figure does not change when all its weights do by one
  factor, these are draws of patients within each fold; all files of a fold are under the same draw.
- Permutation: as in `compare`, with ranks within model, label and fold, so that predictions change places within
  their fold alone.

With one fold all three are those of `judging` and `compare`. The intervals hold for these networks: they know nothing
of other seeds, nor of other training folds.

Under a bootstrap's weights the AUPRC of some 50 records is higher in the mean (by .012 for a quarter of positives),
AUROC is not: the interval of a mean AUPRC lies a little high.

Source: the mean of the folds' AUROC as the cross-validated one, as the package cvAUC has it (LeDell, Petersen and van
der Laan 2015, doi 10.1214/15-EJS1035). That usual ways to cross-validate AUROC may have much bias or variance in small
studies: Airola et al. 2011 (doi 10.1016/j.csda.2010.11.018).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecg_lightning.errors import InputError
from ecg_lightning.evaluate import bootstrap as weighing
from ecg_lightning.evaluate.bootstrap import Judge, bootstrap
from ecg_lightning.evaluate.compare import Difference, difference_of, swap_differences
from ecg_lightning.evaluate.evaluation import Figure
from ecg_lightning.evaluate.judging import figure_of
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.evaluate.protocols import Group
from ecg_lightning.evaluate.ranking import FIGURES

Array = NDArray[np.float64]
Parts = Sequence[NDArray[np.intp]]


@dataclass(frozen=True)
class FoldFigures:
    """One macro figure of each of `FIGURES`, over the folds."""

    figures: dict[str, Figure]
    """Mean over the folds, with its interval."""
    per_fold: dict[str, Array]
    """(file, fold); NaN in a fold without a label of both classes."""
    num_labels: tuple[int, ...]
    """(fold,) labels with both classes."""

    def per_file(self, name: str) -> Array:
        """(file,) means over the folds."""
        values: Array = np.nanmean(self.per_fold[name], axis=1)
        return values


@dataclass(frozen=True)
class FoldGains:
    """The first side less the second, over the folds."""

    differences: dict[str, Difference]
    per_fold: dict[str, Array]
    """(pair, fold); NaN in a fold without a label of both classes."""

    def won(self, name: str) -> int:
        """Folds in which the first side is ahead, in the mean over the pairs."""
        return int((self.per_fold[name].mean(axis=0) > 0).sum())

    def num_folds(self, name: str) -> int:
        """Folds with a figure."""
        return int((~np.isnan(self.per_fold[name][0])).sum())


class JudgeOfFolds:
    """As `Judge`, with every fold ranked alone: figures are by (fold x label), fold by fold.

    Args:
        predictions: of all folds.
        parts: places of each fold's records.
    """

    def __init__(self, predictions: Predictions, parts: Parts) -> None:
        self._judges = [Judge(predictions.probabilities[rows], predictions.labels[rows]) for rows in parts]
        self.device = self._judges[0].device
        self._places = [torch.from_numpy(rows).to(self.device) for rows in parts]
        self.defined = np.stack([judge.defined for judge in self._judges])
        """(fold, label) whether both classes are among the fold's known records."""

    def __call__(self, weights: Tensor) -> dict[str, Tensor]:
        """Each figure (fold x label, draw) under ``weights`` (record, draw)."""
        parts = [judge(weights[rows]) for judge, rows in zip(self._judges, self._places, strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in weighing.FIGURES}

    def point(self) -> dict[str, Array]:
        """Each figure (fold, label) with every record counted once."""
        parts = [judge.point() for judge in self._judges]
        return {name: np.stack([part[name] for part in parts]) for name in weighing.FIGURES}


def evaluate_by_fold(
    files: Sequence[Predictions], groups: Sequence[Group], parts: Parts, *, draws: int, seed: int
) -> list[FoldFigures]:
    """The figures of each group of labels.

    Args:
        files: one or more (seeds), in one order of records and labels.
        groups: labels of the macro means.
        parts: places of each fold's records.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        InputError: for a group of which no label has both classes within a fold.
    """
    judges = [JudgeOfFolds(one, parts) for one in files]
    drawn = bootstrap(judges, files[0].patient_id, draws=draws, seed=seed)
    found = []
    for group in groups:
        share = _shares(group, judges[0].defined)
        per_fold = _per_fold(judges, group)
        figures = {
            name: figure_of(np.nanmean(per_fold[name], axis=1), _mean(drawn[name].mean(axis=0), share))
            for name in FIGURES
        }
        counts = judges[0].defined[:, group.columns].sum(axis=1)
        found.append(FoldFigures(figures, per_fold, tuple(counts.tolist())))
    return found


def compare_by_fold(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    groups: Sequence[Group],
    parts: Parts,
    *,
    draws: int,
    permutations: int,
    seed: int,
) -> list[FoldGains]:
    """The gains of each group of labels; arguments as of `evaluate_by_fold` and `compare.compare`."""
    judges = [JudgeOfFolds(one, parts) for one in (*first, *second)]
    drawn = bootstrap(judges, first[0].patient_id, draws=draws, seed=seed)
    swapped = swap_differences(first, second, permutations, seed, parts)
    found = []
    for group in groups:
        share = _shares(group, judges[0].defined)
        of_sides = {name: np.split(values, 2) for name, values in _per_fold(judges, group).items()}
        gains = {name: left - right for name, (left, right) in of_sides.items()}
        differences = {}
        for name in FIGURES:
            left, right = np.split(drawn[name], 2)
            drawn_gain = _mean((left - right).mean(axis=0), share)
            real = float(np.nanmean(gains[name], axis=1).mean())
            differences[name] = difference_of(real, drawn_gain, _mean(swapped[name], share))
        found.append(FoldGains(differences, gains))
    return found


def _shares(group: Group, defined: NDArray[np.bool_]) -> Array:
    """(fold x label,) what each counts in the mean over folds of the mean over a fold's labels."""
    counted = np.zeros(defined.shape)
    counted[:, group.columns] = defined[:, group.columns]
    labels = counted.sum(axis=1, keepdims=True)
    if not labels.any():
        names = f"{group.task}, {group.kind} labels"
        raise InputError(
            f"{names}: none has both classes within any of the {len(defined)} test folds, so there is no mean over "
            "them: test larger folds"
        )
    shares: Array = (counted / np.maximum(labels, 1) / (labels > 0).sum()).ravel()
    return shares


def _mean(values: Array, shares: Array) -> Array:
    """(fold x label, draw) -> (draw,); what does not count may be NaN."""
    counted = shares > 0
    mean: Array = shares[counted] @ values[counted]
    return mean


def _per_fold(judges: Sequence[JudgeOfFolds], group: Group) -> dict[str, Array]:
    """Macro AUROC and AUPRC (file, fold); NaN in a fold without a label of both classes."""
    found = {name: np.full((len(judges), len(judges[0].defined)), np.nan) for name in FIGURES}
    for file, judge in enumerate(judges):
        point = judge.point()
        for fold, defined in enumerate(judge.defined):
            if len(columns := group.columns[defined[group.columns]]):
                for name in FIGURES:
                    found[name][file, fold] = point[name][fold, columns].mean()
    return found

"""A cross-validated group's figures: means over the folds become its main ones, the pooled ones are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.evaluate.by_fold import FoldFigures, FoldGains, compare_by_fold, evaluate_by_fold
from ecg_lightning.evaluate.compare import Comparison, Difference
from ecg_lightning.evaluate.evaluation import Evaluation, Figure, number
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.evaluate.protocols import Group


@dataclass(frozen=True)
class Folds:
    """What a cross-validation has besides its means over the folds.

    Attributes:
        names: of the test folds, one for each network.
        parts: places of each fold's records.
        figures: (macro group,) by fold.
        pooled: (macro group,) figures of all folds' predictions ranked together.
        gains: (macro group,) over plain fine-tuning, by fold.
        pooled_gains: (macro group,) of all folds' predictions ranked together.
    """

    names: tuple[str, ...]
    parts: tuple[NDArray[np.intp], ...]
    figures: tuple[FoldFigures, ...]
    pooled: tuple[tuple[Group, dict[str, Figure]], ...]
    gains: tuple[FoldGains, ...] = ()
    pooled_gains: tuple[tuple[Group, dict[str, Difference]], ...] = ()

    def remarks(self) -> list[str]:
        """Which folds have fewer labels than all, or none."""
        most = len(self.pooled[0][0].columns)
        fewer = [
            f"{name} ({count} of {most})"
            for name, count in zip(self.names, self.figures[0].num_labels, strict=True)
            if count < most
        ]
        if not fewer:
            return []
        return [f"test folds in which not all labels have both classes, so that fewer count there: {', '.join(fewer)}"]

    def to_json(self) -> dict[str, Any]:
        """``names``, and by macro group the values of each fold and the pooled figures."""
        groups = []
        for place, ((group, pooled), figures) in enumerate(zip(self.pooled, self.figures, strict=True)):
            one: dict[str, Any] = {"task": group.task, "kind": group.kind, "num_labels": list(figures.num_labels)}
            one["per_file_and_fold"] = {name: _rows(values) for name, values in figures.per_fold.items()}
            one["pooled"] = {name: pooled[name].to_json() for name in figures.per_fold}
            if self.gains:
                gains, of_pool = self.gains[place], self.pooled_gains[place][1]
                one["gain_per_pair_and_fold"] = {name: _rows(values) for name, values in gains.per_fold.items()}
                one["folds_won"] = {name: gains.won(name) for name in gains.per_fold}
                one["pooled_gain"] = {name: of_pool[name].to_json() for name in gains.per_fold}
            groups.append(one)
        return {"names": list(self.names), "macro": groups}


def judged_by_fold(
    files: Sequence[Predictions], evaluation: Evaluation, tested: Sequence[Sequence[int]]
) -> tuple[Evaluation, Folds]:
    """The evaluation of all folds pooled, with macro AUROC and AUPRC as means over the folds instead.

    Args:
        files: of all folds, in one order of records.
        evaluation: of them.
        tested: each network's test folds.
    """
    tested = sorted(map(tuple, tested))
    parts = tuple(np.flatnonzero(np.isin(files[0].fold, folds)) for folds in tested)
    groups = [group for group, _ in evaluation.groups]
    options = evaluation.options
    found = evaluate_by_fold(files, groups, parts, draws=options.draws, seed=options.seed)
    per_file = tuple(
        tuple(
            {**values, **{name: float(one.per_file(name)[file]) for name in one.per_fold}}
            for values, one in zip(of_file, found, strict=True)
        )
        for file, of_file in enumerate(evaluation.per_file)
    )
    changed = tuple(
        (group, {**figures, **one.figures}) for (group, figures), one in zip(evaluation.groups, found, strict=True)
    )
    names = tuple(", ".join(map(str, folds)) for folds in tested)
    folds = Folds(names, parts, tuple(found), evaluation.groups)
    return replace(evaluation, groups=changed, per_file=per_file), folds


def compared_by_fold(
    first: Sequence[Predictions], second: Sequence[Predictions], comparison: Comparison, folds: Folds
) -> tuple[Comparison, Folds]:
    """The comparison of all folds pooled, with macro gains as means over the folds instead."""
    gains = compare_by_fold(
        first,
        second,
        [group for group, _ in comparison.groups],
        folds.parts,
        draws=comparison.draws,
        permutations=comparison.permutations,
        seed=comparison.seed,
    )
    changed = tuple((group, one.differences) for (group, _), one in zip(comparison.groups, gains, strict=True))
    kept = replace(folds, gains=tuple(gains), pooled_gains=comparison.groups)
    return replace(comparison, groups=changed), kept


def _rows(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[number(value) for value in row] for row in values.tolist()]

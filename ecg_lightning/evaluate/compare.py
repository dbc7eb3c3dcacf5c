"""Whether one model is better than another on the same records: paired bootstrap and paired permutation test.

Both look at differences of AUROC and AUPRC, macro and per label, mean over seeds where a side has several files.

- Bootstrap: the same draws of patients (`bootstrap`) on both sides; 2.5th and 97.5th percentile of the difference, and
  a two-sided p from how often it falls on either side of 0.
- Permutation: if neither model is better, it does not matter which of the two a prediction is from. The two models'
  predictions are swapped for all records of a patient together, as records of a patient are not independent, and for
  all labels and pairs of seeds at once; p is how often the difference is at least as large as the real one. What is
  swapped are the ranks of the predictions within each model and label, so that two models on different scales may be
  compared (Venkatraman and Begg 1996, doi 10.1093/biomet/83.4.835); neither AUROC nor AUPRC knows more than ranks.

Where labels are rare, go by the permutation test: the bootstrap takes equal models for different too often (p < 0.05 in
9 to 13 % of simulations with labels from 4 positives, by permutation in 3 to 7 %: ``benchmarks/comparison.py``).

Every p is (1 + count) / (n + 1) and so never 0; those of the labels are corrected as a family by Holm 1979.
Seeds are paired in the order of the files. The intervals hold for these seeds: they know nothing of others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.bootstrap import Judge, best_device, bootstrap, draws_at_once, interval
from ecg_lightning.evaluate.evaluation import number
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.evaluate.protocols import Group
from ecg_lightning.evaluate.ranking import FIGURES, RankedLabel, Sums, ranked, scores, weight_sums

_EQUAL = 1e-12
"""Differences closer than this are one: sums of floating point numbers in another order."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The first side less the second."""

    value: float
    low: float
    high: float
    p_bootstrap: float
    p_permutation: float
    p_bootstrap_holm: float | None = None
    """Corrected over the labels; None for a macro mean."""
    p_permutation_holm: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """By name; what is not defined as None."""
        return {name: number(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Comparison:
    """Differences of two models, or of two recipes over several seeds."""

    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Files of both sides; those of one place are a pair."""
    metas: tuple[dict[str, Any], ...]
    """Of the second side's files."""
    draws: int
    permutations: int
    seed: int
    labels: dict[str, dict[str, Difference]]
    """Per label with both classes and figure."""
    groups: tuple[tuple[Group, dict[str, Difference]], ...]
    """Macro means."""

    @property
    def smallest_holm(self) -> float:
        """The smallest corrected p of a label that so many permutations can give."""
        return len(self.labels) / (self.permutations + 1)

    def to_json(self) -> dict[str, Any]:
        """By name, a difference as {value, low, high, p_bootstrap, p_permutation, and both with _holm}.

        ``pairs``, ``against`` (metas), ``draws``, ``permutations``, ``seed``, ``macro`` {task: {kind: {figure: ...}}},
        ``labels`` {label: {figure: ...}}.
        """
        macro: dict[str, dict[str, Any]] = {}
        for group, figures in self.groups:
            macro.setdefault(group.task, {})[group.kind] = {name: one.to_json() for name, one in figures.items()}
        return {
            "pairs": [list(pair) for pair in zip(*self.names, strict=True)],
            "against": list(self.metas),
            "draws": self.draws,
            "permutations": self.permutations,
            "seed": self.seed,
            "macro": macro,
            "labels": {
                label: {name: one.to_json() for name, one in figures.items()} for label, figures in self.labels.items()
            },
        }


def compare(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    groups: Sequence[Group],
    *,
    names: tuple[Sequence[str], Sequence[str]],
    draws: int = 1000,
    permutations: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares two models; or two recipes, file by file in their order.

    Args:
        first: one or more files, in one order of records and labels (`judging.same_files`).
        second: as many of the other model, in the same order of records and labels.
        groups: labels of the macro means.
        names: of the files.
        draws: of the bootstrap.
        permutations: of the test; by default 1,000, or 40 a label where that is more: with fewer than 20 a label the
            smallest p, corrected over the labels, would be above 0.05.
        seed: of both.

    Raises:
        UsageError: for sides of different numbers of files.
    """
    if len(first) != len(second):
        raise UsageError(
            f"{len(first)} file(s) against {len(second)}: seeds are compared in pairs, in the order in which they are "
            "named; name as many behind --against"
        )
    judges = [Judge(one.probabilities, one.labels) for one in (*first, *second)]
    defined = np.flatnonzero(judges[0].defined)
    permutations = max(1000, 40 * len(defined)) if permutations is None else permutations
    point = [judge.point() for judge in judges]
    drawn = bootstrap(judges, first[0].patient_id, draws=draws, seed=seed)
    swapped = swap_differences(first, second, permutations, seed)
    label_names = [first[0].label_names[column] for column in defined]
    labels: dict[str, dict[str, Difference]] = {label: {} for label in label_names}
    macro: list[tuple[Group, dict[str, Difference]]] = [(group, {}) for group in groups]
    for name in FIGURES:
        real = _sides(np.stack([one[name] for one in point]))  # (label,)
        draw, swap = _sides(drawn[name]), swapped[name]  # (label, draw)
        for group, figures in macro:
            columns = group.columns
            figures[name] = difference_of(real[columns].mean(), draw[columns].mean(axis=0), swap[columns].mean(axis=0))
        for label, one in zip(label_names, _family(real[defined], draw[defined], swap[defined]), strict=True):
            labels[label][name] = one
    return Comparison(
        names=(tuple(names[0]), tuple(names[1])),
        metas=tuple(one.meta for one in second),
        draws=draws,
        permutations=permutations,
        seed=seed,
        labels=labels,
        groups=tuple(macro),
    )


def swap_differences(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    permutations: int,
    seed: int,
    parts: Sequence[NDArray[np.intp]] | None = None,
) -> dict[str, Array]:
    """Differences (label, permutation) of AUROC and AUPRC when patients' predictions are swapped at random.

    Means over the pairs of files; NaN for a label without both classes. Both models' ranks stand in one pool, in which
    either side of a permutation is a weighting by 0 and 1: sorted once, exact in float32.

    With ``parts``, the places of the records that each network of a cross-validation predicted, ranks and pools are of
    one part each, and the differences (part x label, permutation), part by part; the coins are the same.
    """
    patients, patient_of_record = np.unique(first[0].patient_id, return_inverse=True)
    device = best_device()
    places, num_records = torch.from_numpy(patient_of_record).to(device), len(patient_of_record)
    parts = parts or [np.arange(num_records)]
    pools = [
        _pools([(_rows(a, part), _rows(b, part)) for a, b in zip(first, second, strict=True)], device) for part in parts
    ]
    num_labels = first[0].labels.shape[1]
    result = {name: np.full((num_labels * len(pools), permutations), np.nan) for name in FIGURES}
    for name in FIGURES:
        for place, of_part in enumerate(pools):
            result[name][[num_labels * place + column for column, _, _ in of_part]] = 0
    for start, coins in _coins(len(patients), permutations, seed, draws_at_once(2 * num_records, device)):
        kept = (~coins.to(device))[places].float()
        for place, (part, of_part) in enumerate(zip(parts, pools, strict=True)):
            of_first = kept[torch.from_numpy(part).to(device)]
            first_side = torch.cat([of_first, 1 - of_first])
            for column, label, unit in of_part:
                sums = weight_sums(label, first_side)
                row = num_labels * place + column
                both = zip(FIGURES, scores(sums), scores(sums.complement(unit)), strict=True)
                for name, left, right in both:
                    result[name][row, start : start + len(left)] += (left - right).cpu().numpy() / len(first)
    return result


def _pools(pairs: Sequence[tuple[Predictions, Predictions]], device: str) -> list[tuple[int, RankedLabel, Sums]]:
    """Per label with both classes and pair: the label's place, both files' ranks sorted, their sums under ones."""
    labels = torch.from_numpy(pairs[0][0].labels).to(device)
    pooled = torch.cat([labels, labels])
    unit = torch.ones(len(pooled), 1, dtype=torch.float64, device=device)
    ranks = [_pooled_ranks(*pair).to(device) for pair in pairs]
    return [
        (column, label, weight_sums(label, unit))
        for column in range(labels.shape[1])
        for pool in ranks
        if (label := ranked(pool[:, column], pooled[:, column])) is not None
    ]


def _rows(one: Predictions, part: NDArray[np.intp]) -> Predictions:
    return replace(one, probabilities=one.probabilities[part], labels=one.labels[part])


def _coins(num_patients: int, permutations: int, seed: int, chunk: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Which patients (patient, permutation) are swapped, chunk by chunk."""
    generator = np.random.Generator(np.random.PCG64((seed, 1)))  # not the numbers of the bootstrap
    for start in range(0, permutations, chunk):
        number_of_coins = min(chunk, permutations - start)
        yield start, torch.from_numpy(generator.random((number_of_coins, num_patients)) < 0.5).T


def _pooled_ranks(first: Predictions, second: Predictions) -> torch.Tensor:
    """Both files' ranks (2 x record, label), the first's records on top; each label ranked where it is known."""
    return torch.cat([torch.from_numpy(_ranks(one.probabilities, one.labels)) for one in (first, second)])


def _ranks(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.uint8]) -> Array:
    result: Array = rankdata(np.where(labels <= 1, probabilities, np.nan), axis=0, nan_policy="omit")
    return result


def _sides(values: Array) -> Array:
    """(file, ...) of both sides -> mean over the pairs of first less second."""
    first, second = np.split(values, 2)
    result: Array = (first - second).mean(axis=0)
    return result


def difference_of(real: float, drawn: Array, swapped: Array) -> Difference:
    """A difference, with its interval and p from ``drawn`` (draw,) and ``swapped`` (permutation,) ones."""
    low, high = interval(drawn)
    below, above = int((drawn <= _EQUAL).sum()), int((drawn >= -_EQUAL).sum())
    extreme = int((np.abs(swapped) >= abs(real) - _EQUAL).sum())
    return Difference(
        value=float(real),
        low=low,
        high=high,
        p_bootstrap=min(1.0, 2 * (1 + min(below, above)) / (len(drawn) + 1)),
        p_permutation=(1 + extreme) / (len(swapped) + 1),
    )


def _family(real: Array, drawn: Array, swapped: Array) -> list[Difference]:
    """One difference per label, with corrected p."""
    single = [difference_of(*one) for one in zip(real, drawn, swapped, strict=True)]
    of_bootstrap, of_permutation = (
        holm([one.p_bootstrap for one in single]),
        holm([one.p_permutation for one in single]),
    )
    return [
        Difference(**{**asdict(one), "p_bootstrap_holm": b, "p_permutation_holm": p})
        for one, b, p in zip(single, of_bootstrap, of_permutation, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of any false positive in the family stays below alpha."""
    p = np.asarray(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    result: list[float] = corrected.tolist()
    return result

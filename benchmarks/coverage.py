"""How often 95 % intervals of the bootstrap hold the truth: on simulated labels, from 3 to 100 expected positives.

Scores are normal, shifted for positives, so that the true AUROC is known and the true AUPRC is an integral. Compared:

- ``bayesian``: percentiles under the weights of `evaluate`
- ``bayesian, t``: `student_interval` of the same draws, which `evaluate` shows for single labels
- ``replacement``: percentiles where records are drawn with replacement, draws without the label left out
- ``replacement, 0``: the same, a label that vanishes from a draw counted as 0, as some libraries do

``below`` and ``above``: how often the truth lies there, 2.5 % each if the interval were right. Then the macro mean over
20 labels of which half are rare and easy: what the draws' mean is off by, and what their percentiles cover.

    python benchmarks/coverage.py
"""

import argparse
from collections import defaultdict

import numpy as np
import torch
from scipy.stats import norm

from ecg_lightning.evaluate.bootstrap import Judge, interval, patient_weights, student_interval

POSITIVES = (3, 5, 10, 20, 50, 100)
Ends = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--shift", type=float, nargs="+", default=[1.0, 2.0], help="true AUROC .760 and .921")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for shift in arguments.shift:
        labels_table(shift, arguments)
    macro_table(arguments)


def labels_table(shift: float, arguments: argparse.Namespace) -> None:
    """One line per figure, number of positives and interval."""
    truths = {"auroc": dict.fromkeys(POSITIVES, float(norm.cdf(shift / np.sqrt(2))))}
    truths["auprc"] = {count: true_auprc(shift, count / arguments.records) for count in POSITIVES}
    print(f"\nsingle labels, true AUROC {truths['auroc'][3]:.3f}, {arguments.records} records")
    print(f"{'figure':<8}{'positives':>9}  {'interval':<16}{'covers':>8}{'below':>8}{'above':>8}{'width':>8}")
    found: dict[tuple[str, int, str], list[Ends]] = defaultdict(list)
    random = np.random.default_rng(0)
    prevalence = np.array(POSITIVES) / arguments.records
    for simulation in range(arguments.simulations):
        labels = (random.random((arguments.records, len(POSITIVES))) < prevalence).astype(np.uint8)
        judge = Judge(random.normal(size=labels.shape) + shift * labels, labels, device="cpu")
        drawn = both_ways(judge, arguments.draws, simulation)
        point = judge.point()
        for column, count in enumerate(POSITIVES):
            for figure in truths:
                if judge.defined[column]:
                    positives = int(labels[:, column].sum())
                    ways = intervals_of(drawn, figure, column, point[figure][column], positives, arguments.records)
                    for way, ends in ways.items():
                        found[figure, count, way].append(ends)
    for (figure, count, way), ends in sorted(found.items()):
        low, high = np.array(ends).T
        truth = truths[figure][count]
        below, above = (low > truth).mean(), (high < truth).mean()
        covers, width = 1 - below - above, (high - low).mean()
        print(f"{figure:<8}{count:>9}  {way:<16}{covers:>8.3f}{below:>8.3f}{above:>8.3f}{width:>8.3f}")


def both_ways(judge: Judge, draws: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Figures (label, draw) under Bayesian weights and under draws with replacement."""
    bayesian = np.concatenate([*patient_weights(judge.num_records, draws, seed)], axis=1)
    even = np.full(judge.num_records, 1 / judge.num_records)
    replaced = np.random.default_rng((seed, 1)).multinomial(judge.num_records, even, draws).T.astype(np.float64)
    weights = {"bayesian": bayesian, "replacement": replaced}
    return {
        way: {name: values.numpy() for name, values in judge(torch.from_numpy(np.ascontiguousarray(one))).items()}
        for way, one in weights.items()
    }


def intervals_of(
    drawn: dict[str, dict[str, np.ndarray]], figure: str, column: int, point: float, positives: int, records: int
) -> dict[str, Ends]:
    """Each way's interval; that by t is 0 to 1 where it is not defined."""
    bayesian, replaced = (drawn[way][figure][column] for way in ("bayesian", "replacement"))
    by_t = student_interval(float(point), bayesian, positives, 0.5 / (positives * (records - positives)))
    low, high = np.nanpercentile(replaced, [2.5, 97.5])
    return {
        "bayesian": interval(bayesian),
        "bayesian, t": (0.0, 1.0) if np.isnan(by_t[0]) else by_t,
        "replacement": (float(low), float(high)),
        "replacement, 0": interval(np.nan_to_num(replaced)),
    }


def true_auprc(shift: float, prevalence: float) -> float:
    """Area under precision over recall of a shifted normal, in the limit of many records."""
    cut = np.linspace(-6, 6 + shift, 20_001)
    recall, false_alarms = norm.sf(cut - shift), norm.sf(cut)
    precision = prevalence * recall / (prevalence * recall + (1 - prevalence) * false_alarms)
    return float(-np.trapezoid(precision, recall))


def macro_table(arguments: argparse.Namespace, num_labels: int = 20) -> None:
    """Labels of which half are common with a true AUROC of .714, half have 3 positives expected and .983."""
    simulations = arguments.simulations // 5
    shift = np.where(np.arange(num_labels) < num_labels // 2, 0.8, 3.0)
    truths = norm.cdf(shift / np.sqrt(2))
    prevalence = np.where(shift < 1, 0.2, 3 / arguments.records)
    off, hits, width = (defaultdict(list) for _ in range(3))
    random = np.random.default_rng(1)
    for simulation in range(simulations):
        labels = (random.random((arguments.records, num_labels)) < prevalence).astype(np.uint8)
        judge = Judge(random.normal(size=labels.shape) + shift * labels, labels, device="cpu")
        drawn = both_ways(judge, arguments.draws, simulation)
        has = judge.defined
        bayesian, replaced = (drawn[way]["auroc"][has] for way in ("bayesian", "replacement"))
        point = judge.point()["auroc"][has].mean()
        means = {
            "bayesian": bayesian.mean(axis=0),
            "replacement": np.nanmean(replaced, axis=0),
            "replacement, 0": np.nan_to_num(replaced).mean(axis=0),
        }
        for way, draws in means.items():
            low, high = interval(draws)
            off[way].append(draws.mean() - point)
            width[way].append(high - low)
            hits[way].append(low <= truths[has].mean() <= high)
    print(f"\nmacro mean over the labels with both classes, {simulations} simulations")
    print(f"{'interval':<16}{'covers':>8}{'draws are off by':>18}{'width':>8}")
    for way in off:
        print(f"{way:<16}{np.mean(hits[way]):>8.3f}{np.mean(off[way]):>+18.4f}{np.mean(width[way]):>8.4f}")


if __name__ == "__main__":
    main()

"""Is the comparison of two models honest, and what does it see? Simulated models on simulated patients.

Two models share most of their noise, as two networks on the same ECGs do; labels from 1 to 30 % of the records; half
the patients have two records with shared labels and scores. Equal models: how often p < 0.05 (false positives), beside
the interval within which a right test stays with 99.9 %. Unequal models: how often the difference is found (power).
Both for the macro AUROC and AUPRC, one file a side and three (seeds).

    python benchmarks/comparison.py
"""

import argparse

import numpy as np
import torch
from scipy.stats import binom

from ecg_lightning.evaluate.bootstrap import Judge
from ecg_lightning.evaluate.compare import compare
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.evaluate.protocols import Group

NUM_LABELS = 8
ALPHA = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    low, high = (n / arguments.simulations for n in binom.interval(0.999, arguments.simulations, ALPHA))
    print(f"{arguments.simulations} simulations, {arguments.patients} patients, {NUM_LABELS} labels, p < {ALPHA}")
    print(f"a right test of equal models lies within {low:.3f} to {high:.3f}")
    print(f"{'models':<28}{'files':>6}  {'figure':<7}{'gain':>8}{'bootstrap':>11}{'permutation':>13}{'any label*':>12}")
    for name, gain, files in (
        ("equal", 0.0, 1),
        ("equal", 0.0, 3),
        ("equal, other scale", 0.0, 1),
        ("shift 1.5 against 1.6", 0.1, 1),
        ("shift 1.5 against 1.6", 0.1, 3),
        ("shift 1.5 against 1.8", 0.3, 1),
    ):
        found = [
            one_p(seed, gain, files, scaled="scale" in name, arguments=arguments)
            for seed in range(arguments.simulations)
        ]
        for figure in ("auroc", "auprc"):
            gains, *p_values = np.array([one[figure] for one in found]).T
            shares = [(p < ALPHA).mean() for p in p_values]
            cells = f"{gains.mean():>+8.4f}{shares[0]:>11.3f}{shares[1]:>13.3f}{shares[2]:>12.3f}"
            print(f"{name:<28}{files:>6}  {figure:<7}{cells}", flush=True)
    print("* the smallest corrected p of the labels by permutation: false positives of the family")


def one_p(seed: int, gain: float, files: int, *, scaled: bool, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Difference of the macro means, p of the bootstrap, p of the permutations, smallest corrected p, per figure."""
    first, second = models(seed, gain, files, arguments.patients, scaled=scaled)
    judge = Judge(first[0].probabilities, first[0].labels, device="cpu")
    group = Group("simulated", "all", np.flatnonzero(judge.defined))
    names = [f"{side}{place}" for side in "ab" for place in range(files)]
    comparison = compare(
        first,
        second,
        [group],
        names=(names[:files], names[files:]),
        draws=arguments.draws,
        permutations=arguments.draws,
        seed=seed,
    )
    ((_, macro),) = comparison.groups
    return {
        figure: [
            one.value,
            one.p_bootstrap,
            one.p_permutation,
            min(label[figure].p_permutation_holm or 1.0 for label in comparison.labels.values()),
        ]
        for figure, one in macro.items()
    }


def models(
    seed: int, gain: float, files: int, num_patients: int, *, scaled: bool = False
) -> tuple[list[Predictions], list[Predictions]]:
    """So many files of two models, the second better by ``gain`` in the shift of its positives."""
    random = np.random.default_rng(seed)
    prevalence = np.geomspace(0.02, 0.3, NUM_LABELS)
    patient = np.append(np.arange(num_patients), np.arange(num_patients // 2))
    labels = (random.random((num_patients, NUM_LABELS)) < prevalence).astype(np.uint8)[patient]
    of_patient = random.normal(size=(num_patients, NUM_LABELS))[patient]
    of_record = random.normal(size=labels.shape)

    def one(shift: float, scale: float) -> Predictions:
        of_patient_and_model = random.normal(size=(num_patients, NUM_LABELS))[patient]
        noise = (
            0.6 * of_patient + 0.5 * of_record + 0.5 * of_patient_and_model + 0.37 * random.normal(size=labels.shape)
        )
        probabilities = 1 / (1 + np.exp(-scale * (noise + shift * labels - 1)))
        numbers = np.arange(len(labels))
        names = tuple(f"L{place}" for place in range(NUM_LABELS))
        return Predictions(numbers, patient, np.zeros(len(labels), np.int8), probabilities, labels, names, {})

    return [one(1.5, 1.0) for _ in range(files)], [one(1.5 + gain, 0.2 if scaled else 1.0) for _ in range(files)]


if __name__ == "__main__":
    main()

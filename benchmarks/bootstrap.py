"""1,000 bootstrap draws of AUROC and AUPRC on 2,198 records x 71 labels: `evaluate` against a loop of scikit-learn.

Labels as frequent as in PTB-XL's test fold, scores simulated, patients with one record or two. Both sides get the same
weights, one thread, in turn (A B A B), medians. scikit-learn is timed on the first few draws and scaled per draw, as
all 1,000 would take minutes. Ours makes its draws itself and gives F1, sensitivity, specificity and Brier score too.

    python benchmarks/bootstrap.py
"""

import argparse
import os
import time
from statistics import median

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.data.labels import ptbxl_103_counts
from ecg_lightning.evaluate.bootstrap import Judge, bootstrap, patient_weights

NUM_RECORDS = 2198
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--loop_draws", type=int, default=5, help="draws that scikit-learn is timed on")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probabilities, labels, patients = simulated()
    ours, theirs, difference = [], [], 0.0
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        drawn = bootstrap([Judge(probabilities, labels, device="cpu")], patients, draws=arguments.draws, seed=SEED)
        ours.append((time.perf_counter() - start) / arguments.draws)
        weights = record_weights(patients, arguments.loop_draws)
        start = time.perf_counter()
        expected = loop(probabilities, labels, weights)
        theirs.append((time.perf_counter() - start) / arguments.loop_draws)
        got = np.stack([drawn[name][0, :, : arguments.loop_draws] for name in ("auroc", "auprc")])
        difference = max(difference, float(np.abs(got - expected).max()))
    assert difference < 1e-6, f"the figures differ by {difference}"
    fast, slow = median(ours), median(theirs)
    print(
        f"{NUM_RECORDS} records x {labels.shape[1]} labels, {arguments.draws} draws, one thread, "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )
    print(f"evaluate      {1e3 * fast:8.2f} ms a draw, {fast * arguments.draws:7.1f} s in all")
    print(
        f"scikit-learn  {1e3 * slow:8.2f} ms a draw, {slow * arguments.draws:7.1f} s in all "
        f"(scaled from {arguments.loop_draws} draws)"
    )
    print(f"ratio {slow / fast:.0f}, largest difference {difference:.1e}")


def simulated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and labels (record, label), patients (record,)."""
    random = np.random.default_rng(SEED)
    counts = ptbxl_103_counts()["tasks"]["all"]["positives_per_class_per_split"]
    labels = np.zeros((NUM_RECORDS, len(counts)), np.uint8)
    for column, of_split in enumerate(counts.values()):
        labels[random.choice(NUM_RECORDS, max(of_split["test"], 1), replace=False), column] = 1
    logits = random.normal(size=labels.shape) + 2 * labels - 2
    patients = np.append(np.arange(NUM_RECORDS - 200), np.arange(200))
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels, patients


def record_weights(patients: np.ndarray, draws: int) -> np.ndarray:
    """(record, draw): the first draws of `bootstrap`."""
    unique, of_record = np.unique(patients, return_inverse=True)
    return np.concatenate([*patient_weights(len(unique), draws, SEED)], axis=1)[of_record]


def loop(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC and AUPRC (2, label, draw)."""
    result = np.empty((2, labels.shape[1], weights.shape[1]))
    for draw in range(weights.shape[1]):
        for column in range(labels.shape[1]):
            target, score, weight = labels[:, column], probabilities[:, column], weights[:, draw]
            result[0, column, draw] = roc_auc_score(target, score, sample_weight=weight)
            result[1, column, draw] = average_precision_score(target, score, sample_weight=weight)
    return result


if __name__ == "__main__":
    main()

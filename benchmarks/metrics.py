"""Macro AUROC and AUPRC of a validation fold: against scikit-learn's loop over labels, and as a share of the pass.

Both score the same 2,183 x 71 probabilities (PTB-XL's fold 9, prevalences from 0.2 to 45 %), in turn; the figures must
agree to 1e-6. The share is that of `val_scores.scores()`, computed behind the last batch, in the time of the whole
`Trainer.validate` on as many simulated signals, ViT at 100 Hz.

    python benchmarks/metrics.py --rounds 7
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch
from in_turn import in_turn
from lightning.pytorch import Trainer
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_lightning.backbones import create_backbone
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.labels import ABSENT, ptbxl_statements
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.metrics import SplitScores, label_scores
from ecg_lightning.signals import LEADS_12, StoredSignal

NUM_LABELS = 71
NAMES = tuple(f"S{place:02d}" for place in range(NUM_LABELS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2183)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--accelerator", default="cpu")
    arguments = parser.parse_args()
    against_scikit_learn(arguments.records, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's hints about loader workers
        share_of_a_pass(Path(folder), arguments)


def drawn(num_records: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities that know something of them."""
    random = np.random.default_rng(0)
    labels = (random.random((num_records, NUM_LABELS)) < np.geomspace(0.002, 0.45, NUM_LABELS)).astype(np.uint8)
    labels[0], labels[1] = 0, 1  # both classes of each
    return labels, ((random.random(labels.shape) + 0.4 * labels) / 1.4).astype(np.float32)


def against_scikit_learn(num_records: int, rounds: int) -> None:
    """Both ways in turn."""
    labels, probabilities = drawn(num_records)
    given = torch.from_numpy(probabilities), torch.from_numpy(labels)

    def scikit_learn() -> tuple[list[float], ...]:
        pairs = [(labels[:, column], probabilities[:, column]) for column in range(NUM_LABELS)]
        return [roc_auc_score(*pair) for pair in pairs], [average_precision_score(*pair) for pair in pairs]

    def ours() -> tuple[list[float], ...]:
        auroc, auprc = label_scores(*given, NAMES)
        return list(auroc.values()), list(auprc.values())

    furthest = np.abs(np.array(ours()) - np.array(scikit_learn())).max()
    assert furthest < 1e-6, furthest
    seconds = in_turn({"loop": scikit_learn, "ours": ours}, rounds)
    loop, mine = median(seconds["loop"]), median(seconds["ours"])
    print(f"{num_records} x {NUM_LABELS}, AUROC and AUPRC; furthest apart {furthest:.1e}")
    print(f"scikit-learn's loop {1e3 * loop:8.1f} ms")
    print(f"label_scores        {1e3 * mine:8.1f} ms: {loop / mine:.1f} times faster")


class Timed(ECGClassifier):
    """Notes how long the scores of a pass take."""

    seconds: float = 0.0

    def _log_scores(self, split: str, metric: SplitScores) -> None:
        self._wait()
        start = time.perf_counter()
        super()._log_scores(split, metric)
        self._wait()
        self.seconds = time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def share_of_a_pass(folder: Path, arguments: argparse.Namespace) -> None:
    """Real validation passes over a store of made-up signals."""
    store = folder / "store.h5"
    write_store(store, arguments.records)
    torch.manual_seed(0)
    classifier = Timed(create_backbone("vit"), NAMES)
    data = PTBXLDataModule(str(store), batch_size=arguments.batch_size)
    trainer = Trainer(
        accelerator=arguments.accelerator, devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    passes, scores = [], []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        trainer.validate(classifier, data, verbose=False)
        passes.append(time.perf_counter() - start)
        scores.append(classifier.seconds)
    whole, part = median(passes[1:] or passes), median(scores[1:] or scores)
    print(f"validation pass     {1e3 * whole:8.1f} ms ({trainer.strategy.root_device}, ViT at 100 Hz)")
    print(f"  scores            {1e3 * part:8.1f} ms: {100 * part / whole:.2f} % of it")


def write_store(path: Path, num_records: int) -> None:
    """Noise as signals, drawn labels; every record in fold 9."""
    random, (labels, _) = np.random.default_rng(1), drawn(num_records)
    flags = {kind: np.ones(NUM_LABELS, bool) for kind in ("diagnostic", "form", "rhythm")}
    records = {
        "ecg_id": np.arange(num_records),
        "patient_id": np.arange(num_records),
        "strat_fold": np.full(num_records, 9, np.int8),
        "age": np.full(num_records, 60.0),
        "sex": np.zeros(num_records, np.int8),
        "checksum": np.zeros(num_records, np.uint32),
    }
    likelihood = np.where(labels == 1, 100, ABSENT).astype(np.uint8)
    statements = ptbxl_statements(NAMES, flags, NAMES, NAMES)
    attributes = {"source": "made up", "millivolts_per_unit": 0.001}
    offset = create_store(path, StoredSignal(100.0, LEADS_12, 1000), "<i2", records, likelihood, statements, attributes)
    with path.open("r+b") as file:
        file.seek(offset)
        for _ in range(num_records):
            file.write(random.integers(-1000, 1000, (12, 1000)).astype("<i2").tobytes())
    finish_store(path, {})


if __name__ == "__main__":
    main()

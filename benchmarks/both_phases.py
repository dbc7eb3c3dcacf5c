"""One epoch of each phase with every backbone, at its own rate, through the real command line: does it train?

For each backbone: `prepare` a store of real records, `fit` one epoch of probe and one of fine-tuning (with stochastic
depth) from random weights, `validate` the run again from its checkpoint. Printed: the training loss over the first and
the last quarter of each phase's steps (other records in each, and in fine-tuning under stochastic depth); the loss of
all training records, judged in evaluation mode before the probe, behind it, and behind fine-tuning; the validation's
macro AUROC after each phase; and whether the checkpoint gives the same figures again. A check that a network trains,
switches and reloads; no score.

    python benchmarks/both_phases.py --ptbxl PTBXL_DIR [--train_folds '[1,2]'] [--fit='--FLAG VALUE ...'] [NAME ...]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

from ecg_lightning.backbones import backbone_signal, list_backbones, meta_backbone
from ecg_lightning.chains import chain_to_json

TASK = "superdiagnostic"
HEADER = ("backbone", "M", "steps", "probe: steps", "AUROC", "fine-tune: steps", "AUROC", "all trained", "reloads", "s")
LINE = "{:<17}{:>6}{:>6} {:>20}{:>7}{:>18}{:>7} {:>22}{:>9}{:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="backbones; all that are registered by default")
    parser.add_argument(
        "--ptbxl", type=Path, action="append", required=True, help="folder of PTB-XL; twice, where each has one rate"
    )
    parser.add_argument("--train_folds", default="[1,2,3,4,5,6,7,8]", help="fewer for the largest networks on a CPU")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--fit", default="", help="further flags of `fit`")
    arguments = parser.parse_args()
    print(LINE.format(*HEADER))
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or list_backbones():
            one_backbone(name, arguments, Path(folder))


def one_backbone(name: str, arguments: argparse.Namespace, folder: Path) -> None:
    """Runs the three commands and prints the line."""
    store = store_for(name, arguments.ptbxl, folder)
    run = folder / name
    begin = time.perf_counter()
    command("fit", "--config", f"backbone/{name}", "--config", "recipe/default", "--data.store", str(store),
            "--data.task", TASK, "--data.batch_size", str(arguments.batch_size), "--run", str(run),
            "--post_training.probe.epochs", "1", "--post_training.fine_tune.epochs", "1",
            "--post_training.fine_tune.warmup_epochs", "0", "--trainer.log_every_n_steps", "1",
            "--data.train_folds", arguments.train_folds, *arguments.fit.split())  # fmt: skip
    seconds = time.perf_counter() - begin
    fitted = json.loads((run / "metrics_val.json").read_text())
    command("validate", "--run", str(run), "--overwrite")
    again = json.loads((run / "metrics_val.json").read_text())
    begun = begun_run(name, store, folder, arguments.train_folds)
    trained = [loss_of_trained(begun, "probe-best", arguments.train_folds, ended=True)]
    trained += [loss_of_trained(run, best, arguments.train_folds) for best in ("probe-best", "finetune-best")]
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    phases = [[row for row in rows if row["epoch"] == epoch] for epoch in ("0", "1")]
    cells = [cell for phase in phases for cell in (loss_of(phase), f"{auroc_of(phase):.3f}")]
    millions = sum(parameter.numel() for parameter in meta_backbone(name).parameters()) / 1e6
    steps = sum(bool(row["train/loss"]) for row in phases[1])
    cells.append(" > ".join(f"{loss:.4g}" for loss in trained))
    print(LINE.format(name, f"{millions:.1f}", steps, *cells, str(fitted == again), f"{seconds:.0f}"), flush=True)


def begun_run(name: str, store: Path, folder: Path, folds: str) -> Path:
    """The same network and seed behind one step of a probe at rate 0: what the phases begin with."""
    run = folder / f"{name}-begun"
    command("fit", "--config", f"backbone/{name}", "--config", "recipe/linear_probe", "--data.store", str(store),
            "--data.task", TASK, "--data.batch_size", "2", "--run", str(run), "--post_training.probe.epochs", "1",
            "--post_training.probe.learning_rate", "0", "--trainer.limit_train_batches", "1",
            "--data.train_folds", folds)  # fmt: skip
    return run


def loss_of_trained(run: Path, best: str, folds: str, ended: bool = False) -> float:
    """Mean loss of the training records with the best checkpoint of a phase of one epoch; ``ended``: it is the last."""
    checkpoint = run / "checkpoints" / f"{best}.ckpt"
    command("test", "--run", str(run), "--checkpoint", str(checkpoint), "--data.train_folds", "[10]",
            "--data.val_folds", "[9]", "--data.test_folds", folds, "--even_seen")  # fmt: skip
    name = "test" if ended or best == "finetune-best" else f"test-{best}"
    return float(json.loads((run / f"metrics_{name}.json").read_text())["loss"])


def store_for(name: str, sources: list[Path], folder: Path) -> Path:
    """A store that the backbone can read; one for all that store the same."""
    signal = backbone_signal(name)
    stored = f"{signal.record_rate:g} {chain_to_json(signal.stored_chain)} {','.join(signal.leads)}"
    path = folder / f"{abs(hash(stored))}.h5"
    if not path.exists():
        records = "records100" if signal.record_rate == 100 else "records500"
        source = next(source for source in sources if (source / records).is_dir())
        command("prepare", "--source", str(source), "--output", str(path), "--backbone", name)
    return path


def command(*arguments: str) -> None:
    """Runs ``ecg-lightning``; its words are shown only when it fails."""
    done = subprocess.run([sys.executable, "-m", "ecg_lightning", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ecg-lightning {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def loss_of(phase: list[dict[str, str]]) -> str:
    """Mean training loss over the first and over the last quarter of the steps."""
    losses = [float(row["train/loss"]) for row in phase if row["train/loss"]]
    quarter = max(1, len(losses) // 4)
    return f"{mean(losses[:quarter]):.4g} > {mean(losses[-quarter:]):.4g}"


def auroc_of(phase: list[dict[str, str]]) -> float:
    """Of the validation at the phase's end."""
    return [float(row["val/auroc"]) for row in phase if row["val/auroc"]][-1]


if __name__ == "__main__":
    main()

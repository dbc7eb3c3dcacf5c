"""The command `demo`: prepare, fit, test and one picture, each by the command that a user would type."""

import json
import shlex
import time
from pathlib import Path

from ecg_lightning.errors import InputError, UsageError

NO_BENCHMARK = "Figures on these 422 records say nothing about published PTB-XL results."
_FOLDS = "folds 1-7 train, fold 8 validates, fold 9 tests (fold 10, the test fold of published results, is not in it)"


def demo(output: str = "demo_output", probe_epochs: int = 12, fine_tune_epochs: int = 12) -> int:
    """Post-trains a small ViT on 422 real ECGs of PTB-XL that ship with the package, in minutes on a CPU.

    Prepares the store, trains in two phases (a linear probe, then fine-tuning with stochastic depth), tests, and draws
    both phases' curves and three ECGs with their probabilities. Called again, it adds another run beside the first.

    Args:
        output: folder for the records, the store and the runs.
        probe_epochs: epochs of the linear probe, 1 or more.
        fine_tune_epochs: epochs of fine-tuning, 1 or more.
    """
    if probe_epochs < 1 or fine_tune_epochs < 1:
        raise UsageError(
            f"--probe_epochs is {probe_epochs}, --fine_tune_epochs {fine_tune_epochs}: the demo shows both phases, "
            "set 1 or more"
        )
    begin, folder = time.monotonic(), Path(output)
    source, store, run = folder / "ptbxl_excerpt", folder / "ptbxl_excerpt.h5", _new_run(folder)
    _unpack(source)
    epochs = (f"--post_training.probe.epochs={probe_epochs}", f"--post_training.fine_tune.epochs={fine_tune_epochs}")
    for title, arguments in (
        ("Prepare the store", _prepare(source, store)),
        (f"Train in two phases; {_FOLDS}", _fit(store, run, *epochs)),
        ("Test on fold 9", ["test", "--run", str(run)]),
    ):
        if code := _command(title, arguments):
            return code
    _finish(run, store, time.monotonic() - begin)
    return 0


def _new_run(folder: Path) -> Path:
    """The first of run-1, run-2 ... that is not there yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file, the demo writes into a folder: choose another name")
    number = 1
    while (folder / f"run-{number}").exists():
        number += 1
    return folder / f"run-{number}"


def _unpack(source: Path) -> None:
    from ecg_lightning.demo.excerpt import unpack_excerpt

    _say(f"Unpack 422 records of PTB-XL 1.0.3 (CC BY 4.0, {source / 'LICENSE.txt'}) into {source}")
    unpack_excerpt(source)


def _prepare(source: Path, store: Path) -> list[str]:
    arguments = ["prepare", "--source", str(source), "--output", str(store), "--backbone", "vit"]
    return [*arguments, "--overwrite", "true"] if store.exists() else arguments


def _fit(store: Path, run: Path, *flags: str) -> list[str]:
    configs = [part for name in ("data/excerpt", "backbone/vit", "recipe/default") for part in ("--config", name)]
    return ["fit", *configs, "--data.store", str(store), "--data.task", "superdiagnostic", "--run", str(run), *flags]


def _command(title: str, arguments: list[str]) -> int:
    """Runs a command of the package in this process, after showing it."""
    from ecg_lightning.cli import main

    _say(f"{title}\n$ ecg-lightning {shlex.join(arguments)}")
    return main(arguments)


def _finish(run: Path, store: Path, seconds: float) -> None:
    """The picture, and the figures of both phases."""
    from ecg_lightning.phases import Phase
    from ecg_lightning.report.curves import best_epoch, read_epochs
    from ecg_lightning.report.figures import demo_picture

    _say("Draw the picture")
    picture = demo_picture(run, store, note=NO_BENCHMARK)
    epochs = read_epochs(run / "metrics.csv")
    phases: tuple[tuple[Phase, str], ...] = (("probe", "after the probe"), ("fine_tune", "after fine-tuning"))
    lines = []
    for phase, name in phases:
        best = best_epoch(epochs, phase)
        if best is None:
            raise InputError(f"{run / 'metrics.csv'} has no macro AUROC of the phase {phase}: see {run / 'log.txt'}")
        lines.append((f"validation (fold 8), {name}", best.auroc, best.auprc))
    tested = json.loads((run / "metrics_test.json").read_text())
    lines.append(("test (fold 9), final", tested["auroc"], tested["auprc"]))
    print(f"{'':<38}macro AUROC  macro AUPRC")
    for name, auroc, auprc in lines:
        print(f"{name:<38}{auroc:11.4f}  {auprc:11.4f}")
    print(f"{NO_BENCHMARK} The network starts from random weights.")
    print(f"run folder: {run}\npicture:    {picture}\ntook {seconds:.0f} s", flush=True)


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)

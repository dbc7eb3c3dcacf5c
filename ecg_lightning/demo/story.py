"""The command `demo`: prepare, fit the method and the plain way, test, report, by the commands a user would type."""

import json
import shlex
import time
from pathlib import Path

from ecg_lightning.demo.backbone import CARD, SIZES
from ecg_lightning.errors import InputError, UsageError

NO_BENCHMARK = "Figures on these 422 records say nothing about published PTB-XL results."
_FOLDS = "folds 1-7 train, fold 8 validates, fold 9 tests (fold 10, the test fold of published results, is not in it)"
RECIPES = {"method": "default", "plain": "plain_fine_tuning"}
"""What is trained: the two phases, and what they are held against."""


def demo(output: str = "demo_output", probe_epochs: int = 12, fine_tune_epochs: int = 12) -> int:
    """The whole story on 422 real ECGs of PTB-XL that ship with the package, in minutes on a CPU.

    A small ViT, pre-trained on the training folds without labels, is post-trained in two phases (a linear probe, then
    fine-tuning with stochastic depth) and, for comparison, the plain way. Both are tested; a report page compares them,
    and a picture shows both phases' curves and three ECGs with their probabilities. Called again, it adds another
    folder beside the first.

    Args:
        output: folder for the records, the backbone, the store and the runs.
        probe_epochs: epochs of the linear probe, 1 or more.
        fine_tune_epochs: epochs of fine-tuning, 1 or more.
    """
    if probe_epochs < 1 or fine_tune_epochs < 1:
        raise UsageError(
            f"--probe_epochs is {probe_epochs}, --fine_tune_epochs {fine_tune_epochs}: the demo shows both phases, "
            "set 1 or more"
        )
    begin, folder = time.monotonic(), Path(output)
    source, store, runs = folder / "ptbxl_excerpt", folder / "ptbxl_excerpt.h5", _new_folder(folder)
    weights = _unpack(source)
    epochs = {
        "method": (
            f"--post_training.probe.epochs={probe_epochs}",
            f"--post_training.fine_tune.epochs={fine_tune_epochs}",
        ),
        "plain": (f"--post_training.fine_tune.epochs={fine_tune_epochs}",),
    }
    steps = [("Prepare the store", _prepare(source, store))]
    for name, title in (("method", "Train in two phases"), ("plain", "Fine-tune the plain way, for comparison")):
        steps.append((f"{title}; {_FOLDS}", _fit(store, weights, runs / name, RECIPES[name], *epochs[name])))
    steps += [(f"Test on fold 9: {name}", ["test", "--run", str(runs / name)]) for name in RECIPES]
    report = ["report", *(str(runs / name) for name in RECIPES), "--output", str(runs / "report"), "--wrong", "2"]
    for title, arguments in [*steps, ("Compare them on one page", report)]:
        if code := _command(title, arguments):
            return code
    _finish(runs, store, time.monotonic() - begin)
    return 0


def _new_folder(folder: Path) -> Path:
    """The first of run-1, run-2 ... that is not there yet."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file, the demo writes into a folder: choose another name")
    number = 1
    while (folder / f"run-{number}").exists():
        number += 1
    return folder / f"run-{number}"


def _unpack(source: Path) -> Path:
    """The records and the backbone; returns the latter's weights."""
    from ecg_lightning.demo.backbone import copy_backbone
    from ecg_lightning.demo.excerpt import unpack_excerpt

    _say(f"Unpack 422 records of PTB-XL 1.0.3 (CC BY 4.0, {source / 'LICENSE.txt'}) into {source}")
    unpack_excerpt(source)
    weights = copy_backbone(source.parent)
    print(f"and a backbone, pre-trained on folds 1-7 of them without labels ({weights.with_name(CARD)}): {weights}")
    return weights


def _prepare(source: Path, store: Path) -> list[str]:
    arguments = ["prepare", "--source", str(source), "--output", str(store), "--backbone", "vit"]
    return [*arguments, "--overwrite", "true"] if store.exists() else arguments


def _fit(store: Path, weights: Path, run: Path, recipe: str, *flags: str) -> list[str]:
    configs = [part for name in ("data/excerpt", "backbone/vit", f"recipe/{recipe}") for part in ("--config", name)]
    data = ["--data.store", str(store), "--data.task", "superdiagnostic"]
    return ["fit", *configs, *SIZES, "--model.weights", str(weights), *data, "--run", str(run), *flags]


def _command(title: str, arguments: list[str]) -> int:
    """Runs a command of the package in this process, after showing it."""
    from ecg_lightning.cli import main

    _say(f"{title}\n$ ecg-lightning {shlex.join(arguments)}")
    return main(arguments)


def _finish(runs: Path, store: Path, seconds: float) -> None:
    """The picture, and the figures of both runs."""
    from ecg_lightning.report.figures import demo_picture

    _say("Draw the picture")
    picture = demo_picture(runs / "method", store, note=NO_BENCHMARK)
    for line in _table(runs):
        print(line)
    print(f"{NO_BENCHMARK} One seed, some 70 records a fold: a sign, no proof (more folds: benchmarks/RESULTS.md).")
    report = runs / "report" / "report.html"
    print(f"run folders: {runs / 'method'}, {runs / 'plain'}\npicture:     {picture}\nreport:      {report}")
    print(f"took {seconds:.0f} s", flush=True)


def _table(runs: Path) -> list[str]:
    """Macro AUROC and AUPRC of the probe, the method and plain fine-tuning, on both folds."""
    from ecg_lightning.report.curves import best_epoch, read_epochs

    probe = best_epoch(read_epochs(runs / "method" / "metrics.csv"), "probe")
    if probe is None:
        raise InputError(f"{runs / 'method' / 'metrics.csv'} has no macro AUROC of the probe: see log.txt beside it")
    rows = {"linear probe alone": [probe.auroc, probe.auprc]}
    for name, title in (("plain", "plain fine-tuning"), ("method", "probe, then fine-tuning with stochastic depth")):
        judged = [json.loads((runs / name / f"metrics_{split}.json").read_text()) for split in ("val", "test")]
        rows[title] = [one[figure] for one in judged for figure in ("auroc", "auprc")]
    heading = [
        f"{'macro':<46}{'validation (fold 8)':>20}{'test (fold 9)':>20}",
        f"{'':<46}" + f"{'AUROC':>11}{'AUPRC':>9}" * 2,
    ]
    return heading + [
        f"{title:<46}" + "".join(f"{v:{9 + 2 * (i % 2 == 0)}.4f}" for i, v in enumerate(row))
        for title, row in rows.items()
    ]


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)

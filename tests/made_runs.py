"""Run folders as `fit` and `test` leave them, made by hand in a moment: what `report` reads."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from predicted import predicted, validation_of

METHOD = {"probe": {"epochs": 2}, "fine_tune": {"epochs": 2}, "drop_path_rate": 0.3}
PLAIN = {"probe": {"epochs": 0}, "fine_tune": {"epochs": 4}, "drop_path_rate": 0.0}
PROBE = {"probe": {"epochs": 4}, "fine_tune": {"epochs": 0}, "drop_path_rate": 0.3}
HASH = "a1" * 32


def config_of(recipe: dict[str, Any], seed: int, **changes: Any) -> dict[str, Any]:
    """A config as `fit` writes it, as far as it is read; ``changes`` are of its group data, but for ``backbone``."""
    backbone = changes.pop("backbone", "ecg_lightning.backbones.ViT")
    data = {
        **{"store": "gone.h5", "task": "superdiagnostic", "batch_size": 32, "train_fraction": 1.0, "num_workers": 0},
        **{"train_folds": [1, 2, 3, 4, 5, 6, 7, 8], "val_folds": [9], "test_folds": [10]},
        **{"keep": "labelled", "min_likelihood": 0.0},
        **changes,
    }
    return {
        "seed_everything": seed,
        "trainer": {"accelerator": "cpu", "gradient_clip_val": 1.0},
        "model": {"backbone": {"class_path": backbone, "init_args": {"depth": 4}}, "weights": None},
        "data": data,
        "post_training": recipe,
    }


def write_run(
    path: Path,
    recipe: dict[str, Any],
    seed: int = 1,
    *,
    state: str = "complete",
    splits: tuple[str, ...] = ("test", "val"),
    weights: str | None = None,
    pretrained_on: Sequence[dict[str, Any]] = (),
    shift: float = 1.5,
    num_records: int = 60,
    arguments: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run; ``arguments`` go to `predicted`, ``shift`` says how good it is, ``changes`` are of its config."""
    path.mkdir(parents=True)
    config = config_of(recipe, seed, **changes)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    digest = f"{seed:02d}{path.name.encode().hex()}".ljust(64, "0")[:64]
    weights_sha256 = None if weights is None else "b" * 64
    environment = {
        **{"ecg_lightning": "0.1.0", "command": ["ecg-lightning", "fit"], "python": "3.11", "platform": "made up"},
        **{"packages": {"torch": "2.6"}, "devices": ["cpu"], "threads": 1, "store": config["data"]["store"]},
        **{"store_sha256": HASH, "weights": weights, "weights_sha256": weights_sha256},
        "pretrained_on": [*pretrained_on],
    }
    (path / "environment.json").write_text(json.dumps(environment))
    (path / "state.json").write_text(json.dumps({"state": state}))
    _write_metrics(path / "metrics.csv")
    meta = {
        **{"task": config["data"]["task"], "folds": config["data"]["test_folds"], "keep": "labelled"},
        **{"min_likelihood": 0.0, "checkpoint": "finetune-best.ckpt", "checkpoint_sha256": digest},
        **{"store": config["data"]["store"], "store_sha256": HASH},
    }
    test = predicted(num_records, model=seed, shift=shift, **meta, **(arguments or {}))
    test = replace(test, fold=np.full_like(test.fold, config["data"]["test_folds"][0]))
    if "test" in splits:
        test.save(path / "predictions" / "test.npz")
    if "val" in splits:
        validation_of(test, model=seed, shift=shift).save(path / "predictions" / "val.npz")
    return path


def write_experiment(folder: Path, cells: dict[str, dict[str, Any]]) -> Path:
    """``experiment.json`` over runs in ``folder``: name -> values of its axes."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [{"name": name, "values": values} for name, values in cells.items()]
    (folder / "experiment.json").write_text(json.dumps({"runs": runs}))
    return folder


def write_grid_of_runs(folder: Path, seeds: tuple[int, ...] = (1, 2), **changes: Any) -> Path:
    """The method, which is better, plain fine-tuning and the probe, over seeds, as `experiment` leaves them."""
    recipes = {"method": (METHOD, 2.2), "plain": (PLAIN, 1.2), "probe": (PROBE, 0.8)}
    cells = {}
    for name, (recipe, shift) in recipes.items():
        for seed in seeds:
            write_run(folder / f"{name}-seed{seed}", recipe, seed, shift=shift, **changes)
            cells[f"{name}-seed{seed}"] = {"recipe": name, "seed": seed}
    return write_experiment(folder, cells)


def _write_metrics(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "train/loss", "val/auroc", "val/auprc", "val/loss"])
        for epoch in range(4):
            writer.writerow([10 * epoch, epoch, 0.7 - 0.1 * epoch, 0.6 + 0.05 * epoch, 0.4, 0.6 - 0.05 * epoch])

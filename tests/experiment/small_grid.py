"""A grid whose runs take a second, and the command that runs it."""

from pathlib import Path
from typing import Any

import yaml

from ecg_lightning.cli import main

GRID: dict[str, Any] = {
    "configs": ["backbone/vit"],
    "flags": {
        "model.backbone.depth": 1,
        "model.backbone.dim": 6,
        "model.backbone.heads": 3,
        "data.task": "superdiagnostic",
        "data.batch_size": 16,
        "post_training.probe.epochs": 1,
        "post_training.fine_tune.epochs": 1,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": False,
        "trainer.log_every_n_steps": 1,
    },
    "axes": {
        "recipe": {
            "values": {
                "method": {"configs": ["recipe/default"]},
                "plain": {"configs": ["recipe/plain_fine_tuning"]},
            }
        },
        "seed": {"flag": "seed_everything", "values": [1]},
    },
}


def write_grid(folder: Path, **changes: Any) -> Path:
    """The grid with other keys, as a file."""
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}, sort_keys=False))
    return path


def with_flags(**flags: Any) -> dict[str, Any]:
    """The grid's flags and others; ``__`` stands for a dot."""
    return {**GRID["flags"], **{name.replace("__", "."): value for name, value in flags.items()}}


def called(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """Exit code, what was printed, what was said on the error channel."""
    capsys.readouterr()
    code = main(["experiment", *(str(argument) for argument in arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err

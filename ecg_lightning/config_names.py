"""Shipped configs by name (``recipe/default``), and registry names for backbones, before LightningCLI parses them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecg_lightning.backbones import backbone_class, list_backbones
from ecg_lightning.errors import UsageError
from ecg_lightning.yaml_files import read_mapping

_GRIDS = "experiment/"
_LAUNCHED = {"cluster/slurm": "sbatch {}.sbatch", "cluster/skypilot": "sky jobs launch {}.yaml"}
"""Files for launchers, and how to launch them; they start `fit`, and are no part of its config."""
_GROUPS = ("model", "data", "trainer", "post_training", "pretraining")
_LISTS_OF_FOLDS = {f"--data.{split}_folds" for split in ("train", "val", "test")}
_INSTEAD = {
    "--trainer.max_epochs": "is the sum of post_training.probe.epochs and post_training.fine_tune.epochs: set those",
    "--trainer.fast_dev_run": "leaves the phases out; for a quick try set --trainer.limit_train_batches 2 "
    "--post_training.probe.epochs 1 --post_training.fine_tune.epochs 1",
}


def config_folder() -> Path:
    """Where the shipped configs are: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_configs() -> list[str]:
    """Names of all shipped configs of a run, such as ``recipe/default``."""
    return [name for name in _shipped() if not name.startswith(_GRIDS) and name not in _LAUNCHED]


def shipped_grids() -> list[str]:
    """Names of all shipped grids of runs, such as ``experiment/main``."""
    return [name for name in _shipped() if name.startswith(_GRIDS)]


def _shipped() -> list[str]:
    folder = config_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find_config(name: str) -> str:
    """A config's path: the file of that name, or the shipped one.

    Raises:
        UsageError: naming the shipped ones.
    """
    if Path(name).is_file():
        return name
    if (shipped := name.removesuffix(".yaml")) in shipped_configs():
        return str(config_folder() / f"{shipped}.yaml")
    if shipped in shipped_grids():
        raise UsageError(f"--config {name} is a grid of runs: ecg-lightning experiment {shipped} --output FOLDER")
    if (launched := shipped.removesuffix(".sbatch")) in _LAUNCHED:
        command = _LAUNCHED[launched].format(config_folder() / launched)
        raise UsageError(f"--config {name} starts `fit`, it is no config of it; its head says how: {command}")
    raise UsageError(
        f"--config {name} is neither a file nor a shipped config; shipped are {', '.join(shipped_configs())}"
    )


def config_content(path: str) -> dict[str, Any]:
    """What a config says; jsonargparse would take a list in a group's place without a word.

    Raises:
        UsageError: for no YAML, no mapping, a key that stands twice, a group that is none.
    """
    content = read_mapping(Path(path), "a config gives arguments of fit their values", UsageError)
    if wrong := [name for name in _GROUPS if not isinstance(content.get(name, {}), dict)]:
        raise UsageError(f"--config {path}: {', '.join(wrong)} must hold keys, such as data: {{batch_size: 64}}")
    return content


def find_grid(name: str) -> Path:
    """A grid's path: the file of that name, or the shipped one.

    Raises:
        UsageError: naming the shipped ones.
    """
    if Path(name).is_file():
        return Path(name)
    if (shipped := name.removesuffix(".yaml")) in shipped_grids():
        return config_folder() / f"{shipped}.yaml"
    raise UsageError(f"grid {name} is neither a file nor a shipped grid; shipped are {', '.join(shipped_grids())}")


def settled_arguments(arguments: Sequence[str]) -> list[str]:
    """Configs first and in order (a flag before a later config would lose against it), names made paths and classes."""
    configs, flags = [], []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag in _INSTEAD:
            raise UsageError(f"{flag} {_INSTEAD[flag]}")
        if flag in ("--config", "-c"):
            configs += ["--config", find_config(value if equals else next(rest, ""))]
            config_content(configs[-1])
        elif flag == "--model.backbone" and not value and not equals:
            flags += [flag, _class_path(next(rest, ""))]
        elif flag == "--model.backbone":
            flags += [flag, _class_path(value)]
        elif flag in _LISTS_OF_FOLDS:
            flags += [flag, _as_list(value if equals else next(rest, ""))]
        else:
            flags.append(argument)
    return configs + flags


def _as_list(folds: str) -> str:
    """``9`` and ``1,2,3`` mean ``[9]`` and ``[1,2,3]``."""
    return f"[{folds}]" if re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", folds) else folds


def _class_path(name: str) -> str:
    if name not in list_backbones():
        return name  # a class path, a class name or a dict: the parser's own
    kind = backbone_class(name)
    return f"{kind.__module__}.{kind.__qualname__}"

"""From a grid to its runs: every combination of the axes' values, its name, its command line, what it sets."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecg_lightning.backbones.hub import is_on_hub
from ecg_lightning.config_names import config_content, find_config
from ecg_lightning.errors import UsageError, joined
from ecg_lightning.experiment.grid import Grid, Setting, parsed

_PATHS = ("data.store", "model.weights")
"""Flags whose relative paths are made absolute: a grid is gone on with from any folder."""


@dataclass(frozen=True)
class Run:
    """One run of a grid.

    Attributes:
        name: of its folder.
        labels: axis -> label of its value.
        values: axis -> value, as the grid has it.
        arguments: of `fit`, but for ``--run`` and ``--resume``.
        settings: all that its configs and flags set, by dotted names: what makes it this run.
        own: names of those that its axes set: the command line does not change them.
    """

    name: str
    labels: Mapping[str, str]
    values: Mapping[str, Any]
    arguments: tuple[str, ...]
    settings: Mapping[str, Any]
    own: frozenset[str]


@dataclass(frozen=True)
class Settled:
    """Configs and flags of one run, and all that they set, by dotted names."""

    configs: tuple[str, ...]
    flags: Mapping[str, str]
    settings: Mapping[str, Any]


def runs_of(grid: Grid, command_line: Setting) -> list[Run]:
    """The runs of a grid in the order of its axes, the last one fastest.

    Args:
        grid: what to combine.
        command_line: configs and flags that were given for all runs.

    Raises:
        UsageError: when two runs have one name, or a flag of the command line has no effect.
    """
    runs = []
    for labels in itertools.product(*grid.axes.values()):
        chosen = dict(zip(grid.axes, labels, strict=True))
        if any(all(chosen[axis] in those for axis, those in one.items()) for one in grid.exclude):
            continue
        settings = [grid.axes[axis][label] for axis, label in chosen.items()]
        common, of_axes = (
            [_filled(one, chosen) for one in layers] for layers in ((grid.common, command_line), settings)
        )
        settled, own = settle([*common, *of_axes]), frozenset(settle(of_axes).settings)
        values = {axis: one.value for axis, one in zip(chosen, settings, strict=True)}
        runs.append(Run(_name(chosen), chosen, values, _arguments(settled), settled.settings, own))
    if not runs:
        raise UsageError(f"{grid.path}: exclude leaves no run")
    _refuse_same_names(grid, runs)
    _refuse_without_effect(command_line, runs)
    return runs


def settle(layers: Sequence[Setting]) -> Settled:
    """Layers merged in order: `fit` reads its flags behind all configs, so a flag that a later config sets is left out.

    Raises:
        UsageError: when a flag sets a whole group of which a later config sets a part.
    """
    configs: list[str] = []
    flags: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for layer in layers:
        for config in layer.configs:
            content = _flat(_content(config))
            _refuse_groups(flags, content, config)
            configs.append(_lasting(config))
            flags = {flag: text for flag, text in flags.items() if _plain(flag) not in content}
            settings |= content
        for flag, value in layer.flags.items():
            flags[flag] = _text(flag, value)
            settings[_plain(flag)] = parsed(flags[flag])
    return Settled(tuple(configs), flags, settings)


def overridden(command_line: Setting, runs: Sequence[Run]) -> dict[str, list[str]]:
    """Flags of the command line that some runs set themselves -> the names of these runs."""
    found = {flag: [run.name for run in runs if _plain(flag) in run.own] for flag in command_line.flags}
    return {flag: names for flag, names in found.items() if names}


def _arguments(settled: Settled) -> tuple[str, ...]:
    """A class comes before its arguments, whichever layer named it."""
    flags = sorted(settled.flags, key=lambda flag: flag.count("."))
    configs = [part for config in settled.configs for part in ("--config", config)]
    return (*configs, *(f"--{flag}={settled.flags[flag]}" for flag in flags))


def _filled(setting: Setting, labels: Mapping[str, str]) -> Setting:
    """``{fold}`` in a flag's text becomes the label of the axis."""
    flags = dict(setting.flags)
    for flag, value in flags.items():
        if isinstance(value, str):
            for axis, label in labels.items():
                value = value.replace(f"{{{axis}}}", label)
            flags[flag] = value
    return replace(setting, flags=flags)


def _text(flag: str, value: Any) -> str:
    """A flag's value on a command line."""
    if flag in _PATHS:
        value = parsed(value) if isinstance(value, str) and value.startswith("[") else value
        value = [_absolute(one) for one in value] if isinstance(value, list) else _absolute(value)
    return value if isinstance(value, str) else json.dumps(value)


def _absolute(path: Any) -> Any:
    is_file = isinstance(path, str) and not is_on_hub(path) and path != "null"
    return str(Path(path).absolute()) if is_file else path


def _lasting(config: str) -> str:
    """A shipped config by its name, a file by its absolute path."""
    return str(Path(config).absolute()) if Path(config).is_file() else config


def _content(config: str) -> Mapping[str, Any]:
    return config_content(find_config(config))


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {_plain(f"{prefix}{key}"): value}
    return flat


def _plain(key: str) -> str:
    """One spelling for a class and its arguments: ``model.backbone`` and ``model.backbone.depth``."""
    return key.removesuffix(".class_path").replace(".init_args.", ".")


def _refuse_groups(flags: Mapping[str, str], content: Mapping[str, Any], config: str) -> None:
    for flag, text in flags.items():
        inside = [key for key in content if key.startswith(f"{_plain(flag)}.")]
        if inside and isinstance(parsed(text), dict):
            raise UsageError(
                f"flag {flag} sets a whole group, of which {config} sets {', '.join(inside)}: set its parts one by "
                f"one, such as --{inside[0]}"
            )


def _name(labels: Mapping[str, str]) -> str:
    """Words as they are, numbers behind their axis: ``method-all-fraction0.3-seed1``."""
    parts = []
    for axis, label in labels.items():
        word = re.sub(r"[^A-Za-z0-9._+=]+", "_", label).strip("_.")
        number = re.fullmatch(r"[-+0-9.]+(e[-+]?\d+)?", label)
        parts.append(f"{axis}{label}" if number else f"{axis}_{word}" if label in ("true", "false", "null") else word)
    return "-".join(parts)


def _refuse_same_names(grid: Grid, runs: Sequence[Run]) -> None:
    names: dict[str, Run] = {}
    problems = []
    for run in runs:
        other = names.setdefault(run.name.lower(), run)  # some file systems tell no capitals apart
        if other is not run:
            problems.append(f"{dict(other.labels)} and {dict(run.labels)} would both be {run.name}")
        if not run.name or run.name.startswith(".") or len(run.name) > 200 or run.name == "logs":
            problems.append(f"{dict(run.labels)} gives {run.name!r}, which is no name for a folder here")
    if problems:
        raise UsageError(f"{grid.path}: {joined(problems)}: give the values other names (axes.NAME.values)")


def _refuse_without_effect(command_line: Setting, runs: Sequence[Run]) -> None:
    """A flag that every run sets itself would be ignored in silence."""
    vain = [flag for flag, names in overridden(command_line, runs).items() if len(names) == len(runs)]
    if vain:
        raise UsageError(
            f"--{', --'.join(vain)} would change nothing, as every run of the grid sets it itself: change the "
            "grid's axis (--axes.NAME.values), or a copy of its file"
        )

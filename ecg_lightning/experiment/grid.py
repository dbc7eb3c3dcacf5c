"""A grid of runs as a YAML file: what is common to all, and the axes along which they differ; read and checked.

```yaml
configs: [backbone/vit]             # as --config of fit, for every run
flags: {data.batch_size: 64}        # flags of fit, for every run
axes:                               # every combination of their values is one run
  recipe:
    values:                         # values by name: each has configs, flags or both
      method: {configs: [recipe/default]}
      uniform: {configs: [recipe/default], flags: {post_training.drop_path_over_depth: uniform}}
  task: {flag: data.task, values: [superdiagnostic, all]}     # the values of one flag
  fold: {folds: [1, 2, 3, 4]}       # each of them tests once, the next one validates, the rest trains
  seed: {flag: seed_everything, values: [1, 2, 3]}
exclude: [{recipe: uniform, task: all}]                        # combinations that are left out
min_train_records: 30               # runs with fewer training records are left out
```

``{fold}`` in a flag's text stands for the run's value of that axis. What an axis sets wins over what is common to all,
and a later axis over an earlier one. On the command line, flags of `fit` are common to all runs, and ``axes``,
``exclude`` and ``min_train_records`` change the grid: ``--axes.task.values [form]``, ``--axes.recipe.values [method]``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ecg_lightning.config_names import find_grid
from ecg_lightning.errors import UsageError, joined
from ecg_lightning.yaml_files import read_mapping

GRID_KEYS = ("configs", "flags", "axes", "exclude", "min_train_records")
OF_THE_GRID = ("axes", "exclude", "min_train_records")
"""Keys that a flag of the command line may set: the other two are the flags of fit themselves."""
OF_THE_COMMAND = {
    "config": "name it under configs",
    "run": "each run has its own folder below --output",
    "resume": "runs are resumed by themselves",
}
_AXIS_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Setting:
    """What is added to a run: configs in order, then flags by their dotted names."""

    configs: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None
    """Of an axis: its value as the grid has it."""


@dataclass(frozen=True)
class Grid:
    """A checked grid.

    Attributes:
        path: the file.
        common: of all runs.
        axes: axis -> value's label -> what it adds.
        exclude: axis -> labels; a run that matches all axes of an entry is left out.
        min_train_records: runs with fewer training records are left out.
    """

    path: Path
    common: Setting
    axes: Mapping[str, Mapping[str, Setting]]
    exclude: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    min_train_records: int = 0


def load_grid(name: str, changes: Sequence[tuple[str, str]] = ()) -> Grid:
    """The grid of that file or shipped name, with changes such as ``("axes.task.values", "[form]")``.

    Raises:
        UsageError: naming every key that breaks a rule, and the rule.
    """
    path = find_grid(name)
    content = read_mapping(path, f"a grid has the keys {', '.join(GRID_KEYS)}", UsageError)
    problems: list[str] = []
    for key, text in changes:
        _change(content, key, parsed(text), problems)
    changed = {key.split(".")[1] for key, _ in changes if key.startswith("axes.")}
    grid = _grid(path, content, changed, problems)
    if problems:
        raise UsageError(f"{path}: {joined(problems)}")
    return grid


def parsed(text: str) -> Any:
    """A flag's text as YAML reads it; itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def label_of(value: Any) -> str:
    """A value in words, as the listing and `exclude` have it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "+".join(label_of(one) for one in value)
    return str(value)


def _change(content: dict[str, Any], key: str, value: Any, problems: list[str]) -> None:
    """Sets one key by its path; behind ``flags``, the rest is one name: a flag has dots of its own."""
    before, flags, name = key.partition(".flags.")
    *parents, last = before.split(".") if not flags else [*before.split("."), "flags", name]
    place = content
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            problems.append(f"--{key}: {parent} holds no keys, it is {place!r}")
            return
    named = place.get(last)
    if last == "values" and isinstance(named, dict) and isinstance(value, list):
        known = {str(one): one for one in named}
        if unknown := [str(one) for one in value if str(one) not in known]:
            problems.append(f"--{key} has {', '.join(unknown)}, the grid's values are {', '.join(known)}")
        value = {known[str(one)]: named[known[str(one)]] for one in value if str(one) in known}
    place[last] = value


def _grid(path: Path, content: Mapping[str, Any], changed: set[str], problems: list[str]) -> Grid:
    _only(content, GRID_KEYS, "", problems)
    axes = content.get("axes")
    if not isinstance(axes, dict) or not axes:
        problems.append(f"axes is {axes!r}, it must name one axis or more")
        axes = {}
    checked = {str(name): _axis(str(name), axis, problems) for name, axis in axes.items()}
    least = content.get("min_train_records", 0)
    if not isinstance(least, int) or isinstance(least, bool) or least < 0:
        problems.append(f"min_train_records is {least!r}, it must be a whole number of 0 or more")
        least = 0
    common = _setting({name: content[name] for name in ("configs", "flags") if name in content}, "", problems)
    return Grid(path, common, checked, _exclude(content.get("exclude"), checked, changed, problems), least)


def _axis(name: str, axis: Any, problems: list[str]) -> Mapping[str, Setting]:
    """The values of an axis by their labels."""
    place = f"axes.{name}"
    if not _AXIS_NAME.fullmatch(name):
        problems.append(f"{place}: an axis is named in small letters, digits and _")
    if not isinstance(axis, dict):
        problems.append(f"{place} is {axis!r}, it must have values, flag and values, or folds")
        return {}
    _only(axis, ("flag", "values", "folds"), f"{place}.", problems)
    if "folds" in axis:
        if "flag" in axis or "values" in axis:
            problems.append(f"{place} has folds, it can have no flag or values")
        return _folds(axis["folds"], f"{place}.folds", problems)
    values = axis.get("values")
    if "flag" in axis:
        return _values_of_flag(axis["flag"], values, place, problems)
    if not isinstance(values, dict) or not values:
        problems.append(f"{place}.values is {values!r}, it must give each value a name and its configs or flags")
        return {}
    return {
        label_of(one): _setting(setting, f"{place}.values.{one}.", problems, value=one)
        for one, setting in values.items()
    }


def _values_of_flag(flag: Any, values: Any, place: str, problems: list[str]) -> Mapping[str, Setting]:
    _setting({"flags": {flag: None}}, f"{place}.flag: ", problems)
    if not isinstance(values, list) or not values:
        problems.append(f"{place}.values is {values!r}, it must be a list of the flag's values")
        return {}
    labels = [label_of(one) for one in values]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        problems.append(f"{place}.values has {', '.join(twice)} twice")
    return {label: Setting(flags={flag: one}, value=one) for label, one in zip(labels, values, strict=True)}


def _folds(folds: Any, place: str, problems: list[str]) -> Mapping[str, Setting]:
    """Cross-validation: each fold tests once, the next one validates, the others train."""
    whole = isinstance(folds, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in folds)
    if not whole or len(set(folds)) != len(folds) or len(folds) < 3:
        problems.append(f"{place} is {folds!r}, it must be a list of three folds or more, each once")
        return {}
    following = dict(zip(folds, [*folds[1:], folds[0]], strict=True))
    return {
        str(test): Setting(
            flags={
                "data.train_folds": [one for one in folds if one not in (test, validation)],
                "data.val_folds": [validation],
                "data.test_folds": [test],
            },
            value=test,
        )
        for test, validation in following.items()
    }


def _setting(content: Any, place: str, problems: list[str], value: Any = None) -> Setting:
    if not isinstance(content, dict):
        problems.append(f"{place.rstrip('.')} is {content!r}, it must have configs, flags or both")
        return Setting()
    _only(content, ("configs", "flags"), place, problems)
    configs, flags = content.get("configs") or [], content.get("flags") or {}
    if not isinstance(configs, list) or not all(isinstance(one, str) for one in configs):
        problems.append(f"{place}configs is {configs!r}, it must be a list of names or files")
        configs = []
    if not isinstance(flags, dict):
        problems.append(f"{place}flags is {flags!r}, it must give flags of fit their values")
        flags = {}
    for name in flags:
        if not isinstance(name, str) or name.startswith("-"):
            problems.append(f"{place}flags has {name!r}, a flag is named without --, such as data.task")
        elif name in OF_THE_COMMAND:
            problems.append(f"{place}flags has {name}, which a grid cannot set: {OF_THE_COMMAND[name]}")
    return Setting(tuple(configs), dict(flags), value)


def _exclude(
    entries: Any, axes: Mapping[str, Mapping[str, Setting]], changed: set[str], problems: list[str]
) -> tuple[Mapping[str, tuple[str, ...]], ...]:
    """Checked against the axes, but for those that the command line changed: it may have taken values out."""
    if not isinstance(entries or [], list):
        problems.append(f"exclude is {entries!r}, it must be a list of axis: value")
        return ()
    checked = []
    for number, entry in enumerate(entries or []):
        place = f"exclude[{number}]"
        if not isinstance(entry, dict) or not entry:
            problems.append(f"{place} is {entry!r}, it must name axes and their values")
            continue
        _only(entry, tuple(axes), f"{place}.", problems)
        wanted = {
            str(axis): tuple(label_of(one) for one in (value if isinstance(value, list) else [value]))
            for axis, value in entry.items()
        }
        for axis in wanted.keys() & axes.keys() - changed:
            if unknown := [label for label in wanted[axis] if label not in axes[axis]]:
                problems.append(f"{place}.{axis} has {', '.join(unknown)}, the axis has {', '.join(axes[axis])}")
        checked.append(wanted)
    return tuple(checked)


def _only(content: Mapping[Any, Any], known: Sequence[str], place: str, problems: list[str]) -> None:
    unknown = [f"{place}{key}" for key in content if key not in known]
    if unknown:
        problems.append(f"{', '.join(unknown)} is no key here, known are {', '.join(known)}")

"""What a report is made from: run folders, alone or as the cells of an experiment; nothing in them is changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecg_lightning.errors import InputError, UsageError, joined
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.runs import BEST, RunFolder
from ecg_lightning.yaml_files import read_mapping

RECORD = "experiment.json"


@dataclass(frozen=True)
class ReadRun:
    """One run folder, as far as it goes.

    Attributes:
        name: of the folder.
        path: of the folder.
        source: name of the experiment that it is a cell of, empty for a run that was named itself.
        values: axis of the experiment -> value.
        state: as the folder says it, ``not started`` where there is none.
        config: of ``config.yaml``.
        environment: of ``environment.json``.
        test: predictions on the test split.
        validation: predictions on the validation split.
        problems: what is missing or damaged, in words.
    """

    name: str
    path: Path
    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    state: str = "not started"
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    test: Predictions | None = None
    validation: Predictions | None = None
    problems: tuple[str, ...] = ()

    def setting(self, name: str, default: Any = None) -> Any:
        """A value of the config by its dotted name."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def metrics(self) -> Path:
        """Its figures by epoch."""
        return self.path / "metrics.csv"


def read_runs(paths: Sequence[str]) -> list[ReadRun]:
    """The runs at ``paths``: run folders, and folders of experiments with all their cells.

    Raises:
        UsageError: for a folder that is neither, or a run that is named twice.
        InputError: for an ``experiment.json`` that cannot be read.
    """
    if neither := [path for path in paths if not (_is_run(Path(path)) or (Path(path) / RECORD).is_file())]:
        raise UsageError(
            f"{joined(neither)}: neither a run (ecg-lightning fit --run) nor an experiment's folder (ecg-lightning "
            "experiment --output): name folders that those commands wrote"
        )
    runs = [run for path in paths for run in _read(Path(path))]
    places = [run.path.resolve() for run in runs]
    if twice := sorted({str(run.path) for run in runs if places.count(run.path.resolve()) > 1}):
        raise UsageError(f"{joined(twice)}: named twice, as itself or through its experiment: name each run once")
    return runs


def _is_run(path: Path) -> bool:
    return (path / "state.json").is_file()


def _read(path: Path) -> list[ReadRun]:
    if not (path / RECORD).is_file():
        return [read_run(path)]
    try:
        cells = json.loads((path / RECORD).read_text(encoding="utf-8"))["runs"]
        return [read_run(path / cell["name"], path.resolve().name, cell["values"]) for cell in cells]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path / RECORD} cannot be read ({error!r}): take it away, then let `ecg-lightning experiment` write it "
            "anew, or name the runs one by one"
        ) from None


def read_run(path: Path, source: str = "", values: Mapping[str, Any] | None = None) -> ReadRun:
    """One run folder; what cannot be read of it stands in ``problems``."""
    folder, problems = RunFolder(path), list[str]()
    if (state := folder.state) is None:
        return ReadRun(path.name, path, source, values or {}, problems=("not started",))
    config = _mapping(folder.config, problems)
    environment = _mapping(folder.environment, problems)
    fine_tunes = _fine_tunes(config)
    test, validation = (
        _of_last_phase(_predictions(folder.predictions / f"{split}.npz", problems), fine_tunes, path, problems)
        for split in ("test", "val")
    )
    if state != "complete":
        problems.insert(0, f"state {state}: {_way_on(path, source)}")
    elif test is None and not (folder.predictions / "test.npz").exists():
        problems.append(f"no test predictions: write them with `ecg-lightning test --run {path}`")
    shown = {"test.npz", "val.npz"}
    if others := sorted(one.name for one in folder.predictions.glob("*.npz") if one.name not in shown):
        problems.append(f"also holds {', '.join(others)}, not shown here: judge it with `ecg-lightning evaluate FILE`")
    return ReadRun(
        path.resolve().name,
        path,
        source,
        values or {},
        state,
        config,
        environment,
        test,
        validation,
        tuple(problems),
    )


def _way_on(path: Path, source: str) -> str:
    """How a run that is not complete is gone on with."""
    if source:
        return (
            f"go on with it by the `ecg-lightning experiment` that wrote {path.parent}, called again with the same "
            f"flags (--runs {path.name} for it alone)"
        )
    return f"go on with it by `ecg-lightning fit --run {path} --resume auto`"


def _fine_tunes(config: Mapping[str, Any]) -> bool:
    try:
        return int(config["post_training"]["fine_tune"]["epochs"]) > 0
    except (KeyError, TypeError, ValueError):
        return False


def _of_last_phase(
    predictions: Predictions | None, fine_tunes: bool, path: Path, problems: list[str]
) -> Predictions | None:
    """The predictions, but for those of a probe whose fine-tuning was still to come: they are not of the recipe."""
    if predictions is None or not fine_tunes or predictions.meta.get("checkpoint") != BEST["probe"]:
        return predictions
    told = f"judged with {BEST['probe']}, before its fine-tuning: ecg-lightning test --run {path} --overwrite"
    if told not in problems:
        problems.append(told)
    return None


def _mapping(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """A YAML or JSON file that holds a mapping; empty, with the problem told, where it does not."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else read_mapping(path, "put back what `fit` wrote")
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds no mapping")
        return {}
    return content


def _predictions(path: Path, problems: list[str]) -> Predictions | None:
    if not path.exists():
        return None
    try:
        return Predictions.load(path)
    except InputError as error:
        problems.append(str(error))
        return None

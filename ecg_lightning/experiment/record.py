"""`experiment.json`: what a folder's grid is, for whoever reads it later; one folder holds one grid, which may grow."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ecg_lightning
from ecg_lightning.errors import InputError, joined
from ecg_lightning.experiment.checks import Facts
from ecg_lightning.experiment.grid import Grid
from ecg_lightning.experiment.plan import Run
from ecg_lightning.runs import NO_DEVICE, write_json

FILE = "experiment.json"
_FREE = ("checkpoint_every", "data.num_workers", "trainer.enable_progress_bar", "trainer.logger", "trainer.devices")
"""What may change between two calls: it says how a run is trained and shown, not what comes out."""


def write_record(
    folder: Path, grid: Grid, runs: Sequence[Run], facts: Mapping[str, Facts], left_out: Mapping[str, str]
) -> None:
    """Writes the grid, or extends the one that is there.

    Args:
        folder: of all runs.
        grid: as it was read.
        runs: all runs that are to be there in the end.
        facts: of each run.
        left_out: name of a run that will not be -> why.

    Raises:
        InputError: when another grid stands there, or its store was changed.
    """
    content = _content(grid, runs, facts, left_out)
    check_record(folder, runs, facts)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        former = check_record(folder, runs, facts)
        if former != content:
            write_json(folder / FILE, content)


def check_record(folder: Path, runs: Sequence[Run], facts: Mapping[str, Facts]) -> dict[str, Any] | None:
    """What stands in the folder, held against the runs that are wanted now; changes nothing.

    Raises:
        InputError: when it is another grid.
    """
    path = folder / FILE
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file, a grid's runs need a folder: choose another name")
    if not path.exists():
        _refuse_foreign(folder)
        return None
    try:
        former: dict[str, Any] = json.loads(path.read_text())
        known = {run["name"]: run for run in former["runs"]}
        problems = _differences(known, runs, facts)
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): take it away, its runs are gone on with") from None
    if problems:
        raise InputError(
            f"{path} holds another grid: {joined(problems, limit=5)}. Choose another --output; a grid may only grow "
            "(--runs PATTERN runs a part of it)"
        )
    return former


def _refuse_foreign(folder: Path) -> None:
    """A folder with something else in it is no place for a grid, but for what an empty one gets at once."""
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in found if name not in (".lock", "logs") and not (folder / name / "state.json").exists()]
    if others:
        raise InputError(f"--output {folder} holds no grid, and is not empty ({', '.join(others[:3])}): choose another")


def _differences(known: Mapping[str, Any], runs: Sequence[Run], facts: Mapping[str, Facts]) -> list[str]:
    now = {run.name: run for run in runs}
    missing = [name for name in known if name not in now]
    problems = [f"{len(missing)} of its runs are not in this one (the first is {missing[0]})"] if missing else []
    for name, former in known.items():
        if name not in now:
            continue
        was, is_now = former["settings"], json.loads(json.dumps(now[name].settings, default=str))
        for key in sorted(was.keys() | is_now.keys()):
            if key.startswith(_FREE) or was.get(key) == is_now.get(key):
                continue
            problems.append(f"{name} has {key} {was.get(key, 'unset')!r} there, {is_now.get(key, 'unset')!r} here")
        if former["store_sha256"] != facts[name].store_sha256:
            problems.append(f"{name} was planned with another content of its store")
    return problems


def _content(
    grid: Grid, runs: Sequence[Run], facts: Mapping[str, Facts], left_out: Mapping[str, str]
) -> dict[str, Any]:
    content = {
        "grid": str(grid.path),
        "axes": {axis: [one.value for one in values.values()] for axis, values in grid.axes.items()},
        "runs": [
            {
                "name": run.name,
                "values": run.values,
                "command": ["ecg-lightning", "fit", *run.arguments, "--run", run.name, "--resume", "auto"],
                "settings": run.settings,
                "train_records": facts[run.name].train_records,
                "store_sha256": facts[run.name].store_sha256,
            }
            for run in runs
        ],
        "left_out": left_out,
        "ecg_lightning": ecg_lightning.__version__,
        "note": NO_DEVICE,
    }
    return json.loads(json.dumps(content, default=str))  # type: ignore[no-any-return]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Jobs of an array start at once, and each writes the same."""
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

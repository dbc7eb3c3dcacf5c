"""Where each run of a grid stands, how long it took, and how long the others may take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecg_lightning.experiment.checks import Facts
from ecg_lightning.experiment.plan import Run
from ecg_lightning.runs import RunFolder, write_json

Standing = Literal["complete", "to test", "to resume", "to do", "in use"]
TIMING = "timing.json"


def standing_of(folder: Path) -> Standing:
    """Where a run stands, by its own folder; a run that was killed says `running`, but nobody holds its lock."""
    run = RunFolder(folder)
    if run.in_use:
        return "in use"
    if run.state is None:
        return "to do"
    if run.state != "complete":
        return "to resume"
    tested = (run.predictions / "test.npz").exists() and (run.path / "metrics_test.json").exists()
    return "complete" if tested else "to test"


def add_seconds(folder: Path, seconds: float) -> None:
    """Adds to the time that a run took, over all calls."""
    if folder.is_dir():
        write_json(folder / TIMING, {"seconds": round((seconds_of(folder) or 0.0) + seconds, 2)})


def seconds_of(folder: Path) -> float | None:
    """Seconds that a run has taken so far, as this command measured them."""
    try:
        return float(json.loads((folder / TIMING).read_text())["seconds"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Estimates:
    """Times of the complete runs of a folder: (backbone, epochs, training records) -> seconds."""

    measured: tuple[tuple[Facts, float], ...]

    @classmethod
    def of(cls, folder: Path, runs: Sequence[Run], facts: Mapping[str, Facts]) -> "Estimates":
        """Those of the runs that are complete."""
        complete = [run.name for run in runs if standing_of(folder / run.name) == "complete"]
        times = [(facts[name], seconds_of(folder / name)) for name in complete]
        return cls(tuple((fact, seconds) for fact, seconds in times if seconds is not None))

    def seconds(self, wanted: Facts) -> float | None:
        """Mean of the runs with its backbone, epochs and records; else of its backbone and epochs, by their records.

        None where no such run is complete.
        """
        alike = [
            (fact, seconds)
            for fact, seconds in self.measured
            if (fact.backbone, fact.epochs) == (wanted.backbone, wanted.epochs)
        ]
        same = [seconds for fact, seconds in alike if fact.train_records == wanted.train_records]
        if same:
            return sum(same) / len(same)
        if not alike:
            return None
        return sum(seconds * wanted.train_records / fact.train_records for fact, seconds in alike) / len(alike)


def in_words(seconds: float | None) -> str:
    """A time to be read: ``41 s``, ``7 min``, ``2.1 h``."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def remaining(folder: Path, runs: Sequence[Run], facts: Mapping[str, Facts], at_once: int) -> str:
    """Time for the runs that are not complete, in words: what is known of it, and how many runs are not."""
    estimates = Estimates.of(folder, runs, facts)
    open_runs = [run for run in runs if standing_of(folder / run.name) != "complete"]
    guesses = [estimates.seconds(facts[run.name]) for run in open_runs]
    known = [guess for guess in guesses if guess is not None]
    unknown = len(guesses) - len(known)
    if not known:
        return "unknown"
    more = f", and {unknown} run(s) of unknown length" if unknown else ""
    return f"about {in_words(sum(known) / min(at_once, len(open_runs)))}{more}"

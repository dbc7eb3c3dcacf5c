"""The command `experiment`: plan, check everything, then run what is not complete."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ecg_lightning.errors import UsageError, joined
from ecg_lightning.experiment.checks import Checks, Facts
from ecg_lightning.experiment.contained import Stops, contained
from ecg_lightning.experiment.grid import OF_THE_COMMAND, OF_THE_GRID, Grid, Setting, load_grid
from ecg_lightning.experiment.plan import Run, overridden, runs_of
from ecg_lightning.experiment.pool import places, run_pool
from ecg_lightning.experiment.progress import Estimates, in_words, remaining, seconds_of, standing_of
from ecg_lightning.experiment.record import check_record, write_record
from ecg_lightning.experiment.scripts import write_script
from ecg_lightning.experiment.single import Outcome, run_apart, run_here
from ecg_lightning.screen import set_up_screen


def experiment(
    grid: str,
    output: str,
    parallel: int = 1,
    on_error: Literal["continue", "stop"] = "continue",
    dry_run: bool = False,
    runs: list[str] | None = None,
    write: str | None = None,
    overwrite: bool = False,
    flags: list[str] | None = None,
) -> int:
    """Trains and tests a grid of runs, one folder each; called again, it goes on: nothing that is complete is repeated.

    Every other flag is one of `fit`, for all runs (--config backbone/vit --data.store STORE), or changes the grid:
    --axes.task.values '[all, form]', --axes.seed.values '[1]', --min_train_records 20.

    Args:
        grid: a file, or a shipped grid such as experiment/main; may be given without the flag.
        output: folder for all runs, and experiment.json, which lists them.
        parallel: runs at once, each in its own process, on its own GPU where there are any.
        on_error: after a run that failed, go on with the others, or start no other.
        dry_run: list the runs, where they stand and how long they may take; change nothing.
        runs: only those, by name, number in the list, or pattern: --runs 'method-*-seed1' 17.
        write: write FILE.yaml, a Weights & Biases sweep, or FILE.sh, a SLURM array, over the same runs; train nothing.
        overwrite: of --write: replace a file that is there.
        flags: all other flags; need not be named.
    """
    set_up_screen()
    changes, common = _divided(flags or [])
    if parallel < 1:
        raise UsageError(f"--parallel is {parallel}, it must be 1 or more")
    plan = _Plan(load_grid(grid, changes), common, Path(output))
    chosen = _chosen(plan.runs, runs)
    if write is not None:
        command = ["ecg-lightning", "experiment", grid, "--output", output, *(flags or [])]
        write_script(Path(write), plan.grid.path, command, chosen, plan.facts, overwrite=overwrite)
        print(f"{write}: {len(chosen)} runs")
        return 0
    if parallel > 1:
        _refuse_several_devices(chosen, plan.facts)
    plan.say()
    if dry_run:
        check_record(plan.folder, plan.runs, plan.facts)
        _list(plan, chosen, parallel)
        return 0
    write_record(plan.folder, plan.grid, plan.runs, plan.facts, plan.left_out)
    return _Session(plan, chosen, parallel, stop=on_error == "stop").execute()


class _Plan:
    """The runs of a grid, checked, and what was left out."""

    def __init__(self, grid: Grid, common: Setting, folder: Path) -> None:
        self.grid, self.common, self.folder = grid, common, folder
        every = runs_of(grid, common)
        with contained(["experiment", str(grid.path)]):
            self.facts: Mapping[str, Facts] = Checks().facts_of(every)
        self.left_out = _too_small(every, self.facts, grid.min_train_records)
        self.runs = [run for run in every if run.name not in self.left_out]
        if not self.runs:
            raise UsageError(f"{grid.path}: min_train_records {grid.min_train_records} leaves no run: set it lower")

    def say(self) -> None:
        """What differs from what a reader of the command line would expect."""
        for flag, names in overridden(self.common, self.runs).items():
            print(f"--{flag} is not for {len(names)} runs that set it themselves (the first is {names[0]})")
        for name, reason in self.left_out.items():
            print(f"left out: {name}: {reason}")


def _too_small(runs: Sequence[Run], facts: Mapping[str, Facts], least: int) -> dict[str, str]:
    """Runs that differ in their seed alone stay or go together: a seed draws patients with more or fewer records."""
    fewest: dict[str, int] = {}
    alike = {}
    for run in runs:
        alike[run.name] = repr(sorted((key, value) for key, value in run.settings.items() if key != "seed_everything"))
        records = facts[run.name].train_records
        fewest[alike[run.name]] = min(records, fewest.get(alike[run.name], records))
    return {
        run.name: f"{fewest[alike[run.name]]} training records with one of the seeds, fewer than {least}"
        for run in runs
        if fewest[alike[run.name]] < least
    }


class _Session:
    """One call's runs: how each ended, and what that makes of the call."""

    def __init__(self, plan: _Plan, runs: Sequence[Run], parallel: int, *, stop: bool) -> None:
        self.plan, self.runs, self.parallel, self.stop = plan, runs, parallel, stop
        self.failed: dict[str, str] = {}
        self.interrupted: list[str] = []
        self.stops = Stops()

    def execute(self) -> int:
        """Runs what is not complete; the exit code."""
        folder = self.plan.folder
        _say_standings(folder, self.runs, self.plan.facts, self.parallel)
        wanted = [run for run in self.runs if standing_of(folder / run.name) not in ("complete", "in use")]
        with self.stops:
            try:
                if self.parallel > 1:
                    run_pool(wanted, folder, places(self.parallel), self.ended)
                else:
                    self._one_after_another(wanted)
            except (KeyboardInterrupt, SystemExit):
                if not self.stops.received:
                    raise
        return self._summary()

    def _one_after_another(self, runs: Sequence[Run]) -> None:
        apart = False
        for run in runs:
            if standing_of(self.plan.folder / run.name) in ("complete", "in use"):
                continue  # another process got there first
            print(f"\n{run.name}", flush=True)
            several = self.plan.facts[run.name].devices > 1
            outcome = (run_apart if apart or several else run_here)(run, self.plan.folder, self.stops)
            apart |= outcome.spoiled
            if not self.ended(run, outcome) or self.stops.received:
                return

    def ended(self, run: Run, outcome: Outcome) -> bool:
        """Tells how a run ended; whether another may start."""
        folder = self.plan.folder
        took = in_words(seconds_of(folder / run.name))
        if not outcome.code:
            left = remaining(folder, self.runs, self.plan.facts, self.parallel)
            number = sum(standing_of(folder / one.name) == "complete" for one in self.runs)
            rest = f"; time left: {left}" if number < len(self.runs) else ""
            print(f"{run.name}: complete in {took} ({number} of {len(self.runs)}){rest}", flush=True)
            return True
        if self.stops.received or outcome.reason == "interrupted":
            self.interrupted.append(run.name)
            print(f"{run.name}: interrupted, behind {took}", flush=True)
            return False
        self.failed[run.name] = outcome.reason
        print(f"{run.name}: failed: {outcome.reason}", flush=True)
        return not self.stop

    def _summary(self) -> int:
        standings = {run.name: standing_of(self.plan.folder / run.name) for run in self.runs}
        missing = [name for name, standing in standings.items() if standing != "complete"]
        if self.stops.received:
            print("\nstopped; the same command goes on", flush=True)
            return self.stops.exit_code
        for name, reason in self.failed.items():
            print(f"failed: {name}: {reason}")
        for name in missing:
            if standings[name] == "in use":
                print(f"left to the process that trains it: {name}")
        complete = f"{len(self.runs) - len(missing)} of {len(self.runs)} runs are complete in {self.plan.folder}"
        print(complete + ("; the same command goes on with the others" if missing else ""), flush=True)
        return 1 if missing or self.failed else 0


def _divided(flags: Sequence[str]) -> tuple[list[tuple[str, str]], Setting]:
    """Changes of the grid, and configs and flags for all runs."""
    changes: list[tuple[str, str]] = []
    configs: list[str] = []
    of_runs: dict[str, str] = {}
    following = iter(flags)
    for argument in following:
        flag, equals, value = argument.partition("=")
        if not equals:
            value = next(following, None) or ""
        name = "config" if flag == "-c" else flag.removeprefix("--")
        if not value:
            raise UsageError(f"{flag} has no value: each flag for all runs has one, such as --data.task all")
        if name == "config":
            configs.append(value)
        elif name.split(".")[0] in OF_THE_GRID:
            changes.append((name, value))
        elif name in OF_THE_COMMAND:
            raise UsageError(f"{flag} cannot be set for all runs: {OF_THE_COMMAND[name]}")
        else:
            of_runs[name] = value
    return changes, Setting(tuple(configs), of_runs)


def _chosen(runs: Sequence[Run], wanted: Sequence[str] | None) -> list[Run]:
    """Runs by name, number or pattern, in the grid's order."""
    if wanted is None:
        return [*runs]
    names: set[str] = set()
    unknown = []
    for one in wanted:
        if one.isdecimal() and int(one) < len(runs):
            names.add(runs[int(one)].name)
        elif found := [run.name for run in runs if fnmatch.fnmatchcase(run.name, one)]:
            names.update(found)
        else:
            unknown.append(one)
    if unknown or not names:
        raise UsageError(
            f"--runs {' '.join(unknown)}: the grid has no such run; it has {joined([run.name for run in runs])}, "
            f"or 0 to {len(runs) - 1}"
        )
    return [run for run in runs if run.name in names]


def _refuse_several_devices(runs: Sequence[Run], facts: Mapping[str, Facts]) -> None:
    """A worker has one GPU; `auto` is one where it sees one."""
    several = [run.name for run in runs if facts[run.name].devices > 1 and _says_devices(run)]
    if several:
        raise UsageError(
            f"--parallel gives each run one device, trainer.devices of {several[0]} asks for "
            f"{facts[several[0]].devices}: leave out --parallel, or set --trainer.devices 1"
        )


def _says_devices(run: Run) -> bool:
    return str(run.settings.get("trainer.devices", "auto")) not in ("auto", "-1")


def _say_standings(folder: Path, runs: Sequence[Run], facts: Mapping[str, Facts], parallel: int) -> None:
    counts = Counter(standing_of(folder / run.name) for run in runs)
    words = ", ".join(f"{number} {standing}" for standing, number in sorted(counts.items()))
    left = "" if set(counts) == {"complete"} else f"; time left: {remaining(folder, runs, facts, parallel)}"
    print(f"{len(runs)} runs in {folder}: {words}{left}", flush=True)


def _list(plan: _Plan, runs: Sequence[Run], parallel: int) -> None:
    """Number, name, standing and time of each run."""
    estimates = Estimates.of(plan.folder, plan.runs, plan.facts)
    numbers = {run.name: number for number, run in enumerate(plan.runs)}
    width = max(len(run.name) for run in runs)
    for run in runs:
        standing = standing_of(plan.folder / run.name)
        known = (
            seconds_of(plan.folder / run.name) if standing == "complete" else estimates.seconds(plan.facts[run.name])
        )
        about = "" if standing == "complete" or known is None else "about "
        records = plan.facts[run.name].train_records
        print(
            f"{numbers[run.name]:4d}  {run.name:<{width}}  {standing:<9}  {records:6d} training records  "
            f"{about}{in_words(known)}"
        )
    _say_standings(plan.folder, runs, plan.facts, parallel)

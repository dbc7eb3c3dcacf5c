"""The same runs by other means: a Weights & Biases sweep, a SLURM array; both call `experiment` for one run each."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.experiment.checks import Facts
from ecg_lightning.experiment.plan import Run
from ecg_lightning.runs import whole_file

_ARRAY = """\
#!/bin/bash
# A SLURM array over the {number} runs of {grid}: sbatch {file}
# Submit it again to go on: what is complete is skipped, what was stopped is resumed. Add what your cluster asks for
# (partition, account, time).
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --signal=B:TERM@120
#SBATCH --output={name}-%A_%a.txt
set -euo pipefail
runs=(
{runs}
)
: "${{SLURM_ARRAY_TASK_ID:?is set by sbatch: sbatch {file}}}"
cd {here}
exec {command} --runs "${{runs[$SLURM_ARRAY_TASK_ID]}}"
"""


def write_script(
    path: Path, grid: Path, command: Sequence[str], runs: Sequence[Run], facts: Mapping[str, Facts], *, overwrite: bool
) -> None:
    """Writes ``path``: a sweep where it ends in .yaml, an array script where it ends in .sh.

    Args:
        path: the file.
        grid: the grid's file.
        command: that runs the grid, without ``--runs``.
        runs: to be run.
        facts: of each run.
        overwrite: replace a file that is there.

    Raises:
        UsageError: for another ending, or a sweep over runs that are not tracked.
        InputError: when the file is there.
    """
    if path.suffix not in (".yaml", ".yml", ".sh"):
        raise UsageError(f"--write {path}: a name in .yaml becomes a Weights & Biases sweep, in .sh a SLURM array")
    if path.exists() and not overwrite:
        raise InputError(f"--write {path} exists: choose another name, or add --overwrite")
    if path.suffix == ".sh":
        text = array_script(path, grid, command, runs)
    elif all(facts[run.name].tracked for run in runs):
        text = sweep(path, grid, command, runs)
    else:
        raise UsageError("a sweep needs runs that report to Weights & Biases: add --config logger/wandb")
    with whole_file(path) as temporary:
        temporary.write_text(text)
    path.chmod(0o755 if path.suffix == ".sh" else 0o644)


def sweep(path: Path, grid: Path, command: Sequence[str], runs: Sequence[Run]) -> str:
    """A sweep whose only parameter is the run's name; agents may run side by side."""
    content = {
        "name": grid.stem,
        "method": "grid",
        "metric": {"name": "val/auroc", "goal": "maximize"},
        "command": [*command, "${args}"],
        "parameters": {"runs": {"values": [run.name for run in runs]}},
    }
    header = f"# A Weights & Biases sweep over the {len(runs)} runs of {grid.name}: wandb sweep {path.name}, then\n"
    header += f"# wandb agent ID on each machine, started in {Path.cwd()}.\n"
    return f"{header}{yaml.safe_dump(content, sort_keys=False, width=1_000)}"


def array_script(path: Path, grid: Path, command: Sequence[str], runs: Sequence[Run]) -> str:
    """One job for each run, by its place in a list of names, so that a later change of the grid moves none."""
    return _ARRAY.format(
        number=len(runs),
        grid=grid.name,
        file=path.name,
        name=f"ecg-{grid.stem}",
        last=len(runs) - 1,
        runs="\n".join(f"  {shlex.quote(run.name)}" for run in runs),
        here=shlex.quote(str(Path.cwd())),
        command=shlex.join(command),
    )

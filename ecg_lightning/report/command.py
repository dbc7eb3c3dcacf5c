"""The command `report`: run folders and experiments in, one page with its figures and tables out."""

from pathlib import Path

from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.evaluation import Options


def report(
    runs: list[str],
    output: str,
    draws: int = 1000,
    seed: int = 0,
    min_positives: int = 20,
    wrong: int = 5,
    overwrite: bool = False,
) -> None:
    """Writes report.html, which stands alone, and every figure (PNG, PDF) and table (CSV, Markdown, LaTeX) beside it.

    Runs that differ in their seed alone are pooled, with intervals over patients; each recipe is held against the plain
    fine-tuning of its backbone, task and fraction. Only files are read: no network is built.

    Args:
        runs: run folders, or folders of experiments, which may be given without the flag.
        output: the folder to write.
        draws: of the bootstrap.
        seed: of draws and permutations.
        min_positives: labels with fewer test positives are left out of a second mean.
        wrong: records with the largest loss that are shown for each task, with their ECGs.
        overwrite: replace a report that is there.
    """
    from ecg_lightning.report.run_files import read_runs
    from ecg_lightning.report.run_report import PAGE, make_report, refuse_existing_report, write_report

    if wrong < 0:
        raise UsageError(f"--wrong is {wrong}, it must be 0 or more")
    options = Options(draws=draws, seed=seed, min_positives=min_positives)
    refuse_existing_report(Path(output), overwrite=overwrite)
    made = make_report(read_runs(runs), options, wrong)
    write_report(made, Path(output), overwrite=overwrite)
    for problem in made.problems:
        print(f"- {problem}")
    figures, tables = (sum(name.endswith(ending) for name in made.files) for ending in (".png", ".csv"))
    print(f"{Path(output) / PAGE}: {figures} figures and {tables} tables, in the page and as files beside it")

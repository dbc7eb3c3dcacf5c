"""Where a run's figures go: `metrics.csv` in the run folder always, Weights & Biases when asked for."""

import csv
import io
import logging
import os
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ecg_lightning.metrics import Scores
from ecg_lightning.whole_files import whole_file

log = logging.getLogger(__name__)
SECONDS_BETWEEN_WRITES = 5.0


class MetricsFile(Logger):
    """One csv row per logged step: ``step``, ``epoch`` and a column per figure, empty where it was not logged.

    A resumed run goes on in the same file, behind the rows that its checkpoint knows; `drop_after` takes out those that
    it will log again where there is none.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = _rows(path.read_text()) if path.exists() else []
        self._dirty, self._written = False, float("-inf")

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """No versions: a run folder is one run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds the figures to the row of ``step``."""
        step = 0 if step is None else step
        if not self.rows or int(self.rows[-1]["step"]) != step:
            self.rows.append({"step": step})
        self.rows[-1].update(metrics)
        self._dirty = True

    @property
    def text(self) -> str:
        """What the file holds, or will hold when it is written."""
        names = sorted({name for row in self.rows for name in row} - {"step", "epoch"})
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    @rank_zero_only
    def go_back_to(self, text: str) -> None:
        """Takes the rows of a checkpoint for those of the file, which may know more; what else differs is said."""
        rows = _rows(text)
        present = {row["step"]: row for row in self.rows}
        unlike = [row for row in rows if not row.items() <= present.get(row["step"], {}).items()]
        if unlike:
            log.warning(
                "%s is not what the checkpoint knows of %d of its %d rows (the first: step %s): they are put back",
                self.path, len(unlike), len(rows), unlike[0]["step"],
            )  # fmt: skip
        self.rows, self._dirty = rows, True

    @rank_zero_only
    def drop_after(self, step: int) -> None:
        """Takes out the rows from ``step`` on."""
        self.rows = [row for row in self.rows if int(row["step"]) < step]
        self._dirty = True

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, unless it was written a moment ago: the trainer asks for it behind every row."""
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Writes the file whole, where a figure is new: a checkpoint must never know more than it."""
        if not self._dirty:
            return
        with whole_file(self.path) as temporary:
            temporary.write_text(self.text)
        self._dirty, self._written = False, time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left."""
        self.write()


class WandbTracker(WandbLogger):
    """Weights & Biases: the complete config once, the phase as a figure, a table per label, one run over all resumes.

    Without a key it runs offline and says so; `wandb sync` uploads it later. What is sent: the config, figures, a table
    of labels, and what Weights & Biases adds itself (the command line, host and user name, versions, load of the
    machine). Never a record, an id or a report; nor what is printed, since a message may name a record.

    Its curve is that of `metrics.csv`: each step once, whole, under its own number. A row is sent when the next one
    begins; a resume sends what is in the file and not yet there. Offline nobody knows what a kill left of the last
    folder, so that a resume writes the whole curve into a new one, and the older ones go to `wandb/superseded`.

    Args:
        project: where the run appears.
        entity: user or team.
        name: of the run; Weights & Biases chooses one where there is none.
        group: runs shown together.
        tags: free words.
        offline: None decides by whether there is a key.
        folder: the run folder (set by the command line).
    """

    def __init__(
        self,
        project: str = "ecg_lightning",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] | None = None,
        offline: bool | None = None,
        folder: str = ".",
    ) -> None:
        import wandb

        if offline is None:
            offline = _has_no_key()
            if offline:
                log.info("no Weights & Biases key: tracking offline in %s/wandb; upload with `wandb sync`", folder)
        # Lightning sets WANDB_MODE, which wandb has read already when it was asked for its key: say it to `wandb.init`
        mode: dict[str, Any] = {"mode": "offline"} if offline else {}
        self._row: dict[str, Any] = {}
        self._row_step: int | None = None
        mode["settings"] = wandb.Settings(console="off")
        super().__init__(
            project=project, entity=entity, name=name, group=group, tags=list(tags or ()), offline=offline,
            save_dir=folder, id=_kept_id(Path(folder)), resume="allow", log_model=False, **mode,
        )  # fmt: skip

    @rank_zero_only
    def go_on(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Sends the rows of `metrics.csv` that Weights & Biases lacks; before anything else of this call is logged."""
        if self._offline and self._experiment is None:
            _set_aside(Path(str(self.save_dir)), self.version)
        start = self.experiment.starting_step
        for row in rows:
            if int(row["step"]) >= start:
                self._send(int(row["step"]), {name: float(value) for name, value in row.items() if name != "step"})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds the figures to the row of ``step``; the row before it is complete then, and sent."""
        if step is None:  # a table behind the last row
            step = self._row_step or 0
        if self._row_step is not None and step != self._row_step:
            self._send(self._row_step, self._row)
            self._row = {}
        self._row_step = step
        self._row.update(metrics)

    def _send(self, step: int, row: Mapping[str, Any]) -> None:
        if step >= self.experiment.starting_step:
            self.experiment.log({**row, "trainer/global_step": step}, step=step)

    @rank_zero_only
    def log_label_table(self, split: str, scores: Scores) -> None:
        """AUROC and AUPRC of each label, and its positives."""
        positives = scores.positives
        self.log_table(
            f"{split}/labels",
            columns=["label", "positives", "auroc", "auprc"],
            data=[[n, positives[n], scores.auroc.get(n), scores.auprc.get(n)] for n in scores.label_names],
        )

    @rank_zero_only
    def close(self, exit_code: int = 0) -> None:
        """Ends the run, which wandb would leave open; a code other than 0 marks it as failed.

        The last row of a run that will be gone on with is left to the resume: it may lack what comes at its step.
        """
        import wandb

        if wandb.run is None:
            return
        if exit_code == 0 and self._row_step is not None:
            self._send(self._row_step, self._row)
        wandb.finish(exit_code=exit_code)


def _rows(text: str) -> list[dict[str, Any]]:
    """Rows of the csv; those from the first on that is not whole are left out."""
    rows: list[dict[str, Any]] = []
    for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        if None in row or None in row.values() or not row.get("step", "").isdigit():
            break
        rows.append({name: value for name, value in row.items() if value})
    return rows


def _set_aside(folder: Path, run_id: str | None) -> None:
    """Moves the offline folders of former calls out of the way of `wandb sync`."""
    for former in sorted((folder / "wandb").glob(f"offline-run-*-{run_id}")):
        target = folder / "wandb" / "superseded" / former.name
        target.parent.mkdir(exist_ok=True)
        former.rename(target)


def _has_no_key() -> bool:
    import wandb

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] == "offline"
    return not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def _kept_id(folder: Path) -> str:
    """One id for a run folder, so that a resumed run is one curve."""
    path = folder / "wandb_run_id"
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return "unused"  # only rank 0 tracks
    if not path.exists() or not path.read_text().strip():
        with whole_file(path) as temporary:
            temporary.write_text(uuid4().hex[:8])
    return path.read_text().strip()

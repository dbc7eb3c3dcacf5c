"""Where a run's figures go: `metrics.csv` in the run folder always, Weights & Biases when asked for."""

import csv
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

from ecg_lightning.errors import InputError
from ecg_lightning.metrics import Scores
from ecg_lightning.runs import whole_file

log = logging.getLogger(__name__)
SECONDS_BETWEEN_WRITES = 5.0


class MetricsFile(Logger):
    """One csv row per logged step: ``step``, ``epoch`` and a column per figure, empty where it was not logged.

    A resumed run goes on in the same file; `drop_after` takes out what the resume will log again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
            if any(not str(row.get("step", "")).isdigit() for row in self.rows):
                raise InputError(f"{path} has rows without a step, so `fit` did not write it: put its own back")
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
        names = sorted({name for row in self.rows for name in row} - {"step", "epoch"})
        with whole_file(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "epoch", *names])
            writer.writeheader()
            writer.writerows(self.rows)
        self._dirty, self._written = False, time.monotonic()

    def write_next(self) -> None:
        """The next `save` writes, however little time has passed."""
        self._written = float("-inf")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left."""
        self.write()


class WandbTracker(WandbLogger):
    """Weights & Biases: the complete config once, the phase as a figure, a table per label, one run over all resumes.

    Without a key it runs offline and says so; `wandb sync` uploads it later. What is sent: the config, figures, a table
    of labels, and what Weights & Biases adds itself (the command line, host and user name, versions, load of the
    machine). Never a record, an id or a report; nor what is printed, since a message may name a record.

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
        mode["settings"] = wandb.Settings(console="off")
        super().__init__(
            project=project, entity=entity, name=name, group=group, tags=list(tags or ()), offline=offline,
            save_dir=folder, id=_kept_id(Path(folder)), resume="allow", log_model=False, **mode,
        )  # fmt: skip

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
        """Ends the run, which wandb would leave open; a code other than 0 marks it as failed."""
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=exit_code)


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

"""What an evaluation holds, and its JSON, which `report` reads; `judging.evaluate` makes it.

Layout of the JSON (`Evaluation.to_json`), ``version`` 1; a figure that is not defined is null:

- ``format`` "ecg_lightning.evaluation", ``version``, ``ecg_lightning`` (package), ``note``
- ``protocol``, ``task``, ``split``, ``num_records``, ``num_patients``, ``draws``, ``seed``, ``interval`` [2.5, 97.5],
  ``min_positives``, ``threshold`` (rule), ``calibration_error`` {num_bins, binning}
- ``files``: per file ``name``, ``meta`` (checkpoint hash, store and more, as in the file), ``macro`` as below without
  intervals, ``thresholds`` {label: value}, ``temperature``
- ``macro``: {task: {"all" | "frequent": {``labels``: [names], FIGURE: {value, low, high, spread}}}}; ``frequent``
  leaves out labels with fewer than ``min_positives`` test positives and is missing where there is no other
- ``labels``: {label: {positives, negatives, unknown, patients_with, patients_without, prevalence, frequent, defined,
  validation: {positives, negatives, unknown} | null, FIGURE: {value, low, high, spread}}}; auroc and auprc have low_t
  and high_t as well
- ``calibration``: null, or {label or "macro": {brier, brier_calibrated, ece, ece_calibrated}}
- ``undefined``: labels without both classes; ``notes``: what was left out, and why
- ``comparison``: null, or as `compare.Comparison.to_json`
- ``identity`` (added by the command): what must be the same for a file to be made anew without --overwrite

FIGURE is auroc, auprc, f1, sensitivity, specificity, brier, ece. Of several files (seeds) ``value`` is the mean,
``spread`` their standard deviation, ``low`` and ``high`` the interval of the mean over patients: it knows nothing of
other seeds.
``low``, ``high``: percentiles; ``low_t``, ``high_t``: `bootstrap.student_interval`, for labels that few patients carry.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import ecg_lightning
from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.bootstrap import FIGURES, PERCENTILES
from ecg_lightning.evaluate.calibration import NUM_BINS, Binning
from ecg_lightning.evaluate.protocols import Group
from ecg_lightning.evaluate.thresholds import parse_rule
from ecg_lightning.runs import NO_DEVICE

ALL_FIGURES = (*FIGURES, "ece")


@dataclass(frozen=True)
class Options:
    """What may be chosen; two evaluations are the same only with the same options."""

    protocol: str | None = None
    draws: int = 1000
    seed: int = 0
    min_positives: int = 20
    threshold: str = "f1"
    calibrate: bool = False
    num_bins: int = NUM_BINS
    binning: Binning = "equal_mass"

    def __post_init__(self) -> None:
        """Refuses what makes no sense.

        Raises:
            UsageError: naming the flag.
        """
        for name, flag, least in (
            ("draws", "draws", 100),
            ("seed", "seed", 0),
            ("min_positives", "min_positives", 0),
            ("num_bins", "bins", 2),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"--{flag} is {getattr(self, name)}, it must be {least} or more")
        parse_rule(self.threshold)


@dataclass(frozen=True)
class Figure:
    """One figure; of several files their mean. NaN where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    spread: float = float("nan")
    """Standard deviation over the files."""
    low_t: float | None = None
    high_t: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """By name; NaN as None; without the t interval where the figure has none by nature."""
        of_t = {} if self.low_t is None else {"low_t": self.low_t, "high_t": self.high_t}
        values = {"value": self.value, "low": self.low, "high": self.high, "spread": self.spread, **of_t}
        return {name: number(value) for name, value in values.items()}


@dataclass(frozen=True)
class Evaluation:
    """Figures of one or more files of one protocol; see the module for its JSON."""

    options: Options
    protocol: str
    task: str
    split: str
    names: tuple[str, ...]
    metas: tuple[dict[str, Any], ...]
    num_records: int
    num_patients: int
    counts: dict[str, dict[str, Any]]
    """Per label: positives, negatives, unknown ... of both splits."""
    labels: dict[str, dict[str, Figure]]
    """Per label and figure."""
    groups: tuple[tuple[Group, dict[str, Figure]], ...]
    """Macro means."""
    per_file: tuple[tuple[dict[str, float], ...], ...]
    """(file, group) macro figures."""
    thresholds: tuple[dict[str, float], ...]
    temperatures: tuple[float, ...] | None
    calibration: dict[str, dict[str, float]] | None
    notes: tuple[str, ...]
    comparison: dict[str, Any] | None = None

    @property
    def undefined(self) -> tuple[str, ...]:
        """Labels without both classes: in no mean."""
        return tuple(name for name, counts in self.counts.items() if not counts["defined"])

    def to_json(self) -> dict[str, Any]:
        """The layout that the module describes."""
        names = [*self.counts]
        macro: dict[str, dict[str, Any]] = {}
        for group, figures in self.groups:
            macro.setdefault(group.task, {})[group.kind] = {
                "labels": [names[column] for column in group.columns],
                **{name: figure.to_json() for name, figure in figures.items()},
            }
        return {
            "format": "ecg_lightning.evaluation",
            "version": 1,
            "ecg_lightning": ecg_lightning.__version__,
            "note": NO_DEVICE,
            **{"protocol": self.protocol, "task": self.task, "split": self.split},
            **{"num_records": self.num_records, "num_patients": self.num_patients},
            **{"draws": self.options.draws, "seed": self.options.seed, "interval": list(PERCENTILES)},
            **{"min_positives": self.options.min_positives, "threshold": self.options.threshold},
            "calibration_error": {"num_bins": self.options.num_bins, "binning": self.options.binning},
            "files": [self._file(place) for place in range(len(self.names))],
            "macro": macro,
            "labels": {
                name: {**counts, **{key: figure.to_json() for key, figure in self.labels[name].items()}}
                for name, counts in self.counts.items()
            },
            "calibration": _numbers(self.calibration),
            "undefined": list(self.undefined),
            "notes": list(self.notes),
            "comparison": self.comparison,
        }

    def _file(self, place: int) -> dict[str, Any]:
        macro: dict[str, dict[str, Any]] = {}
        for (group, _), figures in zip(self.groups, self.per_file[place], strict=True):
            macro.setdefault(group.task, {})[group.kind] = _numbers(figures)
        thresholds = self.thresholds[place] if self.thresholds else None
        return {
            "name": self.names[place],
            "meta": self.metas[place],
            "macro": macro,
            "thresholds": _numbers(thresholds),
            "temperature": None if self.temperatures is None else self.temperatures[place],
        }


def number(value: float | None) -> float | None:
    """A number for JSON, which knows no NaN."""
    return None if value is None or np.isnan(value) else float(value)


def _numbers(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _numbers(value) for name, value in values.items()}
    return number(values) if isinstance(values, float) else values

"""From files of predictions to figures with their intervals."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.alignment import aligned, check_validation
from ecg_lightning.evaluate.bootstrap import Judge, bootstrap, interval, student_interval
from ecg_lightning.evaluate.calibration import calibrated, calibration_error, fit_temperature
from ecg_lightning.evaluate.evaluation import ALL_FIGURES, Evaluation, Figure, Options
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.evaluate.protocols import Group, label_groups, protocol_of
from ecg_lightning.evaluate.thresholds import choose_thresholds, parse_rule

Array = NDArray[np.float64]


def evaluate(
    predictions: Predictions | Sequence[Predictions],
    validation: Predictions | Sequence[Predictions] | None = None,
    options: Options | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Judges one file, or several of the same records (seeds of one recipe), with intervals.

    Args:
        predictions: what is judged.
        validation: of the same models, one per file or none: thresholds and temperatures are chosen on it.
        options: draws, seed, rule of the thresholds and so on.
        names: of the files, for messages.

    Raises:
        InputError: for files that do not belong together, or without any label of both classes.
        UsageError: for ``calibrate`` without validation.
    """
    options = options or Options()
    files = [predictions] if isinstance(predictions, Predictions) else [*predictions]
    valid = [validation] if isinstance(validation, Predictions) else [*(validation or [])]
    names = tuple(names or (f"file {place}" for place in range(1, len(files) + 1)))
    files, protocol = same_files(files, names, options.protocol)
    valid = _validations(files, valid, names, options)
    rule = parse_rule(options.threshold)
    cuts = [choose_thresholds(one.probabilities, one.labels, rule) for one in valid]
    judges = [
        Judge(one.probabilities, one.labels, cut)
        for one, cut in zip(files, cuts or repeat(None, len(files)), strict=True)
    ]
    first = files[0]
    counts = _counts(first, valid[0] if valid else None, options.min_positives)
    defined = judges[0].defined
    if not defined.any():
        raise InputError(f"{names[0]}: no label has both classes among its {len(first.record_id)} records")
    frequent = np.array([one["frequent"] for one in counts.values()])
    task = str(first.meta.get("task", "labels"))
    groups = label_groups(first.label_names, task, protocol, defined, frequent)
    point = _points(judges, files, options)
    drawn = bootstrap(judges, first.patient_id, draws=options.draws, seed=options.seed)
    temperatures = tuple(fit_temperature(one.probabilities, one.labels) for one in valid) if options.calibrate else None
    return Evaluation(
        options=options,
        protocol=protocol,
        task=task,
        split=str(first.meta.get("split", "test")),
        names=names,
        metas=tuple(one.meta for one in files),
        num_records=len(first.record_id),
        num_patients=len(np.unique(first.patient_id)),
        counts=counts,
        labels={
            name: _label_figures(column, point, drawn, counts[name]) for column, name in enumerate(first.label_names)
        },
        groups=tuple((group, _group_figures(group, point, drawn)) for group in groups),
        per_file=tuple(_macro_of_file(groups, point, place) for place in range(len(files))),
        thresholds=tuple(dict(zip(first.label_names, cut.tolist(), strict=True)) for cut in cuts),
        temperatures=temperatures,
        calibration=None if temperatures is None else _calibration(files, temperatures, point, defined, options),
        notes=_notes(first, bool(valid), cuts, defined),
    )


def same_files(files: Sequence[Predictions], names: Sequence[str], asked: str | None) -> tuple[list[Predictions], str]:
    """Files of the same records and labels, in the order of the first, and their one protocol.

    Raises:
        InputError: where they differ, with both sides.
    """
    protocols = [protocol_of(one, asked, name) for one, name in zip(files, names, strict=True)]
    for name, protocol in zip(names, protocols, strict=True):
        if protocol != protocols[0]:
            raise InputError(
                f"{names[0]} is of protocol {protocols[0]}, {name} of {protocol}: they never stand in one table"
            )
    rest = [aligned(files[0], one, (names[0], name)) for one, name in zip(files[1:], names[1:], strict=True)]
    return [files[0], *rest], protocols[0]


def _validations(
    files: Sequence[Predictions], valid: Sequence[Predictions], names: Sequence[str], options: Options
) -> list[Predictions]:
    if not valid:
        if options.calibrate:
            raise UsageError(
                "--calibrate chooses a temperature on validation, of which there is none: add --validation FILE"
            )
        return []
    if len(valid) != len(files):
        raise UsageError(f"--validation names {len(valid)} file(s) for {len(files)}: give one for each, in their order")
    return [
        check_validation(one, its, (name, f"the validation of {name}"))
        for one, its, name in zip(files, valid, names, strict=True)
    ]


def _points(judges: Sequence[Judge], files: Sequence[Predictions], options: Options) -> dict[str, Array]:
    """Each figure (file, label), every record counted once; NaN for labels without both classes."""
    parts = [judge.point() for judge in judges]
    for part, one in zip(parts, files, strict=True):
        part["ece"] = _ece(one.probabilities, one.labels, options)
    point = {name: np.stack([part[name] for part in parts]) for name in ALL_FIGURES}
    for values in point.values():
        values[:, ~judges[0].defined] = np.nan
    return point


def _counts(test: Predictions, validation: Predictions | None, min_positives: int) -> dict[str, dict[str, Any]]:
    """Per label how many records of both splits carry it, lack it, or are unknown."""

    def numbers(labels: NDArray[np.uint8]) -> dict[str, int]:
        return {
            "positives": int((labels == 1).sum()),
            "negatives": int((labels == 0).sum()),
            "unknown": int((labels > 1).sum()),
        }

    counts: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(test.label_names):
        labels = test.labels[:, column]
        own = numbers(labels)
        known = own["positives"] + own["negatives"]
        counts[name] = {
            **own,
            "patients_with": len(np.unique(test.patient_id[labels == 1])),
            "patients_without": len(np.unique(test.patient_id[labels == 0])),
            "prevalence": own["positives"] / known if known else None,
            "frequent": own["positives"] >= min_positives,
            "defined": own["positives"] > 0 and own["negatives"] > 0,
            "validation": None if validation is None else numbers(validation.labels[:, column]),
        }
    return counts


def _label_figures(
    column: int, point: dict[str, Array], drawn: dict[str, Array], counts: dict[str, Any]
) -> dict[str, Figure]:
    figures = {}
    for name in ALL_FIGURES:
        values = point[name][:, column]
        draws = drawn[name][:, column].mean(axis=0) if name in drawn else None
        figure = figure_of(values, draws)
        if name in ("auroc", "auprc") and draws is not None:
            rarer = min(counts["patients_with"], counts["patients_without"])
            resolution = 0.5 / max(counts["positives"] * counts["negatives"], 1)
            low, high = student_interval(figure.value, draws, rarer, resolution)
            figure = Figure(figure.value, figure.low, figure.high, figure.spread, low, high)
        figures[name] = figure
    return figures


def _group_figures(group: Group, point: dict[str, Array], drawn: dict[str, Array]) -> dict[str, Figure]:
    """Means over the labels of the group that have the figure: a threshold may be missing for some."""
    figures = {}
    for name in ALL_FIGURES:
        columns = group.columns[~np.isnan(point[name][:, group.columns]).any(axis=0)]
        if not len(columns):
            figures[name] = Figure(float("nan"))
            continue
        draws = drawn[name][:, columns].mean(axis=(0, 1)) if name in drawn else None
        figures[name] = figure_of(point[name][:, columns].mean(axis=1), draws)
    return figures


def _macro_of_file(groups: Sequence[Group], point: dict[str, Array], place: int) -> tuple[dict[str, float], ...]:
    return tuple({name: _mean(point[name][place, group.columns]) for name in ALL_FIGURES} for group in groups)


def figure_of(values: Array, draws: Array | None) -> Figure:
    """A figure from ``values`` (file,), and ``draws`` (draw,) of their mean."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    low, high = (float("nan"), float("nan")) if draws is None or np.isnan(values).any() else interval(draws)
    return Figure(float(values.mean()), low, high, spread)


def _mean(values: Array) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _ece(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.uint8], options: Options) -> Array:
    return calibration_error(probabilities, labels, num_bins=options.num_bins, binning=options.binning)


def _calibration(
    files: Sequence[Predictions],
    temperatures: Sequence[float],
    point: dict[str, Array],
    defined: NDArray[np.bool_],
    options: Options,
) -> dict[str, dict[str, float]]:
    """Brier score and calibration error per label and in the mean, before and after, means over the files."""
    scaled = [calibrated(one.probabilities, t) for one, t in zip(files, temperatures, strict=True)]
    after = [Judge(p, one.labels).point()["brier"] for p, one in zip(scaled, files, strict=True)]
    columns = {
        "brier": point["brier"].mean(axis=0),
        "brier_calibrated": np.mean(after, axis=0),
        "ece": point["ece"].mean(axis=0),
        "ece_calibrated": np.mean([_ece(p, one.labels, options) for p, one in zip(scaled, files, strict=True)], axis=0),
    }
    names = [name for name, has in zip(files[0].label_names, defined, strict=True) if has]
    kept = {key: values[defined] for key, values in columns.items()}
    per_label = {name: {key: float(values[place]) for key, values in kept.items()} for place, name in enumerate(names)}
    return {**per_label, "macro": {key: float(values.mean()) for key, values in kept.items()}}


def _notes(
    first: Predictions, has_validation: bool, cuts: Sequence[Array], defined: NDArray[np.bool_]
) -> tuple[str, ...]:
    """What was left out, and why."""
    notes = []
    if not defined.all():
        missing = [name for name, has in zip(first.label_names, defined, strict=True) if not has]
        notes.append(f"without both classes, so in no mean: {', '.join(missing)}")
    if not has_validation:
        notes.append(
            "no F1, sensitivity or specificity: their thresholds are chosen on validation, never on the split that is "
            "judged; add --validation FILE"
        )
    unset = np.isnan(cuts).any(axis=0) & defined if len(cuts) else np.zeros_like(defined)
    if without := [first.label_names[column] for column in np.flatnonzero(unset)]:
        notes.append(f"without both classes on validation, so without threshold, F1, ...: {', '.join(without)}")
    return tuple(notes)

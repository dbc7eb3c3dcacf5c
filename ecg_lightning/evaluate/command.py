"""The command `evaluate`: files in, a table and a JSON out."""

import json as json_module
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.alignment import aligned
from ecg_lightning.evaluate.averaging import averaged
from ecg_lightning.evaluate.compare import Comparison, compare
from ecg_lightning.evaluate.evaluation import Evaluation, Options
from ecg_lightning.evaluate.inputs import Given, read_given
from ecg_lightning.evaluate.judging import evaluate as judge
from ecg_lightning.evaluate.judging import same_files
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.runs import refuse_unwritable, write_json

_OF_FILE = ("checkpoint_sha256", "store_sha256", "task", "folds", "keep", "min_likelihood")
"""What makes two files of predictions the same, wherever they lie."""


def evaluate(
    predictions: list[str],
    validation: list[str] | None = None,
    against: list[str] | None = None,
    average: bool = False,
    draws: int = 1000,
    permutations: int | None = None,
    seed: int = 0,
    min_positives: int = 20,
    protocol: Literal["per_task", "all71_slices"] | None = None,
    threshold: str = "f1",
    calibrate: bool = False,
    bins: int = 15,
    binning: Literal["equal_mass", "equal_width"] = "equal_mass",
    labels: bool = False,
    output: str | None = None,
    json: bool = False,
    overwrite: bool = False,
) -> None:
    """Judges predictions: macro and per label, with 95 % intervals over patients; compares two models.

    Args:
        predictions: runs, or files of predictions (npz, csv), which may be given without the flag; several are seeds of
            one recipe: figures of each, their mean and spread. A csv has the columns record_id, patient_id, and for
            each label p:LABEL (probability) and y:LABEL (0, 1, empty where unknown).
        validation: predictions of the same models on validation, one file each, for thresholds and temperature; of a
            run its own, if left out.
        against: runs or files of another model on the same records, as many: paired bootstrap and permutation test.
        average: judge the mean of the seeds' probabilities as one model, and that of --against.
        draws: of the bootstrap.
        permutations: of the test; 1,000, or 40 a label where that is more, if left out.
        seed: of draws and permutations.
        min_positives: labels with fewer test positives are marked; macro figures are given with and without them.
        protocol: per_task (one model a task), or all71_slices: diagnostic, form and rhythm read off a model of all 71.
        threshold: how thresholds are chosen on validation: f1, youden, or sensitivity=0.9 (of the label, at least).
        calibrate: choose one temperature on validation, and tell what it does.
        bins: of the calibration error.
        binning: equal_mass or equal_width.
        labels: print a row per label.
        output: the JSON to write; of one run RUN/evaluation_test.json if left out, beside thresholds.json and, with
            calibrate, calibration.json.
        json: print the JSON in place of tables.
        overwrite: replace results of something else.
    """
    options = Options(protocol, draws, seed, min_positives, threshold, calibrate, bins, binning)
    if permutations is not None and permutations < 100:
        raise UsageError(f"--permutations is {permutations}, it must be 100 or more")
    given = read_given(predictions, validation)
    other = read_given(against) if against is not None else []
    _refuse_partly_validated(given)
    if average:
        given = [averaged(given, "--predictions")]
        other = [averaged(other, "--against")] if other else []
    valid = [one.validation for one in given if one.validation is not None]
    names = [one.name for one in given]
    evaluation = judge([one.predictions for one in given], valid, options, names=names)
    notes = tuple(one.note for one in (*given, *other) if one.note)
    comparison = _compare(evaluation, given, other, permutations) if other else None
    evaluation = replace(
        evaluation,
        notes=notes + evaluation.notes,
        comparison=None if comparison is None else comparison.to_json(),
    )
    content = {**evaluation.to_json(), "identity": _identity(evaluation, given, other)}
    files = _files(given, evaluation, content, output)
    _refuse_other(files, overwrite)
    for path, written in files.items():
        write_json(path, written)
    _tell(evaluation, comparison, content, list(files), labels=labels, json=json)


def _refuse_partly_validated(given: list[Given]) -> None:
    without = [one.name for one in given if one.validation is None]
    if without and len(without) < len(given):
        raise InputError(
            f"no validation for {', '.join(without)}, but for others: write it with `ecg-lightning validate --run RUN`"
        )


def _compare(evaluation: Evaluation, given: list[Given], other: list[Given], permutations: int | None) -> Comparison:
    names = [one.name for one in given], [one.name for one in other]
    asked = evaluation.options.protocol
    first, protocol = same_files([one.predictions for one in given], names[0], asked)
    second, its_protocol = same_files([one.predictions for one in other], names[1], asked)
    if protocol != its_protocol:
        raise InputError(
            f"{names[0][0]} is of protocol {protocol}, {names[1][0]} of {its_protocol}: they are never compared"
        )
    second = [aligned(first[0], one, (names[0][0], name)) for one, name in zip(second, names[1], strict=True)]
    options = evaluation.options
    return compare(
        first,
        second,
        [group for group, _ in evaluation.groups],
        names=names,
        draws=options.draws,
        permutations=permutations,
        seed=options.seed,
    )


def _identity(evaluation: Evaluation, given: list[Given], other: list[Given]) -> dict[str, Any]:
    """What makes two evaluations the same."""
    options = {name: value for name, value in asdict(evaluation.options).items() if name != "protocol"}
    files = [
        *(one.predictions for one in given),
        *(one.validation for one in given),
        *(one.predictions for one in other),
    ]
    return {
        "protocol": evaluation.protocol,
        "split": evaluation.split,
        **options,
        "permutations": None if evaluation.comparison is None else evaluation.comparison["permutations"],
        "files": [_origin(file, _OF_FILE) for file in files if file is not None],
    }


def _origin(file: Predictions, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: file.meta.get(name) for name in names}


def _files(
    given: list[Given], evaluation: Evaluation, content: dict[str, Any], output: str | None
) -> dict[Path, dict[str, Any]]:
    """What to write, by path: the JSON; of one run what was chosen on its validation as well."""
    run = given[0].run if len(given) == 1 else None
    files: dict[Path, dict[str, Any]] = {}
    if output is not None:
        files[Path(output)] = content
    elif run is not None:
        kind = "evaluation" if evaluation.comparison is None else "comparison"
        files[run / f"{kind}_{evaluation.split}.json"] = content
    if run is None or not evaluation.thresholds:
        return files
    assert given[0].validation is not None
    origin = {
        **_origin(given[0].predictions, ("task", "checkpoint", "checkpoint_sha256")),
        "validation": _origin(given[0].validation, ("folds", "store_sha256")),
    }
    identity = {**origin, "rule": evaluation.options.threshold}
    chosen = content["files"][0]
    files[run / "thresholds.json"] = {
        **identity,
        "of": "probabilities as the network gives them, before calibration",
        "thresholds": chosen["thresholds"],
        "identity": identity,
    }
    if evaluation.temperatures is not None:
        files[run / "calibration.json"] = {**origin, "temperature": chosen["temperature"], "identity": origin}
    return files


def _refuse_other(files: dict[Path, dict[str, Any]], overwrite: bool) -> None:
    """Before anything is written: a file of the same identity is made anew, another one is not touched unasked.

    Raises:
        InputError: naming what differs.
    """
    for path, content in files.items():
        refuse_unwritable(path)
        if overwrite or not path.exists():
            continue
        try:
            former = json_module.loads(path.read_text())["identity"]
        except (ValueError, KeyError, TypeError):
            former = {}
        identity = content["identity"]
        differing = [name for name in identity if not isinstance(former, dict) or former.get(name) != identity[name]]
        if differing:
            raise InputError(
                f"{path} holds results with another {', '.join(differing)}: add --overwrite to replace it, or name "
                "another file with --output"
            )


def _tell(
    evaluation: Evaluation,
    comparison: Comparison | None,
    content: dict[str, Any],
    written: list[Path],
    *,
    labels: bool,
    json: bool,
) -> None:
    if json:
        print(json_module.dumps(content, indent=1))
        return
    from ecg_lightning.evaluate.tables import print_comparison, print_evaluation

    print_evaluation(evaluation, labels=labels)
    if comparison is not None:
        print_comparison(comparison, evaluation.options.min_positives, labels=labels)
    for path in written:
        print(f"written: {path}")
    if not written:
        print("nothing written: name a file with --output FILE.json")

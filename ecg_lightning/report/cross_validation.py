"""Which runs that are alike but for their folds are one cross-validation, and which stand alone."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

from ecg_lightning.report.run_files import ReadRun

FOLDS = ("data.train_folds", "data.val_folds", "data.test_folds")


def parts_by_folds(cell: Sequence[ReadRun]) -> list[list[ReadRun]]:
    """An experiment's runs over an axis `fold` are one cross-validation; else every set of folds stands alone.

    The same cross-validation in two experiments is one part, its runs repeat one another: the same but for their seeds,
    the weights that each fold starts from included.
    """
    over_folds: dict[Hashable, list[ReadRun]] = defaultdict(list)
    for run in cell:
        over_folds[_of_one_experiment(run)].append(run)
    parts: dict[Hashable, list[ReadRun]] = defaultdict(list)
    for run in cell:
        others = over_folds[_of_one_experiment(run)]
        pooled = "fold" in run.values and _is_cross_validation(others)
        starts = frozenset(start_of(one) for one in (others if pooled else [run]))
        parts[starts, _of_one_experiment(run)[1:]].append(run)
    return [*parts.values()]


def _of_one_experiment(run: ReadRun) -> tuple[str, ...]:
    """Its experiment and, where that has an axis `fold`, its place on the axes that are neither seed nor fold.

    These part runs that are alike in setting and recipe because weights may be any by fold.
    """
    own = [f"{axis}={value}" for axis, value in sorted(run.values.items()) if axis not in ("seed", "fold")]
    return run.source, *(own if "fold" in run.values else [])


def folds_of(run: ReadRun) -> tuple[str, ...]:
    """What it trains on, validates on and tests on."""
    return tuple(str(run.setting(name)) for name in FOLDS)


def start_of(run: ReadRun) -> tuple[tuple[str, ...], object]:
    """Its folds, and the weights that it starts from."""
    return folds_of(run), run.environment.get("weights_sha256")


def _is_cross_validation(runs: Sequence[ReadRun]) -> bool:
    """Whether each trains on other folds and tests on others, no fold being tested by two."""
    by_folds = {folds_of(run): run for run in runs}.values()
    tested = [fold for run in by_folds for fold in run.setting("data.test_folds", [])]
    trained = {str(run.setting("data.train_folds")) for run in by_folds}
    return len(tested) == len(set(tested)) and min(len(trained), len(by_folds)) > 1

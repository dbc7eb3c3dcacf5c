"""What `evaluate` is given: files of predictions, or run folders that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ecg_lightning.errors import UsageError
from ecg_lightning.evaluate.predictions import Predictions


@dataclass(frozen=True)
class Given:
    """One file that is judged."""

    name: str
    """As it was given."""
    path: Path
    predictions: Predictions
    validation: Predictions | None
    run: Path | None
    """The run folder, where one was given."""
    note: str = ""


def read_given(paths: Sequence[str], validation: Sequence[str] | None = None) -> list[Given]:
    """Reads files and runs; of a run ``predictions/test.npz``, with ``val.npz`` as its validation.

    Args:
        paths: files or run folders.
        validation: files or run folders, one for each of ``paths``; in place of what a run has.

    Raises:
        UsageError: for folders without predictions, other numbers of files, a file named twice.
        InputError: for files that cannot be used.
    """
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise UsageError(f"{', '.join(twice)} is named twice: each file is another seed, or another model")
    if validation is not None and len(validation) != len(paths):
        raise UsageError(
            f"--validation names {len(validation)} file(s) for {len(paths)}: give one for each, in their order"
        )
    given = [_read_one(path) for path in paths]
    if validation is None:
        return given
    files = [Predictions.load(_of_run(Path(path), "val") if Path(path).is_dir() else path) for path in validation]
    return [Given(one.name, one.path, one.predictions, file, one.run) for one, file in zip(given, files, strict=True)]


def _read_one(name: str) -> Given:
    path = Path(name)
    if not path.is_dir():
        return Given(name, path, Predictions.load(path), None, None)
    test, val = (path / "predictions" / f"{split}.npz" for split in ("test", "val"))
    if test.exists():
        validation = Predictions.load(val) if val.exists() else None
        return Given(name, test, Predictions.load(test), validation, path)
    note = f"{name} has no predictions/test.npz yet, so this is its validation split (ecg-lightning test --run {name})"
    return Given(name, _of_run(path, "val"), Predictions.load(_of_run(path, "val")), None, path, note)


def _of_run(run: Path, split: str) -> Path:
    path = run / "predictions" / f"{split}.npz"
    if not path.exists():
        command = "validate" if split == "val" else "test"
        raise UsageError(f"{run} has no predictions/{split}.npz: write it with `ecg-lightning {command} --run {run}`")
    return path

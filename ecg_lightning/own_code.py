"""Classes of one's own in a run's config: whose code is imported when the run is loaded."""

from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ecg_lightning.errors import InputError


def refuse_code_of(run: Path, config: Any) -> None:
    """Refuses a run's config that names a class which would be imported from the run folder itself.

    A run folder is data: it may come from somebody else. ``class_path`` in its config names code by where Python finds
    it, which is somewhere that its user installed or works in; code that came with the folder is never imported. Looks
    for the outermost package alone, which imports nothing.

    Raises:
        InputError: naming the class and its file.
    """
    folder = run.resolve()
    for path in class_paths(config):
        spec = PathFinder.find_spec(path.partition(".")[0])
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
        for place in filter(None, places):
            if Path(place).resolve().is_relative_to(folder):
                raise InputError(
                    f"{run / 'config.yaml'} names {path}, which would be imported from {place}, inside the run folder: "
                    "code that comes with a run is never run; read it, and if you trust it put it where you work"
                )


def class_paths(config: Any) -> Iterator[str]:
    """Every ``class_path`` in a config, however deep."""
    if isinstance(config, dict):
        if isinstance(path := config.get("class_path"), str):
            yield path
        for value in config.values():
            yield from class_paths(value)
    elif isinstance(config, list):
        for value in config:
            yield from class_paths(value)

"""Reads YAML that a person wrote: a mapping, no key twice, nothing in it is ever run."""

from pathlib import Path
from typing import Any

import yaml

from ecg_lightning.errors import InputError

_MOST_VALUES = 100_000
"""Of a config, its aliases written out: nine in nine in nine ... would keep whoever walks through them for days."""


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice: YAML takes the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} stands twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_mapping(path: Path, rule: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """The mapping in the file at ``path``; an empty file is an empty one.

    Args:
        path: of the file.
        rule: what such a file holds, for the message: "it gives arguments of fit their values".
        error: its type.

    Raises:
        InputError: for a file that cannot be read, is no YAML, or holds something else,
            itself, or endlessly much.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        raise error(f"{path} is no YAML: {' '.join(str(problem).split())}; {rule}") from None
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}): check the path and its permissions") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise error(f"{path} holds no mapping, but {type(content).__name__}: {rule}")
    if _holds_too_much(content):
        raise error(
            f"{path}: its aliases (*NAME) hold themselves, or stand for more than {_MOST_VALUES:,} values: {rule}"
        )
    return content


def _holds_too_much(content: Any) -> bool:
    waiting, seen = [content], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            return True
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return False

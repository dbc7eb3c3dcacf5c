"""The errors that the command line turns into one message and an exit code."""

from collections.abc import Sequence


class InputError(ValueError):
    """What a user gave cannot be used (exit code 1): the message says what was got, the rule, and the way out."""


class UsageError(InputError):
    """A flag or a config is wrong (exit code 2)."""


class StoppedError(InputError):
    """A run cannot go on for now (exit code 1): the message says what stopped it; its checkpoints are whole."""


def joined(problems: Sequence[str], *, limit: int = 10) -> str:
    """One line of all problems, so that a user mends them in one go; more than ``limit`` are counted."""
    shown = "; ".join(problems[:limit])
    return shown if len(problems) <= limit else f"{shown}; and {len(problems) - limit} more"

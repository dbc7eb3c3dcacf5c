"""How command lines are written, made what jsonargparse reads: flags without a value, values without a flag, lists."""

import inspect
import json
from collections.abc import Callable, Sequence
from typing import get_args, get_origin


def divided(function: Callable[..., object], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The function's own arguments, and the flags with their values that it does not name (`Command.rest`)."""
    names = {"-h", "--help", *(f"--{name}" for name in inspect.signature(function).parameters)}
    own: list[str] = []
    rest: list[str] = []
    taken = False
    for argument in arguments:
        if argument.startswith("--") or argument in ("-h", "-c"):
            into = own if argument.split("=")[0] in names else rest
            into.append(argument)
            taken = into is rest and "=" not in argument  # its value follows
        else:
            (rest if taken else own).append(argument)
            taken = False
    return own, rest


def bare_value(arguments: Sequence[str], bare: str, lists: set[str]) -> int | None:
    """Where the flag ``bare`` was left out: at the first value without a flag; behind ``--plot 17 18``, at the last."""
    flag, behind_list = "", None
    if any(argument.split("=")[0] == bare for argument in arguments):
        return None
    for place, argument in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        if argument.startswith("-"):
            flag = argument
        elif not before.startswith("--") or "=" in before:
            if flag not in lists:
                return place
            behind_list = place
    return behind_list


def bare_flags(function: Callable[..., object], arguments: Sequence[str]) -> list[str]:
    """``--overwrite`` alone means ``--overwrite true``; so does ``--html``, which may have a value as well."""
    kinds = inspect.get_annotations(function)
    switches = {f"--{name}" for name, kind in kinds.items() if kind in (bool, "bool")}
    optional = {f"--{name}" for name, kind in kinds.items() if bool in get_args(kind)}
    parsed = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        bare = argument in switches and following.lower() not in ("true", "false")
        bare |= argument in optional and following.startswith("-")
        parsed += [argument, "true"] if bare else [argument]
    return parsed


def list_flags(function: Callable[..., object]) -> set[str]:
    """The flags of the function's parameters that are lists, or may be."""
    kinds = inspect.get_annotations(function)
    return {
        f"--{name}" for name, kind in kinds.items() if any(get_origin(one) is list for one in (kind, *get_args(kind)))
    }


def joined_lists(arguments: Sequence[str], lists: set[str]) -> list[str]:
    """``--plot 17 18``, ``--plot 17,18`` and ``--plot=17`` mean ``--plot '["17", "18"]'``."""
    joined: list[str] = []
    values: list[str] | None = None
    for argument in [*arguments, "--"]:
        if values is not None and not argument.startswith("-"):
            values += filter(None, argument.split(","))
            continue
        if values is not None:
            joined.append(json.dumps(values))
        name, _, value = argument.partition("=")
        values = [*filter(None, value.split(","))] if name in lists else None
        joined.append(argument if values is None else name)
    return joined[:-1]

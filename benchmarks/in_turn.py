"""Ways of doing one thing, timed in turn: what disturbs the machine then disturbs all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any


def in_turn(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: int = 0,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way in each round (A B A B ...), those of the first ``warm_up`` rounds left out."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(warm_up + rounds):
        for name, way in ways.items():
            start = now()
            way()
            seconds[name].append(now() - start)
    return {name: found[warm_up:] for name, found in seconds.items()}


def times_as_fast(slower: list[float], faster: list[float]) -> float:
    """Median over the rounds of how many times the second way is the faster one."""
    return median(a / b for a, b in zip(slower, faster, strict=True))

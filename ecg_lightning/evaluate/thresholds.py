"""From which probability on a label is called: chosen on validation, never on the split that is judged.

A threshold is one of the validation probabilities; a record is called at that probability or above. It refers to the
probabilities as the network gives them, before any calibration; temperature scaling keeps their order, so the same
records are called after it at ``calibrated(threshold)``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.errors import UsageError


class Rule(NamedTuple):
    """How a threshold is chosen: ``f1`` and ``youden`` are largest, or ``sensitivity`` is at least `value`."""

    name: str
    value: float | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value:g}"


def parse_rule(text: str) -> Rule:
    """``f1``, ``youden``, or ``sensitivity=0.9``.

    Raises:
        UsageError: for anything else.
    """
    name, _, value = text.partition("=")
    if text in ("f1", "youden"):
        return Rule(text)
    try:
        if name == "sensitivity" and 0 < float(value) <= 1:
            return Rule(name, float(value))
    except ValueError:
        pass
    raise UsageError(
        f"--threshold is {text!r}, it must be f1, youden, or sensitivity=S with 0 < S <= 1, such as sensitivity=0.9"
    )


def choose_thresholds(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.uint8], rule: Rule
) -> NDArray[np.float64]:
    """The threshold of each label (label,) by ``rule``, on the records where it is known; NaN where a class is missing.

    ``probabilities`` and ``labels`` are (record, label), of validation. Of equally good ones the highest is taken.
    """
    columns = range(probabilities.shape[1])
    return np.array([_choose(probabilities[:, c], labels[:, c], rule) for c in columns], np.float64)


def _choose(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.uint8], rule: Rule) -> float:
    known = labels <= 1
    scores, carries = probabilities[known].astype(np.float64), labels[known] == 1
    num_positive, num_negative = int(carries.sum()), int((~carries).sum())
    if not num_positive or not num_negative:
        return float("nan")
    falling = np.argsort(-scores, kind="stable")
    scores, carries = scores[falling], carries[falling]
    last_of_ties = np.append(scores[:-1] != scores[1:], True)
    hits, called = np.cumsum(carries)[last_of_ties], np.flatnonzero(last_of_ties) + 1
    sensitivity, false_alarm_rate = hits / num_positive, (called - hits) / num_negative
    if rule.name == "sensitivity":
        best = int(np.argmax(sensitivity >= rule.value))  # the first, and so the highest, that reaches it
    elif rule.name == "youden":
        best = int(np.argmax(np.round(sensitivity - false_alarm_rate, 12)))
    else:
        best = int(np.argmax(2 * hits / (called + num_positive)))
    return float(scores[last_of_ties][best])

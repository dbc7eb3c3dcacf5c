"""Which statements a patient and a record carry, how likely each is noted, and how strong it is."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import ptbxl_103_counts
from ecg_lightning.data.synthesize.settings import Prevalence
from ecg_lightning.data.synthesize.statements import (
    DIAGNOSES,
    FORMS,
    RHYTHMS,
    SIMULATED,
    SINUS,
    can_stand_together,
)

_SECOND_DIAGNOSIS = 0.22
_NORMAL = 0.12
"""Share of uniform patients with a normal ECG, beside the turn that NORM has among the others."""
_NORMAL_ELSE = 0.45
"""Share of the hearts that are normal but for the rhythm or form that a uniform patient is chosen for."""


def chronic_statements(random: np.random.Generator, prevalence: Prevalence) -> tuple[str, ...]:
    """What all records of a patient carry: natural, diagnoses; uniform, one statement of any kind and what it needs."""
    if prevalence == "natural":
        statements: tuple[str, ...] = ("NORM",) if random.random() < _share("NORM") else _second((), random)
    else:
        statements = (str(random.choice(tuple(SIMULATED))) if random.random() > _NORMAL else "NORM",)
        if statements[0] not in DIAGNOSES:
            statements = _with_heart(statements, random)
    if "NORM" not in statements and random.random() < _SECOND_DIAGNOSIS:
        statements = (*statements, *_second(statements, random))
    return statements


def record_statements(chronic: tuple[str, ...], random: np.random.Generator, prevalence: Prevalence) -> tuple[str, ...]:
    """All statements of one record in the order of `SIMULATED`: ``chronic``, a rhythm, and forms."""
    statements = chronic
    if not any(code in RHYTHMS for code in statements):
        rhythms = RHYTHMS if prevalence == "natural" else SINUS
        if rhythm := _pick(rhythms, statements, random, _among_the_ill):
            statements = (*statements, rhythm)
    for form in FORMS:
        if random.random() < _share(form) and form not in statements and can_stand_together(form, statements):
            statements = (*statements, form)
    return tuple(code for code in SIMULATED if code in statements)


def _with_heart(statements: tuple[str, ...], random: np.random.Generator) -> tuple[str, ...]:
    if can_stand_together("NORM", statements) and random.random() < _NORMAL_ELSE:
        return (*statements, "NORM")
    return (*statements, *_second(statements, random))


def _second(statements: tuple[str, ...], random: np.random.Generator) -> tuple[str, ...]:
    code = _pick(tuple(code for code in DIAGNOSES if code != "NORM"), statements, random)
    return (code,) if code else ()


def _pick(
    codes: tuple[str, ...],
    beside: tuple[str, ...],
    random: np.random.Generator,
    share: Callable[[str], float] | None = None,
) -> str:
    """One of ``codes`` that can stand beside the others, as often as ``share`` (PTB-XL's) says; empty for none."""
    possible = [code for code in codes if can_stand_together(code, beside)]
    if not possible:
        return ""
    weights = np.array([(share or _share)(code) for code in possible])
    return str(random.choice(possible, p=weights / weights.sum()))


def _share(code: str) -> float:
    """Of PTB-XL's records that carry ``code``."""
    counts = ptbxl_103_counts()
    return float(counts["tasks"]["all"]["positives_per_class"][code] / counts["records"])


def _among_the_ill(code: str) -> float:
    """The share of a rhythm where it can be: those that no normal ECG has fall to the other records alone."""
    return _share(code) / (1.0 if can_stand_together(code, ("NORM",)) else 1 - _share("NORM"))


def likelihoods(statements: tuple[str, ...], random: np.random.Generator) -> dict[str, float]:
    """As PTB-XL notes them: 0, unknown, for rhythm and form; 100 for most diagnoses, less where it was in doubt."""
    noted: dict[str, float] = {}
    for code in sorted(statements, key=lambda code: code in RHYTHMS):
        if code in DIAGNOSES:
            noted[code] = float(random.choice(_LEVELS, p=_LEVEL_SHARES))
        else:
            noted[code] = 100.0 if code in ("PVC", "AFLT", "PACE") else 0.0
    return noted


_LEVELS: NDArray[np.float64] = np.array([100.0, 80.0, 50.0, 35.0, 15.0])
_LEVEL_SHARES = (0.78, 0.10, 0.08, 0.02, 0.02)

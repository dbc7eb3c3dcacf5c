"""What the statements do to a heart: each effect takes the heart, a severity from 0 to 1, and a generator."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.heart import DOWER, Heart, turn
from ecg_lightning.data.synthesize.medicine import RANGES
from ecg_lightning.data.synthesize.shapes import ECTOPIC_ORIGINS, QRS, REGIONS

Effect = Callable[[Heart, float, np.random.Generator], None]

STAGES = ("Stadium I", "Stadium II", "Stadium III")
"""Of an infarct as PTB-XL writes them: ST elevation; T inversion and Q; Q alone."""


def nothing(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """A normal heart is what the others start from."""


def conduction(pattern: str, duration: str, st_t: float) -> Effect:
    """QRS of ``pattern``; where ``st_t`` is not 0, ST and T turn against it by that share."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.qrs = QRS[pattern].copy()
        heart.qrs_duration = RANGES[duration].at(severity)
        if st_t:
            heart.t, heart.st = _discordant(heart.qrs, st_t)

    return effect


def _discordant(qrs: NDArray[np.float64], share: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """T and ST against the main direction of ``qrs``."""
    area = (qrs[:, 1:2] * qrs[:, 2:]).sum(axis=0) / qrs[:, 1].sum()
    return -share * area, -0.22 * share * area


def right_bundle(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """QRS wide by a late wave to the right and front; T inverted in V1 and V2."""
    conduction("right bundle branch block", "CRBBB QRS", 0)(heart, severity, random)
    heart.t = heart.t + np.array([0.06, 0.02, 0.42])  # inverted in V1 and V2


def incomplete_right_bundle(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """The same late wave, smaller, in a QRS below 0.12 s."""
    conduction("incomplete right bundle branch block", "IRBBB QRS", 0)(heart, severity, random)
    heart.t = heart.t + np.array([0.0, 0.0, 0.10])


def incomplete_left_bundle(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """No septal Q, slurred R, T low in the lateral leads."""
    conduction("incomplete left bundle branch block", "ILBBB QRS", 0)(heart, severity, random)
    heart.t = heart.t * np.array([0.35, 0.5, 0.9])


def fascicle(pattern: str) -> Effect:
    """Axis far to the left or to the right in a narrow QRS, or in the first half of a right bundle branch block."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.frontal *= 0.4  # the block decides the axis, not the patient
        if heart.qrs_duration >= 0.12:  # with a right bundle branch block: the first half alone
            own, late = QRS[pattern].copy(), heart.qrs[-2:].copy()
            own[:, :2] *= 0.66
            heart.qrs = np.concatenate([own, late])
            return
        heart.qrs = QRS[pattern].copy()
        heart.qrs_duration = RANGES["fascicular QRS"].at(severity)

    return effect


def preexcitation(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """Short PR, delta wave of either side, ST and T against it."""
    side = ("left", "right")[int(random.integers(2))]
    conduction(f"{side} pre-excitation", "WPW QRS", 0.28)(heart, severity, random)
    heart.pr = RANGES["WPW PR"].draw(random)


def left_hypertrophy(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """High voltages to the left and back, with strain: lateral ST lowered, T inverted."""
    left_voltage(heart, severity, random)
    heart.qrs_duration += 0.012
    strain = 0.35 + 0.65 * severity
    heart.st = heart.st - 0.11 * strain * REGIONS["subendocardial"]
    heart.t = heart.t * (1 - strain) - strain * np.array([0.30, 0.06, 0.20])


def left_voltage(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """High voltages alone."""
    waves = turn(heart.qrs[:, 2:], heart.frontal, heart.horizontal)
    has = (waves @ DOWER[6]).max() - (waves @ DOWER[2]).min()
    grown = max(1.25, RANGES["LVH voltage"].at(severity) / has)
    heart.qrs[1:, 2:] *= grown * np.array([1.0, 0.8, 1.0])


def right_hypertrophy(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """Tall R in V1, deep S in V6, axis to the right, T inverted in V1 to V3."""
    heart.qrs = QRS["right ventricular hypertrophy"] * np.array([1, 1, *[0.85 + 0.5 * severity] * 3])
    heart.frontal *= 0.4
    heart.t = np.array([0.26, 0.06, 0.30])


def left_atrium(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """P wide, with two humps, deep at its end in V1."""
    heart.p_duration = RANGES["LAE P"].at(severity)
    heart.p[:, 1] *= 0.78  # two humps
    heart.p[1, 2:] *= 1.5
    heart.p[1, 4] += 0.07
    heart.pr = max(heart.pr, heart.p_duration + 0.03)


def right_atrium(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """P tall and pointed in II, III, aVF."""
    heart.p[:, 2:] *= RANGES["RAE P voltage"].at(severity) * np.array([[0.9, 1.35, 1.5], [0.35, 0.55, 0.4]])
    heart.p[1, 0] -= 0.12


def infarct(region: str) -> Effect:
    """ST and T of the stage, which ``severity`` decides: acute below 0.25, recent below 0.5, old above."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        toward = REGIONS[region]
        stage = stage_of(severity)
        within = severity * 4 % 1
        size = RANGES["infarct Q"].at(within) * (0.5, 1.0, 1.0)[stage]
        lost = np.clip(heart.qrs[:, 2:] @ toward, 0, None)[:, None] * toward
        heart.qrs[:, 2:] -= (0.25, 0.5, 0.5)[stage] * lost
        heart.qrs = np.concatenate([[[0.26, 0.10, *(-size * toward)]], heart.qrs])
        if stage == 0:
            heart.st = heart.st + RANGES["infarct ST, acute"].at(within) * toward
            heart.t = heart.t + 0.25 * toward
        elif stage == 1:
            heart.st = heart.st + RANGES["infarct ST, recent"].at(within) * toward
            heart.t, heart.t_symmetric = heart.t - (0.45 + 0.3 * within) * toward, 0.9
        else:
            heart.t = heart.t - (0.1 + 0.2 * within) * toward

    return effect


def stage_of(severity: float) -> int:
    """Index into `STAGES` of an infarct."""
    return 0 if severity < 0.25 else 1 if severity < 0.5 else 2


def ischaemia(region: str) -> Effect:
    """ST below the baseline over the region, T inverted there, symmetric."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        toward = REGIONS[region]
        heart.st = heart.st - RANGES["ischaemic ST"].at(severity) * toward
        heart.t = heart.t - (heart.t @ toward) * toward  # nothing upright is left over the region
        heart.t = heart.t - 0.36 * RANGES["ischaemic T"].at(severity) * toward
        heart.t_symmetric = 0.9

    return effect


def inverted_t(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """T against its usual direction in all leads."""
    heart.t = -RANGES["INVT T"].at(severity) * heart.t


def flat_t(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """T low or flat in all leads."""
    heart.t = RANGES["NDT T"].at(1 - severity) * heart.t


def depressed_st(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """ST lowered in the lateral and inferior leads, T upright."""
    heart.st = heart.st - RANGES["STD_ ST"].at(severity) * REGIONS["subendocardial"]
    heart.t = heart.t * 0.85


def raised_st(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """ST raised in the same leads, without reciprocal depression but in aVR and V1."""
    heart.st = heart.st + RANGES["STE_ ST"].at(severity) * REGIONS["subendocardial"]


def digitalis(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """Scooped ST, low T, short QT."""
    heart.st, heart.st_scooped = -RANGES["STD_ ST"].at(0.3 + severity) * REGIONS["subendocardial"], True
    heart.t = heart.t * 0.35
    heart.qtc = RANGES["DIG QTc"].at(1 - severity)


def long_qt(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """QT long and T broad."""
    heart.qtc = RANGES["LNGQT QTc"].at(severity)
    heart.t_width = 1.12


def low_voltage(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """QRS small in all leads, P and T less so."""
    factor = RANGES["LVOLT voltage"].at(1 - severity)
    heart.qrs[:, 2:] *= factor
    heart.t = heart.t * np.sqrt(factor)
    heart.p[:, 2:] *= np.sqrt(factor)


def first_degree_block(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """PR long."""
    heart.pr = RANGES["1AVB PR"].at(severity)


def rhythm(name: str, rate: str = "") -> Effect:
    """Another rhythm, at a rate of its own."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.rhythm = name
        if rate:
            heart.rate = RANGES[rate].at(severity)

    return effect


def sinus_arrhythmia(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """The rate swings with the breath."""
    heart.rate, heart.swing = RANGES["SARRH rate"].draw(random), RANGES["SARRH swing"].at(severity)


def sinus_rate(rate: str, swing: float) -> Effect:
    """Sinus rhythm within a range of rates; ``swing`` is the most that it may vary."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.rate = RANGES[rate].at(severity**1.8 if rate == "normal rate" else severity)  # most hearts are slow
        heart.swing = min(heart.swing, swing)

    return effect


def paced(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """Spikes, each with a wide QRS from the right apex."""
    _ectopic_shape(heart, "paced", random)
    heart.rhythm, heart.rate, heart.spike = "paced", RANGES["PACE rate"].draw(random), True


def premature(kind: str, most: int) -> Effect:
    """One to ``most`` early beats, atrial or ventricular, or one after every beat or two."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.premature = (kind, 1 + int(severity * most))
        if kind != "atrial":
            _ectopic_shape(heart, f"ectopic, {ECTOPIC_ORIGINS[int(random.integers(4))]}", random)

    return effect


def third_degree(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """Atria and ventricles apart."""
    heart.rhythm = "third degree block"
    _ectopic_shape(heart, f"ectopic, {ECTOPIC_ORIGINS[int(random.integers(4))]}", random)


def _ectopic_shape(heart: Heart, pattern: str, random: np.random.Generator) -> None:
    heart.ectopic_qrs = QRS[pattern] * np.array([1, 1, *[random.uniform(0.85, 1.25)] * 3])
    heart.ectopic_duration = RANGES["ventricular QRS"].draw(random)
    heart.ectopic_t, _ = _discordant(heart.ectopic_qrs, 0.42)

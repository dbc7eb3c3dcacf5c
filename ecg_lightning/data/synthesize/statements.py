"""What each simulated SCP-ECG statement changes in a heart, and which statements cannot stand together.

The order of the table is the order in which they act: QRS patterns first, then hypertrophy, infarcts, ST and T, rhythm.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.heart import Heart
from ecg_lightning.data.synthesize.medicine import RANGES
from ecg_lightning.data.synthesize.shapes import ECTOPIC_ORIGINS, QRS, REGIONS

Effect = Callable[[Heart, float, np.random.Generator], None]

STAGES = ("Stadium I", "Stadium II", "Stadium III")
"""Of an infarct as PTB-XL writes them: ST elevation; T inversion and Q; Q alone."""


class Statement(NamedTuple):
    """Its effect, and what of the heart it decides; two statements that decide the same never stand together."""

    decides: frozenset[str]
    effect: Effect


def _nothing(heart: Heart, severity: float, random: np.random.Generator) -> None:
    """A normal heart is what the others start from."""


def _conduction(pattern: str, duration: str, st_t: float) -> Effect:
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


def _right_bundle(heart: Heart, severity: float, random: np.random.Generator) -> None:
    _conduction("right bundle branch block", "CRBBB QRS", 0)(heart, severity, random)
    heart.t = heart.t + np.array([0.06, 0.02, 0.42])  # inverted in V1 and V2


def _incomplete_right_bundle(heart: Heart, severity: float, random: np.random.Generator) -> None:
    _conduction("incomplete right bundle branch block", "IRBBB QRS", 0)(heart, severity, random)
    heart.t = heart.t + np.array([0.0, 0.0, 0.10])


def _incomplete_left_bundle(heart: Heart, severity: float, random: np.random.Generator) -> None:
    _conduction("incomplete left bundle branch block", "ILBBB QRS", 0)(heart, severity, random)
    heart.t = heart.t * np.array([0.35, 0.5, 0.9])


def _fascicle(pattern: str) -> Effect:
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


def _preexcitation(heart: Heart, severity: float, random: np.random.Generator) -> None:
    side = ("left", "right")[int(random.integers(2))]
    _conduction(f"{side} pre-excitation", "WPW QRS", 0.28)(heart, severity, random)
    heart.pr = RANGES["WPW PR"].draw(random)


def _left_hypertrophy(heart: Heart, severity: float, random: np.random.Generator) -> None:
    _left_voltage(heart, severity, random)
    heart.qrs_duration += 0.012
    strain = 0.35 + 0.65 * severity
    heart.st = heart.st - 0.11 * strain * REGIONS["subendocardial"]
    heart.t = heart.t * (1 - strain) - strain * np.array([0.30, 0.06, 0.20])


def _left_voltage(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.qrs[1:, 2:] *= RANGES["LVH voltage"].at(severity) * np.array([1.0, 0.8, 1.0])


def _right_hypertrophy(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.qrs = QRS["right ventricular hypertrophy"] * np.array([1, 1, *[0.85 + 0.5 * severity] * 3])
    heart.frontal *= 0.4
    heart.t = np.array([0.26, 0.06, 0.30])


def _left_atrium(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.p_duration = RANGES["LAE P"].at(severity)
    heart.p[:, 1] *= 0.78  # two humps
    heart.p[1, 2:] *= 1.5
    heart.p[1, 4] += 0.07
    heart.pr = max(heart.pr, heart.p_duration + 0.03)


def _right_atrium(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.p[:, 2:] *= RANGES["RAE P voltage"].at(severity) * np.array([[0.9, 1.35, 1.5], [0.35, 0.55, 0.4]])
    heart.p[1, 0] -= 0.12


def _infarct(region: str) -> Effect:
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


def _ischaemia(region: str) -> Effect:
    """ST below the baseline over the region, T inverted there, symmetric."""

    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        toward = REGIONS[region]
        heart.st = heart.st - RANGES["ischaemic ST"].at(severity) * toward
        heart.t = heart.t - (heart.t @ toward) * toward  # nothing upright is left over the region
        heart.t = heart.t - 0.36 * RANGES["ischaemic T"].at(severity) * toward
        heart.t_symmetric = 0.9

    return effect


def _inverted_t(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.t = -RANGES["INVT T"].at(severity) * heart.t


def _flat_t(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.t = RANGES["NDT T"].at(1 - severity) * heart.t


def _depressed_st(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.st = heart.st - RANGES["STD_ ST"].at(severity) * REGIONS["subendocardial"]
    heart.t = heart.t * 0.85


def _raised_st(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.st = heart.st + RANGES["STE_ ST"].at(severity) * REGIONS["subendocardial"]


def _digitalis(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.st, heart.st_scooped = -RANGES["STD_ ST"].at(0.3 + severity) * REGIONS["subendocardial"], True
    heart.t = heart.t * 0.35
    heart.qtc = RANGES["DIG QTc"].at(1 - severity)


def _long_qt(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.qtc = RANGES["LNGQT QTc"].at(severity)
    heart.t_width = 1.12


def _low_voltage(heart: Heart, severity: float, random: np.random.Generator) -> None:
    factor = RANGES["LVOLT voltage"].at(1 - severity)
    heart.qrs[:, 2:] *= factor
    heart.t = heart.t * np.sqrt(factor)
    heart.p[:, 2:] *= np.sqrt(factor)


def _first_degree_block(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.pr = RANGES["1AVB PR"].at(severity)


def _rhythm(name: str, rate: str = "") -> Effect:
    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.rhythm = name
        if rate:
            heart.rate = RANGES[rate].at(severity)

    return effect


def _sinus_arrhythmia(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.rate, heart.swing = RANGES["SARRH rate"].draw(random), RANGES["SARRH swing"].at(severity)


def _sinus_rate(rate: str, swing: float) -> Effect:
    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.rate = RANGES[rate].at(severity)
        heart.swing = min(heart.swing, swing)

    return effect


def _paced(heart: Heart, severity: float, random: np.random.Generator) -> None:
    _ectopic_shape(heart, "paced", random)
    heart.rhythm, heart.rate, heart.spike = "paced", RANGES["PACE rate"].draw(random), True


def _premature(kind: str, most: int) -> Effect:
    def effect(heart: Heart, severity: float, random: np.random.Generator) -> None:
        heart.premature = (kind, 1 + int(severity * most))
        if kind != "atrial":
            _ectopic_shape(heart, f"ectopic, {ECTOPIC_ORIGINS[int(random.integers(4))]}", random)

    return effect


def _third_degree(heart: Heart, severity: float, random: np.random.Generator) -> None:
    heart.rhythm = "third degree block"
    _ectopic_shape(heart, f"ectopic, {ECTOPIC_ORIGINS[int(random.integers(4))]}", random)


def _ectopic_shape(heart: Heart, pattern: str, random: np.random.Generator) -> None:
    heart.ectopic_qrs = QRS[pattern] * np.array([1, 1, *[random.uniform(0.85, 1.25)] * 3])
    heart.ectopic_duration = RANGES["ventricular QRS"].draw(random)
    heart.ectopic_t, _ = _discordant(heart.ectopic_qrs, 0.42)


def _table(*rows: tuple[str, str, Effect]) -> dict[str, Statement]:
    return {code: Statement(frozenset(decides.split()), effect) for code, decides, effect in rows}


_OF_A_NORMAL_HEART = "P AV QRS axis wall ST QT"

SIMULATED = _table(
    ("NORM", _OF_A_NORMAL_HEART, _nothing),
    ("CLBBB", "QRS axis wall ST voltage", _conduction("left bundle branch block", "CLBBB QRS", 0.40)),
    ("ILBBB", "QRS axis wall ST voltage", _incomplete_left_bundle),
    ("CRBBB", "QRS voltage", _right_bundle),
    ("IRBBB", "QRS axis voltage", _incomplete_right_bundle),
    ("IVCD", "QRS axis voltage", _conduction("intraventricular delay", "IVCD QRS", 0)),
    ("WPW", "QRS axis wall ST voltage AV", _preexcitation),
    ("LAFB", "axis", _fascicle("left anterior fascicular block")),
    ("LPFB", "axis wall", _fascicle("left posterior fascicular block")),
    ("LVH", "voltage wall ST", _left_hypertrophy),
    ("VCLVH", "voltage", _left_voltage),
    ("RVH", "QRS axis voltage wall ST", _right_hypertrophy),
    ("LAO/LAE", "P", _left_atrium),
    ("RAO/RAE", "P", _right_atrium),
    ("IMI", "wall ST axis", _infarct("inferior")),
    ("ILMI", "wall ST axis", _infarct("inferolateral")),
    ("ASMI", "wall ST", _infarct("septal")),
    ("AMI", "wall ST", _infarct("anterior")),
    ("ALMI", "wall ST", _infarct("anterolateral")),
    ("LMI", "wall ST axis", _infarct("lateral")),
    ("PMI", "wall ST QRS", _infarct("posterior")),
    ("ISC_", "ST", _ischaemia("subendocardial")),
    ("ISCAL", "ST", _ischaemia("anterolateral")),
    ("ISCAS", "ST", _ischaemia("septal")),
    ("ISCIN", "ST", _ischaemia("inferior")),
    ("INVT", "ST", _inverted_t),
    ("NDT", "ST", _flat_t),
    ("STD_", "ST", _depressed_st),
    ("STE_", "ST", _raised_st),
    ("DIG", "ST QT", _digitalis),
    ("LNGQT", "QT", _long_qt),
    ("LVOLT", "voltage", _low_voltage),
    ("1AVB", "AV", _first_degree_block),
    ("2AVB", "AV beats", _rhythm("second degree block")),
    ("3AVB", "AV P beats rhythm", _third_degree),
    ("PVC", "beats", _premature("ventricular", 3)),
    ("PAC", "beats early", _premature("atrial", 2)),
    ("SR", "rhythm", _sinus_rate("normal rate", 0.04)),
    ("SBRAD", "rhythm", _sinus_rate("SBRAD rate", 0.05)),
    ("STACH", "rhythm", _sinus_rate("STACH rate", 0.02)),
    ("SARRH", "rhythm beats", _sinus_arrhythmia),
    ("AFIB", "rhythm P AV early", _rhythm("fibrillation", "AFIB rate")),
    ("AFLT", "rhythm P AV beats", _rhythm("flutter")),
    ("SVTAC", "rhythm P AV beats", _rhythm("supraventricular tachycardia", "SVTAC rate")),
    ("PSVT", "rhythm P AV beats", _rhythm("paroxysm", "SVTAC rate")),
    ("SVARR", "rhythm P AV beats", _rhythm("wandering", "SVARR rate")),
    ("PACE", "rhythm P AV beats QRS axis wall ST QT voltage", _paced),
    ("BIGU", "rhythm beats AV", _premature("bigeminy", 1)),
    ("TRIGU", "rhythm beats AV", _premature("trigeminy", 1)),
)
"""The simulated statements in the order in which they act. PTB-XL's others name the same picture in other words
(LPR, NT_, TAB_, LOWT, QWAVE, ABQRS, HVOLT, PRC(S), NST_, EL), a finer region (IPMI, IPLMI, ISCAN, ISCIL, ISCLA), an injury
without a picture of its own (INJAS, INJAL, INJIN, INJIL, INJLA, ANEUR) or a wall that one dipole cannot show (SEHYP)."""

RHYTHMS = ("SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "PACE", "SVTAC", "PSVT", "SVARR", "BIGU", "TRIGU")
SINUS = ("SR", "SBRAD", "STACH", "SARRH")
FORMS = ("PVC", "PAC", "LVOLT", "VCLVH", "INVT", "STD_", "STE_")
INFARCTS = ("IMI", "ILMI", "ASMI", "AMI", "ALMI", "LMI", "PMI")
DIAGNOSES = tuple(code for code in SIMULATED if code not in (*RHYTHMS, *FORMS))


def can_stand_together(code: str, others: tuple[str, ...]) -> bool:
    """Whether none of ``others`` decides what ``code`` does."""
    return not any(SIMULATED[code].decides & SIMULATED[other].decides for other in others)

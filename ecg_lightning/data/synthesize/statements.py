"""Which SCP-ECG statements are simulated, what of a heart each decides, and which cannot stand together.

The order of the table is the order in which they act: QRS patterns first, then hypertrophy, infarcts, ST and T, rhythm.
"""

from typing import NamedTuple

from ecg_lightning.data.synthesize import effects as do
from ecg_lightning.data.synthesize.effects import Effect


class Statement(NamedTuple):
    """Its effect, and what of the heart it decides; two statements that decide the same never stand together."""

    decides: frozenset[str]
    effect: Effect


def _table(*rows: tuple[str, str, Effect]) -> dict[str, Statement]:
    return {code: Statement(frozenset(decides.split()), effect) for code, decides, effect in rows}


_OF_A_NORMAL_HEART = "P AV QRS axis wall ST QT"

SIMULATED = _table(
    ("NORM", _OF_A_NORMAL_HEART, do.nothing),
    ("CLBBB", "QRS axis wall ST voltage", do.conduction("left bundle branch block", "CLBBB QRS", 0.40)),
    ("ILBBB", "QRS axis wall ST voltage", do.incomplete_left_bundle),
    ("CRBBB", "QRS voltage", do.right_bundle),
    ("IRBBB", "QRS axis voltage", do.incomplete_right_bundle),
    ("IVCD", "QRS axis voltage", do.conduction("intraventricular delay", "IVCD QRS", 0)),
    ("WPW", "QRS axis wall ST voltage AV", do.preexcitation),
    ("LAFB", "axis", do.fascicle("left anterior fascicular block")),
    ("LPFB", "axis wall", do.fascicle("left posterior fascicular block")),
    ("LVH", "voltage wall ST", do.left_hypertrophy),
    ("VCLVH", "voltage", do.left_voltage),
    ("RVH", "QRS axis voltage wall ST", do.right_hypertrophy),
    ("LAO/LAE", "P", do.left_atrium),
    ("RAO/RAE", "P", do.right_atrium),
    ("IMI", "wall ST axis", do.infarct("inferior")),
    ("ILMI", "wall ST axis", do.infarct("inferolateral")),
    ("ASMI", "wall ST", do.infarct("septal")),
    ("AMI", "wall ST", do.infarct("anterior")),
    ("ALMI", "wall ST", do.infarct("anterolateral")),
    ("LMI", "wall ST axis", do.infarct("lateral")),
    ("PMI", "wall ST QRS", do.infarct("posterior")),
    ("ISC_", "ST", do.ischaemia("subendocardial")),
    ("ISCAL", "ST", do.ischaemia("anterolateral")),
    ("ISCAS", "ST", do.ischaemia("septal")),
    ("ISCIN", "ST", do.ischaemia("inferior")),
    ("INVT", "ST", do.inverted_t),
    ("NDT", "ST", do.flat_t),
    ("STD_", "ST", do.depressed_st),
    ("STE_", "ST", do.raised_st),
    ("DIG", "ST QT", do.digitalis),
    ("LNGQT", "QT", do.long_qt),
    ("LVOLT", "voltage", do.low_voltage),
    ("1AVB", "AV", do.first_degree_block),
    ("2AVB", "AV beats", do.rhythm("second degree block")),
    ("3AVB", "AV P beats rhythm", do.third_degree),
    ("PVC", "beats", do.premature("ventricular", 3)),
    ("PAC", "beats early", do.premature("atrial", 2)),
    ("SR", "rhythm", do.sinus_rate("normal rate", 0.04)),
    ("SBRAD", "rhythm", do.sinus_rate("SBRAD rate", 0.05)),
    ("STACH", "rhythm", do.sinus_rate("STACH rate", 0.02)),
    ("SARRH", "rhythm beats", do.sinus_arrhythmia),
    ("AFIB", "rhythm P AV early", do.rhythm("fibrillation", "AFIB rate")),
    ("AFLT", "rhythm P AV beats QT", do.rhythm("flutter")),
    ("SVTAC", "rhythm P AV beats QT", do.rhythm("supraventricular tachycardia", "SVTAC rate")),
    ("PSVT", "rhythm P AV beats QT", do.rhythm("paroxysm", "SVTAC rate")),
    ("SVARR", "rhythm P AV beats", do.rhythm("wandering", "SVARR rate")),
    ("PACE", "rhythm P AV beats QRS axis wall ST QT voltage", do.paced),
    ("BIGU", "rhythm beats AV", do.premature("bigeminy", 1)),
    ("TRIGU", "rhythm beats AV", do.premature("trigeminy", 1)),
)
"""The simulated statements in the order in which they act. PTB-XL's others name the same picture in other words
(LPR, NT_, TAB_, LOWT, QWAVE, ABQRS, HVOLT, PRC(S), NST_, EL), a finer region (IPMI, IPLMI, ISCAN, ISCIL, ISCLA), an
injury without a picture of its own (INJAS, INJAL, INJIN, INJIL, INJLA, ANEUR), or a wall that one dipole cannot show
(SEHYP)."""

RHYTHMS = ("SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "PACE", "SVTAC", "PSVT", "SVARR", "BIGU", "TRIGU")
SINUS = ("SR", "SBRAD", "STACH", "SARRH")
FORMS = ("PVC", "PAC", "LVOLT", "VCLVH", "INVT", "STD_", "STE_")
INFARCTS = ("IMI", "ILMI", "ASMI", "AMI", "ALMI", "LMI", "PMI")
DIAGNOSES = tuple(code for code in SIMULATED if code not in (*RHYTHMS, *FORMS))


def can_stand_together(code: str, others: tuple[str, ...]) -> bool:
    """Whether none of ``others`` decides what ``code`` does."""
    return not any(SIMULATED[code].decides & SIMULATED[other].decides for other in others)

"""The medical numbers of the simulator in one table: what is drawn for a statement, the criterion, its source.

Drawn ranges keep a margin from their criterion, so that what is simulated fulfils it however it is measured.
"""

from typing import NamedTuple

import numpy as np


class Range(NamedTuple):
    """A quantity is drawn evenly from ``low`` to ``high``; ``criterion`` is the rule it follows, with its source."""

    low: float
    high: float
    unit: str
    criterion: str

    def draw(self, random: np.random.Generator) -> float:
        """One value."""
        return float(random.uniform(self.low, self.high))

    def at(self, severity: float) -> float:
        """The value at ``severity``, 0 to 1."""
        return self.low + severity * (self.high - self.low)


_CONDUCTION = "AHA/ACCF/HRS 2009 part III, Surawicz et al."
_REPOLARISATION = "AHA/ACCF/HRS 2009 part IV, Rautaharju et al."
_HYPERTROPHY = "AHA/ACCF/HRS 2009 part V, Hancock et al."
_ISCHAEMIA = "AHA/ACCF/HRS 2009 part VI, Wagner et al."
_INFARCTION = "fourth universal definition of myocardial infarction, Thygesen et al. 2018"
_BRADYCARDIA = "ACC/AHA/HRS 2018, Kusumoto et al."
_SVT = "ACC/AHA/HRS 2015, Page et al."
_FIBRILLATION = "ESC 2020, Hindricks et al."

RANGES = {
    "normal rate": Range(61, 97, "1/min", "60 to 100 (textbook; SCP-ECG's 'sinus rhythm')"),
    "SBRAD rate": Range(41, 57, "1/min", f"below 60, below 50 in {_BRADYCARDIA}"),
    "STACH rate": Range(103, 140, "1/min", f"above 100: {_SVT}"),
    "SARRH rate": Range(58, 88, "1/min", "sinus arrhythmia: PP differ by more than 120 ms (textbook)"),
    "SARRH swing": Range(0.12, 0.24, "share of the mean interval", "half the difference of longest and shortest"),
    "AFIB rate": Range(62, 140, "1/min", f"irregular, no P: {_FIBRILLATION}"),
    "AFIB irregularity": Range(0.19, 0.30, "standard deviation over mean of RR", "RR without pattern"),
    "AFIB f rate": Range(350, 520, "1/min", f"fibrillatory waves 350 to 600: {_FIBRILLATION}"),
    "AFLT rate": Range(250, 320, "1/min", f"240 to 340: {_SVT}"),
    "SVTAC rate": Range(150, 205, "1/min", f"above 100, mostly 150 to 220: {_SVT}"),
    "SVARR rate": Range(70, 105, "1/min", f"three or more P shapes, irregular: {_SVT}"),
    "PACE rate": Range(60, 80, "1/min", "usual lower rates of pacemakers"),
    "3AVB ventricular rate": Range(30, 45, "1/min", f"escape below 45, atria faster and apart: {_BRADYCARDIA}"),
    "3AVB atrial rate": Range(72, 105, "1/min", "sinus"),
    "PVC coupling": Range(0.48, 0.66, "share of RR", "premature, full compensatory pause (textbook)"),
    "PAC coupling": Range(0.55, 0.72, "share of RR", "premature, pause not compensatory (textbook)"),
    "normal PR": Range(0.128, 0.185, "s", "0.12 to 0.20"),
    "1AVB PR": Range(0.222, 0.330, "s", f"above 0.20: {_BRADYCARDIA}"),
    "WPW PR": Range(0.085, 0.110, "s", f"below 0.12, delta wave: {_CONDUCTION}"),
    "normal P": Range(0.088, 0.108, "s", "below 0.12"),
    "LAE P": Range(0.128, 0.155, "s", f"0.12 and above, deep terminal part in V1: {_HYPERTROPHY}"),
    "RAE P voltage": Range(1.9, 2.9, "factor", f"above 0.25 mV in II: {_HYPERTROPHY}"),
    "normal QRS": Range(0.080, 0.100, "s", f"to 0.11: {_CONDUCTION}"),
    "CLBBB QRS": Range(0.132, 0.170, "s", f"0.12 and above: {_CONDUCTION}"),
    "CRBBB QRS": Range(0.130, 0.160, "s", f"0.12 and above: {_CONDUCTION}"),
    "ILBBB QRS": Range(0.110, 0.118, "s", f"0.11 to 0.119: {_CONDUCTION}"),
    "IRBBB QRS": Range(0.104, 0.118, "s", f"0.11 to 0.12: {_CONDUCTION}"),
    "IVCD QRS": Range(0.115, 0.135, "s", f"above 0.11 without a bundle branch's pattern: {_CONDUCTION}"),
    "fascicular QRS": Range(0.092, 0.112, "s", f"below 0.12: {_CONDUCTION}"),
    "WPW QRS": Range(0.120, 0.150, "s", f"0.12 and above with the delta wave: {_CONDUCTION}"),
    "ventricular QRS": Range(0.145, 0.185, "s", f"ectopic and paced beats: {_CONDUCTION}"),
    "normal QTc": Range(0.380, 0.435, "s", f"below 0.45 in men, 0.46 in women: {_REPOLARISATION}"),
    "LNGQT QTc": Range(0.490, 0.580, "s", f"above 0.45 and 0.46: {_REPOLARISATION}"),
    "DIG QTc": Range(0.340, 0.375, "s", "shortened QT, scooped ST under digitalis (textbook)"),
    "infarct ST, acute": Range(0.18, 0.45, "mV", f"0.1, in V2-V3 0.2 and above: {_ISCHAEMIA}"),
    "infarct ST, recent": Range(0.04, 0.14, "mV", "returning to the baseline, T inverted (textbook)"),
    "infarct Q": Range(0.45, 0.85, "mV", f"0.03 s and 0.1 mV and above: {_INFARCTION}"),
    "ischaemic ST": Range(0.08, 0.20, "mV", f"0.05 and more below the baseline, horizontal: {_ISCHAEMIA}"),
    "ischaemic T": Range(0.6, 1.3, "of a normal T, inverted", f"inverted, symmetric: {_REPOLARISATION}"),
    "STD_ ST": Range(0.06, 0.16, "mV", f"depressed, T upright: {_REPOLARISATION}"),
    "STE_ ST": Range(0.08, 0.18, "mV", f"elevated without a region: {_REPOLARISATION}"),
    "INVT T": Range(0.5, 1.1, "of a normal T, inverted", f"-0.1 to -0.5 mV: {_REPOLARISATION}"),
    "NDT T": Range(0.0, 0.28, "of a normal T", f"flat or low, below a tenth of R: {_REPOLARISATION}"),
    "LVH voltage": Range(3.8, 5.4, "mV", f"SV1 + RV5 (Sokolow and Lyon) above 3.5: {_HYPERTROPHY}"),
    "LVOLT voltage": Range(0.28, 0.40, "factor", "limb leads below 0.5 mV: AHA/ACCF/HRS 2009 part II, Mason et al."),
}

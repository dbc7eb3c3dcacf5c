"""One patient's own heart before any statement acts: axis, voltages, intervals, lead field; with age and sex."""

import math

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.heart import DOWER, Heart, turn
from ecg_lightning.data.synthesize.medicine import RANGES
from ecg_lightning.data.synthesize.patients import Patient


def patient_heart(patient: Patient) -> Heart:
    """The heart that `patient` has in every record; voltages fall and the axis turns left with age."""
    random = patient.random()
    heart = Heart()
    years = patient.age - 50
    axis = float(np.clip(random.normal(52 - 0.55 * years, 22), -22, 86))
    heart.horizontal = random.normal(0, 0.15)
    voltage = random.lognormal(0.0, 0.20) * (0.90 if patient.woman else 1.02) * math.exp(-0.003 * years)
    heart.qrs[:, 2:] *= voltage * random.lognormal(0, 0.15, (len(heart.qrs), 1))
    heart.qrs[:, 2:] += random.normal(0, 0.07, heart.qrs[:, 2:].shape) * np.abs(heart.qrs[:, 2:]).max(1, keepdims=True)
    heart.qrs[:, 1] *= random.lognormal(0, 0.07, len(heart.qrs))
    for _ in range(3):  # leads are not at right angles: a turn moves the measured axis by nearly as much
        heart.frontal += math.radians(axis - heart.axis_degrees())
    heart.qrs_duration = RANGES["normal QRS"].draw(random) - (0.004 if patient.woman else 0)
    _repolarisation(heart, patient, years, random)
    heart.p[:, 2:] *= random.lognormal(-0.08, 0.24) * random.lognormal(0, 0.12, (2, 1))
    heart.p[:, 2:] = turn(heart.p[:, 2:], -0.6 * heart.frontal, -0.6 * heart.horizontal)
    heart.p_duration = RANGES["normal P"].draw(random)
    heart.pr = float(np.clip(RANGES["normal PR"].draw(random) + 0.0002 * years, 0.124, 0.19))
    heart.rate = RANGES["normal rate"].at(random.random() ** 1.8)
    heart.swing = min(0.06, 0.030 * math.exp(-0.018 * years) * random.lognormal(0, 0.4))
    return heart


def _repolarisation(heart: Heart, patient: Patient, years: float, random: np.random.Generator) -> None:
    """Men's T waves are taller and their ST lies higher in V1 to V3, the more the younger they are."""
    size = random.lognormal(0.0, 0.26) * (0.88 if patient.woman else 1.06) * math.exp(-0.004 * years)
    heart.t = heart.t * size * random.lognormal(0, 0.12, 3) + random.normal(0, 0.03, 3)
    tallest = np.linalg.norm(heart.qrs[:, 2:], axis=1).max()
    heart.t *= min(1.0, 0.42 * tallest / np.linalg.norm(heart.t))
    heart.t = turn(heart.t, -0.6 * heart.frontal, -0.6 * heart.horizontal)  # T follows the heart's position less
    early = max(0.0, random.normal(0.035 if patient.woman else 0.075, 0.03) * math.exp(-0.010 * years))
    heart.st = early * np.array([0.18, 0.16, -0.85]) + random.normal(0, 0.006, 3)
    heart.qtc = RANGES["normal QTc"].draw(random) + (0.008 if patient.woman else -0.004)
    heart.t_width, heart.u = random.uniform(0.92, 1.10), random.uniform(0.0, 0.12)


def lead_fields(patient: Patient) -> NDArray[np.float64]:
    """(chamber, lead, axis), ventricles and atria: Dower's vectors as this chest bends them.

    Electrodes never sit twice in one place; the atria lie farther from those on the chest.
    """
    random = np.random.default_rng((*patient.seed, 2))
    gain = np.concatenate([np.ones(2), random.lognormal(0, 0.14, 6)])
    bend = random.normal(0, 0.07, DOWER.shape) * np.linalg.norm(DOWER, axis=1, keepdims=True)
    bend[:2] *= 0.4
    field = (DOWER + bend) * gain[:, None]
    farther = np.array([1, 1, 0.8, 0.7, 0.62, 0.6, 0.6, 0.65])
    return np.stack([field, field * farther[:, None]])

"""One record, whole: what it carries, its twelve leads at 500 and 100 Hz. A pure function of (seed, number)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.anatomy import lead_fields, patient_heart
from ecg_lightning.data.synthesize.combinations import record_statements
from ecg_lightning.data.synthesize.heart import Floats, Heart, beat_sum
from ecg_lightning.data.synthesize.noise import Noise, draw_noise, electrode_noise
from ecg_lightning.data.synthesize.patients import Patient, patient_of, record_random
from ecg_lightning.data.synthesize.rhythm import ECTOPIC, Rhythm, make_rhythm
from ecg_lightning.data.synthesize.settings import Prevalence
from ecg_lightning.data.synthesize.statements import INFARCTS, SIMULATED
from ecg_lightning.errors import InputError

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLING_RATE, NUM_POINTS = 500, 5000
LOW_RATE = 100
_FACTOR = SAMPLING_RATE // LOW_RATE
_UNITS_PER_MV = 1000
_HALF = 90
_BLOCK = 40
"""Half of the low-pass, and points at 100 Hz that are computed together."""

# (lead, electrode): I = LA - RA, II = LL - RA, the chest against the mean of the three.
_FROM_ELECTRODES = np.zeros((8, 9), np.float32)
_FROM_ELECTRODES[0, :3] = -1, 1, 0
_FROM_ELECTRODES[1, :3] = -1, 0, 1
_FROM_ELECTRODES[2:, :3] = -1 / 3
_FROM_ELECTRODES[2:, 3:] = np.eye(6)


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is settled of a record before its signal is drawn.

    Attributes:
        number: from 0; ecg_id is one more.
        patient: whose; ``earlier`` records of the same patient stand before it.
        statements: codes in the order in which they act; ``severity`` of each, 0 to 1.
        noise: of its electrodes.
        random: the record's generator, for the signal.
    """

    number: int
    patient: Patient
    earlier: int
    statements: tuple[str, ...]
    severity: dict[str, float]
    noise: Noise
    random: np.random.Generator


def plan_record(seed: int, number: int, prevalence: Prevalence = "natural") -> Plan:
    """Settles record ``number`` (from 0) of the archive ``seed``."""
    patient, earlier = patient_of(seed, number, prevalence)
    random = record_random(seed, number)
    statements = record_statements(patient.chronic, random, prevalence)
    severity = _severities(patient, statements, earlier, random)
    return Plan(number, patient, earlier, statements, severity, draw_noise(random), random)


def plan_with(statements: Sequence[str], *, seed: int = 0, severity: float = 0.5) -> Plan:
    """A record that carries ``statements``, each as severe as ``severity`` (0 to 1), of a patient of 60 years.

    Raises:
        InputError: for statements that are not simulated.
    """
    if unknown := [code for code in statements if code not in SIMULATED]:
        raise InputError(f"the statements {', '.join(unknown)} are not simulated, known are {', '.join(SIMULATED)}")
    carried = tuple(code for code in SIMULATED if code in statements)
    patient = Patient(0, 1, 60.0, False, 175.0, 78.0, carried, (seed, 0, 0))
    random = np.random.default_rng((seed, 0, 1))
    return Plan(0, patient, 0, carried, dict.fromkeys(carried, severity), draw_noise(random), random)


def _severities(
    patient: Patient, statements: tuple[str, ...], earlier: int, random: np.random.Generator
) -> dict[str, float]:
    """The patient's own for what stays, drawn anew for the rest; an infarct grows older from record to record."""
    own = np.random.default_rng((*patient.seed, 3)).random(len(patient.chronic))
    severity = {code: float(random.random()) for code in statements}
    for code, value in zip(patient.chronic, own.tolist(), strict=True):
        later = 0.3 * earlier if code in INFARCTS else 0.05 * earlier
        severity[code] = min(0.999, value + later) if code in INFARCTS else (value + later) % 1
    return severity


def make_heart(plan: Plan) -> Heart:
    """The patient's heart with all statements of the record acting on it."""
    heart = patient_heart(plan.patient)
    heart.frontal += plan.random.normal(0, 0.05)  # posture
    for code in plan.statements:
        SIMULATED[code].effect(heart, plan.severity[code], plan.random)
    return heart


def dipoles(heart: Heart, rhythm: Rhythm, random: np.random.Generator) -> Floats:
    """(chamber, axis, time) at 500 Hz, mV, ventricles and atria: their beats, which swell with the breath."""
    size = {"num_points": NUM_POINTS, "sampling_rate": SAMPLING_RATE}
    both = np.zeros((2, 3, NUM_POINTS), np.float32)
    breath = 1 + 0.04 * np.sin(2 * math.pi * 0.25 * rhythm.qrs + random.uniform(0, 6)).astype(np.float32)
    gain = breath * random.normal(1, 0.015, len(rhythm.qrs)).astype(np.float32)
    qt = heart.qt(rhythm.rr) + np.where(rhythm.qrs_kind == ECTOPIC, 0.05, 0.0)
    waves = heart.ventricular_waves()
    both[0] = beat_sum(waves, rhythm.qrs_kind, rhythm.qrs, qt, gain, before=0.08, after=0.80, **size)
    if len(rhythm.p):
        gain = random.normal(1, 0.04, len(rhythm.p)).astype(np.float32)
        waves = heart.atrial_waves(*rhythm.p_vectors)
        both[1] = beat_sum(waves, rhythm.p_kind, rhythm.p, 0 * rhythm.p, gain, before=0.03, after=0.22, **size)
    if rhythm.waves is not None:
        both[1] += rhythm.waves
    return both


def simulate(
    seed: int, number: int, *, prevalence: Prevalence = "natural", noisy: bool = True
) -> tuple[Plan, NDArray[np.int16]]:
    """Record ``number`` (from 0): its plan, and its leads (lead, time) at 500 Hz in units of 0.001 mV."""
    plan = plan_record(seed, number, prevalence)
    return plan, ecg_of(plan, make_heart(plan), noisy=noisy)


def ecg_of(plan: Plan, heart: Heart, *, noisy: bool = True) -> NDArray[np.int16]:
    """The signal of a plan and its heart, both fresh: (lead, time) at 500 Hz in units of 0.001 mV."""
    rhythm = make_rhythm(heart, plan.random, _time())
    fields = lead_fields(plan.patient).astype(np.float32)
    eight = (fields @ dipoles(heart, rhythm, plan.random)).sum(axis=0)
    if noisy:
        eight += _FROM_ELECTRODES @ electrode_noise(plan.noise, plan.random, NUM_POINTS, SAMPLING_RATE)
    return twelve_leads(eight * np.float32(_UNITS_PER_MV))


@cache
def _time() -> Floats:
    """(time,) in seconds."""
    return (np.arange(NUM_POINTS) / SAMPLING_RATE).astype(np.float32)


def twelve_leads(eight: Floats) -> NDArray[np.int16]:
    """I, II, V1 to V6 (8, time) in units, not yet whole -> all leads (12, time), whole: III = II - I exactly."""
    measured = np.clip(np.rint(eight), -16000, 16000).astype(np.int16)
    first, second = measured[0], measured[1]
    whole = np.empty((12, eight.shape[1]), np.int16)
    whole[:2], whole[6:] = measured[:2], measured[2:]
    whole[2] = second - first
    whole[3] = -((first + second) >> 1)
    whole[4] = (first - whole[2]) >> 1
    whole[5] = (second + whole[2]) >> 1
    return whole


def at_100_hz(ecg: NDArray[np.int16]) -> NDArray[np.int16]:
    """Leads at 500 Hz -> at 100 Hz, both (12, time) in units: a linear-phase low-pass (-60 dB at 50 Hz), each fifth."""
    low_pass = _decimation()
    eight = ecg[[0, 1, *range(6, 12)]].astype(np.float32)
    front, back = eight[:, _HALF:0:-1], eight[:, -2 : -_HALF - 2 : -1]
    padded = np.concatenate([2 * eight[:, :1] - front, eight, 2 * eight[:, -1:] - back], axis=1)
    blocks = np.lib.stride_tricks.sliding_window_view(padded, len(low_pass), axis=1)[:, :: _BLOCK * _FACTOR]
    return twelve_leads((blocks @ low_pass).reshape(8, -1))


@cache
def _decimation() -> Floats:
    """(time in, time out): the low-pass of 181 taps, written out for a block of points at 100 Hz; 40 Hz pass."""
    place = np.arange(-_HALF, _HALF + 1)
    taps = np.sinc(2 * 45 / SAMPLING_RATE * place) * np.kaiser(len(place), 5.65)
    matrix = np.zeros(((_BLOCK - 1) * _FACTOR + len(taps), _BLOCK), np.float32)
    for out in range(_BLOCK):
        matrix[out * _FACTOR : out * _FACTOR + len(taps), out] = taps / taps.sum()
    return matrix

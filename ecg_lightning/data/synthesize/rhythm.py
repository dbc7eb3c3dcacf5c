"""When the heart beats: onsets of QRS complexes and P waves, seconds from the record's beginning."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.heart import Floats, Heart
from ecg_lightning.data.synthesize.medicine import RANGES

Times = NDArray[np.float64]

BEGIN, END = -1.5, 11.5
"""Beats from before the record to behind it, so that its edges look like its middle."""
OWN, ECTOPIC = 0, 1
"""Kinds of QRS."""
SINUS, EARLY, RETROGRADE = 0, 1, 2
"""Kinds of P wave; more follow where the pacemaker wanders."""

_BREATH = 0.25
_SLOW = 0.1
"""Hz: respiratory and low-frequency swing of the heart rate (Task Force of the ESC and NASPE 1996)."""


class Rhythm(NamedTuple):
    """Onsets and kinds of both chambers, and the atria's activity without P waves, (3, time) mV, if there is any."""

    qrs: Times
    qrs_kind: NDArray[np.intp]
    p: Times
    p_kind: NDArray[np.intp]
    p_vectors: tuple[NDArray[np.float64], ...] = ()
    waves: Floats | None = None

    @property
    def rr(self) -> Times:
        """Interval before each QRS (beat,)."""
        intervals = np.diff(self.qrs)
        return np.concatenate([intervals[:1], intervals])


def make_rhythm(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    """The rhythm ``heart.rhythm``; ``time`` (time,) in seconds is for atria that never rest."""
    return RHYTHMS[heart.rhythm](heart, random, time)


def _train(rate: float, swing: float, random: np.random.Generator, jitter: float = 0.008) -> Times:
    """Beats at ``rate`` per minute whose interval swings with the breath by a share ``swing``, and slowly by half."""
    mean = 60 / rate
    count = math.ceil((END - BEGIN) / mean / (1 - 1.6 * swing)) + 2
    at = BEGIN + mean * np.arange(count)
    breath, slow = random.uniform(0, 2 * math.pi, 2)
    speed = random.uniform(0.85, 1.2) * _BREATH
    share = 1 + swing * np.sin(2 * math.pi * speed * at + breath)
    share += 0.4 * swing * np.sin(2 * math.pi * _SLOW * at + slow) + random.normal(0, jitter, count)
    beats = BEGIN - random.uniform(0, mean) + np.cumsum(mean * share)
    return beats[beats < END]


def _kinds(times: Times, kind: int = OWN) -> NDArray[np.intp]:
    return np.full(len(times), kind, np.intp)


def _sinus(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    beats = _train(heart.rate, heart.swing, random)
    kind, number = heart.premature
    if kind == "atrial":
        return _atrial_beats(beats, number, heart, random)
    if kind:
        return _ventricular_beats(beats, kind, number, heart, random)
    return Rhythm(beats, _kinds(beats), beats - heart.pr, _kinds(beats), _early_vector(random))


def _some(beats: Times, number: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Indices of ``number`` beats inside the record, no two of them neighbours."""
    inside = np.flatnonzero((beats > 1.2) & (beats < 9.0))
    chosen: list[int] = []
    for index in random.permutation(inside).tolist():
        if len(chosen) < number and all(abs(index - other) > 1 for other in chosen):
            chosen.append(index)
    return np.array(sorted(chosen), np.intp)


def _ventricular_beats(beats: Times, kind: str, number: int, heart: Heart, random: np.random.Generator) -> Rhythm:
    """Some sinus beats are forestalled by the ventricle; the sinus goes on undisturbed: the pause makes up for it."""
    every = {"bigeminy": 2, "trigeminy": 3}.get(kind)
    places = np.arange(1 + random.integers(every), len(beats), every) if every else _some(beats, number, random)
    coupling = RANGES["PVC coupling"].draw(random) + random.normal(0, 0.012, len(places))
    onset, kinds = beats.copy(), _kinds(beats)
    onset[places] = beats[places - 1] + coupling * (beats[places] - beats[places - 1])
    kinds[places] = ECTOPIC
    seen = np.ones(len(beats), bool)
    seen[places] = beats[places] - heart.pr > onset[places] + 0.1  # else the P is lost in the wide QRS
    return Rhythm(onset, kinds, (beats - heart.pr)[seen], _kinds(beats)[seen], _early_vector(random))


def _atrial_beats(beats: Times, number: int, heart: Heart, random: np.random.Generator) -> Rhythm:
    """Some beats come early from elsewhere in the atria and set the sinus anew: all that follow come early too."""
    onset, p_kinds = beats.copy(), _kinds(beats)
    for place in _some(beats, number, random):
        interval = beats[place] - beats[place - 1]
        early = (1 - RANGES["PAC coupling"].draw(random)) * interval
        onset[place:] -= early
        onset[place + 1 :] += random.uniform(0.05, 0.15) * interval
        p_kinds[place] = EARLY
    return Rhythm(onset, _kinds(onset), onset - heart.pr, p_kinds, _early_vector(random))


def _early_vector(random: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """P along another way: low in the atria (inverted in the inferior leads), or from the left."""
    low = np.array([0.08, -0.20, -0.03])
    left = np.array([-0.15, 0.11, -0.13])
    return (low if random.random() < 0.65 else left,)


def _fibrillation(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    mean, cv = 60 / heart.rate, RANGES["AFIB irregularity"].draw(random)
    shape = 1 / cv**2
    intervals = np.clip(random.gamma(shape, mean / shape, math.ceil(16 / mean)), 0.30, 2.4)
    beats = BEGIN - random.uniform(0, mean) + np.cumsum(intervals)
    beats = beats[beats < END]
    kinds = _kinds(beats)
    if heart.premature[0] == "ventricular":
        kinds[_some(beats, heart.premature[1], random)] = ECTOPIC
    return Rhythm(beats, kinds, np.empty(0), _kinds(np.empty(0)), (), fibrillatory_waves(random, time))


def fibrillatory_waves(random: np.random.Generator, time: Floats) -> Floats:
    """(3, time) mV: two wavering oscillations, the stronger one seen best by V1."""
    rate = RANGES["AFIB f rate"].draw(random) / 60
    total = np.zeros((3, len(time)), np.float32)
    for vector, size in (((-0.3, 0.35, -0.95), 0.08), ((0.2, 0.9, 0.2), 0.05)):
        phase = 2 * np.pi * rate * random.uniform(0.94, 1.06) * time
        phase += random.uniform(0.8, 2.2) * np.sin(2 * np.pi * random.uniform(0.25, 0.7) * time + random.uniform(0, 6))
        envelope = 1 + 0.45 * np.sin(2 * np.pi * random.uniform(0.15, 0.5) * time + random.uniform(0, 6))
        wave = envelope * (np.sin(phase) + 0.3 * np.sin(2 * phase + 1))
        total += np.outer(np.asarray(vector) * size * random.lognormal(0, 0.35), wave).astype(np.float32)
    return total


def _flutter(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    cycle = 60 / RANGES["AFLT rate"].draw(random)
    conduction = int(random.choice(4, p=[0.45, 0.1, 0.3, 0.15]))
    count = math.ceil((END - BEGIN) / cycle) + 1
    ratios = random.choice([2, 3, 4], count) if conduction == 3 else np.full(count, 2 + conduction)
    start = BEGIN - random.uniform(0, 0.5)
    beats = start + cycle * np.cumsum(ratios) + random.normal(0, 0.004, count)
    beats = beats[beats < END]
    waves = flutter_waves(random, (time - start - random.uniform(0, cycle)) / cycle)
    return Rhythm(beats, _kinds(beats), np.empty(0), _kinds(np.empty(0)), (), waves)


def flutter_waves(random: np.random.Generator, phase: Floats) -> Floats:
    """(3, time) mV at ``phase`` (time,) in cycles: a saw-tooth, down in the inferior leads, an upright wave in V1."""
    place = np.mod(phase, 1)
    tooth = np.interp(place, [0, 0.1, 0.30, 0.42, 0.55, 0.75, 1.0], [0.55, 0.15, -0.85, -1.0, -0.35, 0.75, 0.55])
    bump = np.exp(-0.5 * ((place - 0.62) / 0.13) ** 2) - 0.32
    size = random.uniform(0.11, 0.22)
    vectors = np.array([[0.04, 1.0, 0.12], [-0.15, 0.0, -0.85]]) * size
    return (vectors.T @ np.stack([tooth, bump])).astype(np.float32)


def _supraventricular_tachycardia(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    beats = _train(heart.rate, 0.004, random, 0.003)
    return _with_hidden_p(beats, random)


def _with_hidden_p(beats: Times, random: np.random.Generator) -> Rhythm:
    """P inside the QRS, or turned round behind it."""
    behind = beats + random.uniform(0.07, 0.12) if random.random() < 0.6 else np.empty(0)
    kinds = _kinds(behind, RETROGRADE)
    return Rhythm(beats, _kinds(beats), behind, kinds, (*_early_vector(random), np.array([-0.02, -0.17, -0.05])))


def _paroxysm(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    """Sinus rhythm, and a run of tachycardia that begins or ends within the record."""
    border = random.uniform(3.2, 6.8)
    run, calm = _with_hidden_p(_train(heart.rate, 0.004, random, 0.003), random), _train(78, 0.02, random)
    first = random.random() < 0.6  # sinus first
    pause = 0.1 if first else random.uniform(0.7, 1.1)
    mine = run.qrs > border if first else run.qrs < border
    its_p = run.p > border if first else run.p < border + 0.12
    calm = calm[calm < border - 0.28] if first else calm[calm > border + pause]
    order = np.argsort(qrs := np.concatenate([calm, run.qrs[mine]]))
    p = np.concatenate([calm - heart.pr, run.p[its_p]])
    p_kind = np.concatenate([_kinds(calm), run.p_kind[its_p]])
    return Rhythm(qrs[order], _kinds(qrs), p, p_kind, run.p_vectors)


def _wandering(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    """Three and more shapes of P, intervals without order."""
    beats = _train(heart.rate, 0.02, random, 0.15)
    beats = beats[np.concatenate([[True], np.diff(beats) > 0.36])]
    vectors = tuple(np.array(v) for v in ([0.08, -0.20, -0.03], [-0.16, 0.12, -0.12], [0.08, 0.26, 0.08]))
    pr = heart.pr + random.uniform(-0.04, 0.02, len(beats))
    return Rhythm(beats, _kinds(beats), beats - pr, random.integers(0, 4, len(beats)), vectors)


def _paced(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    """The ventricle is paced behind each P, or at its own rate with the atria apart or still."""
    mode = random.integers(3)
    beats = _train(heart.rate, 0.02 if mode == 0 else 0.0, random, 0.002)
    p = (beats - 0.16, _train(random.uniform(62, 92), 0.03, random), np.empty(0))[mode]
    return Rhythm(beats, _kinds(beats, ECTOPIC), p, _kinds(p), _early_vector(random))


def _second_degree_block(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    """Wenckebach (PR grows until a beat is dropped) or every second beat dropped."""
    p = _train(heart.rate, 0.01, random)
    length = int(random.choice([2, 3, 4, 5]))
    place = (np.arange(len(p)) + random.integers(length)) % length
    pr = heart.pr + (0.0 if length == 2 else 0.05) * place + (0.03 if length > 2 else 0.0) * (place > 0)
    conducted = place < length - 1
    beats = (p + pr)[conducted]
    return Rhythm(beats, _kinds(beats), p, _kinds(p), _early_vector(random))


def _third_degree_block(heart: Heart, random: np.random.Generator, time: Floats) -> Rhythm:
    """Atria and ventricles each at their own rate; the escape is narrow, or wide from below the bundle."""
    p = _train(RANGES["3AVB atrial rate"].draw(random), 0.02, random)
    beats = _train(RANGES["3AVB ventricular rate"].draw(random), 0.0, random, 0.006)
    kind = ECTOPIC if random.random() < 0.5 else OWN
    return Rhythm(beats, _kinds(beats, kind), p, _kinds(p), _early_vector(random))


RHYTHMS: dict[str, Callable[[Heart, np.random.Generator, Floats], Rhythm]] = {
    "sinus": _sinus,
    "fibrillation": _fibrillation,
    "flutter": _flutter,
    "supraventricular tachycardia": _supraventricular_tachycardia,
    "paroxysm": _paroxysm,
    "wandering": _wandering,
    "paced": _paced,
    "second degree block": _second_degree_block,
    "third degree block": _third_degree_block,
}

"""The heart as a dipole: Gaussian waves of its x, y and z, and the twelve leads that see it.

Source: the sum of Gaussians on the phase circle of McSharry et al. 2003 (IEEE TBME 50:289) in the three-dimensional
form of Sameni et al. 2007 (EURASIP J. Adv. Signal Process. 2007:43407); lead vectors of Dower et al. 1980 (Clin.
Cardiol. 3:87).
Differs: the waves stand in seconds of their own beat, not in degrees, so that a QRS keeps its width when the rate
changes; those of ST and T follow the beat's QT (Fridericia); each Gaussian has a width to either side.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DOWER = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)
"""(lead, axis): x to the left, y to the feet, z to the back; the other four leads follow from I and II."""

# (time, width) as shares of the QRS, then x, y, z in mV: septum, apex and free wall, base, end.
NORMAL_QRS = np.array(
    [
        [0.18, 0.075, -0.10, -0.05, -0.21],
        [0.42, 0.100, 1.04, 0.86, 0.12],
        [0.58, 0.100, 0.20, 0.02, 0.80],
        [0.74, 0.090, -0.12, -0.04, 0.12],
    ]
)
# (time, width) as shares of the P wave, then x, y, z in mV: right atrium, left atrium.
NORMAL_P = np.array([[0.36, 0.17, 0.085, 0.090, -0.065], [0.66, 0.16, 0.110, 0.070, 0.035]])
NORMAL_T = np.array([0.35, 0.19, -0.20])

_TIME, _LEFT, _RIGHT = 0, 2, 4
_VECTOR = slice(6, 9)
_COLUMNS = 9
"""Of a wave: time, width before and width after its peak (s), each with what it gains per second of QT; x, y, z."""


@dataclass(eq=False)
class Heart:
    """One heart at the time of one record; statements change it. Seconds and mV.

    Attributes:
        qrs: (wave, 5) as shares of ``qrs_duration``.
        st: vector at the J point.
        t: vector of the T wave; ``t_symmetric`` 0 to 1, ``t_width`` a factor.
        p: (wave, 5) as shares of ``p_duration``.
        frontal, horizontal: turns of the heart in its chest, radians; positive to the feet, and to the left.
        rhythm: a name of `rhythm.RHYTHMS`; ``premature``: early beats as (kind, number).
        ectopic_qrs, ectopic_t: those of ventricular and paced beats.
        spike: whether paced.
    """

    qrs: NDArray[np.float64] = field(default_factory=NORMAL_QRS.copy)
    qrs_duration: float = 0.09
    st: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    st_scooped: bool = False
    t: NDArray[np.float64] = field(default_factory=NORMAL_T.copy)
    t_symmetric: float = 0.0
    t_width: float = 1.0
    u: float = 0.0
    p: NDArray[np.float64] = field(default_factory=NORMAL_P.copy)
    p_duration: float = 0.1
    pr: float = 0.16
    qtc: float = 0.41
    rate: float = 72.0
    swing: float = 0.03
    frontal: float = 0.0
    horizontal: float = 0.0
    rhythm: str = "sinus"
    premature: tuple[str, int] = ("", 0)
    ectopic_qrs: NDArray[np.float64] = field(default_factory=NORMAL_QRS.copy)
    ectopic_t: NDArray[np.float64] = field(default_factory=NORMAL_T.copy)
    ectopic_duration: float = 0.16
    spike: bool = False

    def qt(self, rr: NDArray[np.float64]) -> NDArray[np.float64]:
        """QT (beat,) after the intervals ``rr`` (beat,): Fridericia, longer by most of what a wide QRS takes."""
        settled = 0.6 * rr.mean() + 0.4 * rr  # the QT follows the rate slowly
        qt: NDArray[np.float64] = self.qtc * np.cbrt(settled) + 0.7 * max(0.0, self.qrs_duration - 0.1)
        return qt

    def axis_degrees(self) -> float:
        """Frontal axis of the QRS, -180 to 180, from the areas of I and aVF in Dower's lead field."""
        area = turn((self.qrs[:, 1:2] * self.qrs[:, 2:]).sum(axis=0), self.frontal, self.horizontal)
        first, second = DOWER[:2] @ area
        return math.degrees(math.atan2((2 * second - first) / math.sqrt(3), first))

    def ventricular_waves(self) -> Floats:
        """(kind, wave, column): 0 its own beats, 1 ectopic or paced ones."""
        own = self._beat(self.qrs, self.qrs_duration, self.st, self.t)
        away = self._beat(self.ectopic_qrs, self.ectopic_duration, 0.25 * self.ectopic_t, self.ectopic_t)
        if self.spike:
            spike = np.zeros((1, _COLUMNS))
            spike[0, [_TIME, _LEFT, _RIGHT]] = -0.004, 0.0011, 0.0013
            spike[0, _VECTOR] = 0.9, -1.4, 0.9
            away = np.concatenate([away, spike])
        return self._turned(own, away)

    def atrial_waves(self, *others: NDArray[np.float64]) -> Floats:
        """(kind, wave, column): 0 the sinus P, then one kind for each of ``others`` (3,): the P along that vector."""
        p = _scaled(self.p, self.p_duration)
        kinds = [p]
        for vector in others:
            other = p.copy()
            other[:, _VECTOR] = np.outer([0.55, 0.45], vector)
            kinds.append(other)
        return self._turned(*kinds)

    def _beat(
        self, qrs: NDArray[np.float64], duration: float, st: NDArray[np.float64], t: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        slow = np.zeros((3, _COLUMNS))
        if self.st_scooped:
            slow[0, :6] = duration + 0.03, 0.16, 0.025, 0.07, 0.02, 0.06
        else:
            slow[0, :6] = duration + 0.035, 0, 0.018, 0, 0.0, 0.19
        left = (0.145 * (1 - self.t_symmetric) + 0.105 * self.t_symmetric) * self.t_width
        right = (0.088 * (1 - self.t_symmetric) + 0.095 * self.t_symmetric) * self.t_width
        slow[1, :6] = 0, 1 - 2.5 * right, 0, left, 0, right
        slow[2, :6] = 0.06, 1.0, 0.035, 0, 0.04, 0
        slow[:, _VECTOR] = st, t, self.u * t
        return np.concatenate([_scaled(qrs, duration), slow])

    def _turned(self, *kinds: NDArray[np.float64]) -> Floats:
        waves = np.zeros((len(kinds), max(map(len, kinds)), _COLUMNS))
        waves[..., [_LEFT, _RIGHT]] = 1.0  # padding: no width of zero
        for place, kind in enumerate(kinds):
            waves[place, : len(kind)] = kind
        waves[..., _VECTOR] = turn(waves[..., _VECTOR], self.frontal, self.horizontal)
        return waves.astype(np.float32)


def _scaled(shares: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    waves = np.zeros((len(shares), _COLUMNS))
    waves[:, _TIME] = shares[:, 0] * duration
    waves[:, _LEFT] = waves[:, _RIGHT] = shares[:, 1] * duration
    waves[:, _VECTOR] = shares[:, 2:]
    return waves


def turn(vectors: NDArray[np.float64], frontal: float, horizontal: float) -> NDArray[np.float64]:
    """``vectors`` (..., 3) turned in the frontal plane (left to feet) and in the horizontal one (back to left)."""
    a, b = (math.cos(frontal), math.sin(frontal)), (math.cos(horizontal), math.sin(horizontal))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    x, y = a[0] * x - a[1] * y, a[1] * x + a[0] * y
    return np.stack([b[0] * x + b[1] * z, y, b[0] * z - b[1] * x], axis=-1)


def beat_sum(
    waves: Floats, kind: NDArray[np.intp], onset: NDArray[np.float64], qt: NDArray[np.float64], gain: Floats,
    *, num_points: int, sampling_rate: float, before: float, after: float,
) -> Floats:  # fmt: skip
    """The dipole (3, time) of beats of ``kind`` at ``onset`` (s), with ``qt`` (s) and ``gain``, all (beat,).

    Each beat is drawn from ``before`` seconds ahead of its onset to ``after`` seconds behind it.
    """
    lead_in, window = math.ceil(before * sampling_rate), math.ceil((before + after) * sampling_rate)
    dipole = np.zeros((3, num_points + 2 * window), np.float32)
    first = np.floor(onset * sampling_rate).astype(np.intp) - lead_in
    shown = (first > -window) & (first < num_points)
    first, onset, kind, qt, gain = first[shown], onset[shown], kind[shown], qt[shown], gain[shown]
    beats = waves[kind]  # (beat, wave, column)
    shape = beats[..., :6:2] + beats[..., 1:6:2] * qt[:, None, None].astype(np.float32)
    start = (first / sampling_rate - onset).astype(np.float32)
    grid = start[:, None] + np.arange(window, dtype=np.float32) / np.float32(sampling_rate)
    distance = grid[:, None, :] - shape[..., 0, None]  # (beat, wave, time)
    distance *= np.where(distance < 0, 1 / shape[..., 1, None], 1 / shape[..., 2, None])
    np.square(distance, out=distance)
    distance *= np.float32(-0.5)
    np.exp(distance, out=distance)
    vectors = beats[..., _VECTOR].transpose(0, 2, 1) * gain[:, None, None]
    for begin, beat in zip((first + window).tolist(), vectors @ distance, strict=True):
        dipole[:, begin : begin + window] += beat
    return dipole[:, window : window + num_points]

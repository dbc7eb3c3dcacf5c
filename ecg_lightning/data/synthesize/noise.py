"""What electrodes add to an ECG: baseline wander, muscle, mains (50 Hz), loose contacts; and how PTB-XL notes it.

Noise arises at the nine electrodes and reaches the leads as voltage differences, so that Einthoven's law holds for it.
Ordinary levels are those of PTB-XL's normal records: above 30 Hz a robust deviation of 3 uV in I and 2 uV in V6, below
0.6 Hz one of 30 to 45 uV (medians over 147 records at 500 Hz).
"""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.heart import Floats

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
_SEEN_BY = {"RA": "I,II,AVR", "LA": "I,III,AVL", "LL": "II,III,AVF"}
_MUSCLE, _WANDER, _MAINS = 0.0018, 0.026, 0.0010
"""mV, usual levels at one electrode."""
_STRONG = {"baseline_drift": 0.074, "static_noise": 0.145, "burst_noise": 0.031, "electrodes_problems": 0.006}
"""Shares of PTB-XL's records (of those with ids 1 to 500 where no count is published) that note each."""
_PERIOD = 20.0
_HIGHEST = 0.6
_PAST = 40
"""Wander: 12 oscillations of 0.05 to 0.6 Hz."""


@dataclass(frozen=True, eq=False)
class Noise:
    """Levels (electrode,) in mV, and the quality columns that go with them."""

    muscle: NDArray[np.float64]
    wander: NDArray[np.float64]
    mains: NDArray[np.float64]
    burst: NDArray[np.float64]
    steps: NDArray[np.float64]
    notes: dict[str, str] = field(default_factory=dict)


def draw_noise(random: np.random.Generator) -> Noise:
    """One record's levels; some are strong, and noted."""
    spread = random.lognormal(0, 0.4, 3)
    level = np.outer((_MUSCLE, _WANDER, _MAINS), np.ones(9)) * spread[:, None] * random.lognormal(0, 0.35, (3, 9))
    level[0, 3:] *= 0.5  # the chest has less muscle under its electrodes than arms have
    burst, steps, notes = np.zeros(9), np.zeros(9), {}
    chosen = random.random(4) < list(_STRONG.values())
    for name, strong in zip(_STRONG, chosen.tolist(), strict=True):
        if not strong:
            continue
        where, notes[name] = _place(name, random)
        if name == "baseline_drift":
            level[1, where] = _WANDER * random.uniform(8, 18)
        elif name == "static_noise":
            level[0 if random.random() < 0.6 else 2, where] = random.uniform(0.02, 0.05)
        elif name == "burst_noise":
            burst[where] = random.uniform(0.05, 0.2)
        else:
            steps[where] = random.uniform(0.5, 2.0)
    return Noise(level[0], level[1], level[2], burst, steps, notes)


def _place(name: str, random: np.random.Generator) -> tuple[list[int], str]:
    """Electrodes concerned, and the leads as PTB-XL writes them."""
    if name == "static_noise" and random.random() < 0.25:
        return list(range(9)), " , alles,  "
    place = int(random.integers(9))
    leads = _SEEN_BY.get(ELECTRODES[place], ELECTRODES[place])
    return [place], {"baseline_drift": f" , {leads}", "static_noise": f" , {leads},  "}.get(name, leads)


def electrode_noise(noise: Noise, random: np.random.Generator, num_points: int, sampling_rate: int) -> Floats:
    """(electrode, time) mV."""
    white = random.standard_normal((9, num_points + 1), np.float32)
    total = white[:, 1:] - np.float32(0.85) * white[:, :-1]  # little below 30 Hz, as muscle has
    total *= (noise.muscle / 1.3).astype(np.float32)[:, None]
    size = 1 / np.arange(1, round(_PERIOD * _HIGHEST) + 1) ** 0.6
    mixture = random.standard_normal((9, 2 * len(size))) * np.tile(size / np.linalg.norm(size), 2)
    total += (noise.wander[:, None] * mixture).astype(np.float32) @ _slow_waves(num_points, sampling_rate)
    frequency, phase = random.normal(50, 0.03), random.uniform(0, 2 * math.pi)
    hum = np.sin(2 * math.pi * frequency / sampling_rate * np.arange(num_points, dtype=np.float32) + phase)
    total += noise.mains.astype(np.float32)[:, None] * hum.astype(np.float32)
    for place in np.flatnonzero(noise.burst).tolist():
        total[place] += noise.burst[place] * _burst(white[place, 1:], random, sampling_rate)
    for place in np.flatnonzero(noise.steps).tolist():
        total[place] += noise.steps[place] * _loose(random, num_points, sampling_rate)
    return total


@cache
def _slow_waves(num_points: int, sampling_rate: int) -> Floats:
    time = np.arange(num_points) / sampling_rate
    angle = 2 * np.pi / _PERIOD * np.arange(1, round(_PERIOD * _HIGHEST) + 1)[:, None] * time
    return np.concatenate([np.sin(angle), np.cos(angle)]).astype(np.float32)


def _burst(white: Floats, random: np.random.Generator, sampling_rate: int) -> Floats:
    time = np.arange(len(white), dtype=np.float32) / sampling_rate
    window = np.exp(-0.5 * ((time - random.uniform(1, 9)) / random.uniform(0.2, 0.9)) ** 2)
    return (white * window).astype(np.float32)


def _loose(random: np.random.Generator, num_points: int, sampling_rate: int) -> Floats:
    """A contact that jumps and creeps back."""
    time = np.arange(num_points) / sampling_rate
    total = np.zeros(num_points)
    for start in random.uniform(0.5, 9.5, int(random.integers(1, 4))):
        total += random.choice([-1, 1]) * np.where(time >= start, np.exp(-(time - start) / random.uniform(0.4, 2.5)), 0)
    return total.astype(np.float32)

"""Measures a noise-free ECG as a reader would: beats, intervals, voltages. Independent of how it was made."""

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import find_peaks

LEADS = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
RATE = 500


def lead(ecg: np.ndarray, name: str) -> np.ndarray:
    """One lead of ``ecg`` (lead, time)."""
    return ecg[LEADS.index(name)]


def steepness(ecg: np.ndarray) -> np.ndarray:
    """How fast the twelve leads change together, (time,) in mV per ms."""
    return np.abs(np.gradient(gaussian_filter1d(ecg, 1.0, axis=1), axis=1)).sum(axis=0) * RATE / 1000


def beats(ecg: np.ndarray) -> np.ndarray:
    """Time points of the QRS complexes."""
    energy = uniform_filter1d(steepness(ecg), 50)
    return find_peaks(energy, height=0.35 * np.quantile(energy, 0.995), distance=125)[0]


def rr(ecg: np.ndarray) -> np.ndarray:
    """Intervals between beats in seconds."""
    return np.diff(beats(ecg)) / RATE


def heart_rate(ecg: np.ndarray) -> float:
    """Beats per minute."""
    return 60 / rr(ecg).mean()


def qrs_edges(ecg: np.ndarray, beat: int) -> tuple[int, int]:
    """First and last time point of the QRS around ``beat``: where the leads change faster than P and T ever do."""
    speed = steepness(ecg)
    around = speed[beat - 75 : beat + 75]
    fast = np.flatnonzero(around > max(0.045 * around.max(), 0.016))
    middle = np.flatnonzero(fast <= 75)[-1] if (fast <= 75).any() else 0
    begin = end = middle
    while begin and fast[begin] - fast[begin - 1] <= 12:
        begin -= 1
    while end < len(fast) - 1 and fast[end + 1] - fast[end] <= 12:
        end += 1
    return beat - 75 + int(fast[begin]), beat - 75 + int(fast[end])


def inner_beats(ecg: np.ndarray) -> list[int]:
    """Beats with room to either side."""
    return [int(beat) for beat in beats(ecg) if 300 < beat < ecg.shape[1] - 300]


def qrs_width(ecg: np.ndarray) -> float:
    """Median width of the QRS in ms."""
    edges = [qrs_edges(ecg, beat) for beat in inner_beats(ecg)]
    return float(np.median([end - begin for begin, end in edges])) * 1000 / RATE


def pr_interval(ecg: np.ndarray) -> float:
    """Median time from the beginning of the P wave to that of the QRS in ms."""
    found = []
    speed = gaussian_filter1d(steepness(ecg), 3)
    for beat in inner_beats(ecg):
        begin, _ = qrs_edges(ecg, beat)
        before = speed[begin - 190 : begin - 10]
        fast = np.flatnonzero(before > 0.25 * before.max())
        first = len(fast) - 1
        while first and fast[first] - fast[first - 1] <= 40:
            first -= 1
        found.append(190 - fast[first])
    return float(np.median(found)) * 1000 / RATE


def st_level(ecg: np.ndarray, name: str) -> float:
    """Median height 60 ms behind the QRS over the level before it, mV."""
    values = lead(ecg, name)
    levels = []
    for beat in inner_beats(ecg):
        begin, end = qrs_edges(ecg, beat)
        levels.append(values[end + 30] - values[begin - 8 : begin - 3].mean())
    return float(np.median(levels))


def t_level(ecg: np.ndarray, name: str) -> float:
    """Median of the largest deflection 120 to 380 ms behind the QRS, mV, over the level before it."""
    values = lead(ecg, name)
    levels = []
    for beat in inner_beats(ecg):
        begin, end = qrs_edges(ecg, beat)
        wave = values[end + 60 : end + 190] - values[begin - 8 : begin - 3].mean()
        levels.append(wave[np.abs(wave).argmax()])
    return float(np.median(levels))


def qrs_extremes(ecg: np.ndarray, name: str) -> tuple[float, float]:
    """Medians of the highest and the lowest point in the QRS, mV, over the level before it."""
    values = lead(ecg, name)
    parts = [(values[b - 8 : b - 3].mean(), values[b:e]) for b, e in (qrs_edges(ecg, x) for x in inner_beats(ecg))]
    return float(np.median([p.max() - z for z, p in parts])), float(np.median([p.min() - z for z, p in parts]))

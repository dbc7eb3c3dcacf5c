"""How good the signals are: four measures on each lead of each record, stated so that they can be computed by hand.

They describe and decide nothing: no record is left out of anything because of them. The bounds were set on 422 records
of PTB-XL (ids below 500), beside what its readers noted there (columns ``baseline_drift``, ``static_noise``).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.store import Store

FLAT_MV = 0.01
"""A second within which a lead moves less is flat; the quietest second in those 422 records moves by 0.029 mV."""
CLIPPED_SECONDS, CLIPPED_POINTS, CLIPPED_MV = 0.02, 3, 0.5
NOISE_SECONDS, NOISY_MV = 0.07, 0.02
WANDER_MV = 0.5

NUM_LOOKED_AT = 5000
"""Of a larger store this many records are read, unless all are asked for."""
_CHUNK_BYTES = 2**23
_MAD_TO_DEVIATION = 1.4826

DEFINITIONS = {
    "flat": f"moves by less than {FLAT_MV:g} mV within a whole second (seconds counted from the start)",
    "clipped": f"stays at its highest or lowest value for {1000 * CLIPPED_SECONDS:g} ms or longer (at least "
    f"{CLIPPED_POINTS} time points), {CLIPPED_MV:g} mV or more from its median; a stay that lasts to the end of the "
    "record does not count, as PTB-XL's 500 Hz records often end in 0.1 s of one value",
    "noisy": f"high-frequency noise above {NOISY_MV:g} mV: what a parabola fitted to the {1000 * NOISE_SECONDS:g} ms "
    "around each time point leaves over (Savitzky and Golay 1964), as 1.4826 x its median absolute value, so that "
    "beats, being short, hardly count; scaled so that white noise measures its standard deviation",
    "wander": f"the medians of the seconds differ by more than {WANDER_MV:g} mV (5 mm on paper)",
}
"""By name of the fault: when a lead has it."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Faults of some records of a store.

    Attributes:
        rows: (record,) of the store, ascending.
        faults: by name as in `DEFINITIONS`, (record, lead) bool; without ``clipped`` for a filtered store, since
            filters round clipped tops off.
        noise: (record, lead), mV.
        wander: (record, lead), mV.
    """

    rows: NDArray[np.int64]
    faults: dict[str, NDArray[np.bool_]]
    noise: NDArray[np.float32]
    wander: NDArray[np.float32]


def store_quality(
    store: Store,
    *,
    all_records: bool = False,
    seed: int = 0,
    track: Callable[[Iterable[NDArray[np.int64]], int], Iterable[NDArray[np.int64]]] | None = None,
) -> Quality:
    """Measures the leads of ``store``, some records at a time; of more than 5,000 records, 5,000 drawn by ``seed``.

    ``track`` is given the chunks of rows and how many there are, and may show how far they are.
    """
    rows = np.arange(store.num_records)
    if len(rows) > NUM_LOOKED_AT and not all_records:
        rows = np.sort(np.random.default_rng(seed).choice(rows, NUM_LOOKED_AT, replace=False))
    rate, filtered, signals = store.stored.sampling_rate, bool(store.stored.chain), store.signals()
    num = max(1, _CHUNK_BYTES // (4 * signals.shape[1] * signals.shape[2]))
    num_chunks = -(-len(rows) // num)
    chunks: Iterable[NDArray[np.int64]] = (rows[start : start + num] for start in range(0, len(rows), num))
    measured = []
    for chunk in track(chunks, num_chunks) if track else chunks:
        ecg = signals[chunk].astype(np.float32) * np.float32(store.millivolts_per_unit)
        clipping = np.zeros(ecg.shape[:2], bool) if filtered else clipped(ecg, rate)
        measured.append((flat(ecg, rate), clipping, noise(ecg, rate), wander(ecg, rate)))
    is_flat, is_clipped, noise_mv, wander_mv = (np.concatenate(parts) for parts in zip(*measured, strict=True))
    faults = {"flat": is_flat, "clipped": is_clipped, "noisy": noise_mv > NOISY_MV, "wander": wander_mv > WANDER_MV}
    if filtered:
        del faults["clipped"]
    return Quality(rows, faults, noise_mv, wander_mv)


def flat(ecg: NDArray[np.floating], sampling_rate: float) -> NDArray[np.bool_]:
    """Whether a lead is flat for a whole second: ``ecg`` (record, lead, time) in mV -> (record, lead)."""
    return np.asarray((np.ptp(_seconds(ecg, sampling_rate), axis=-1) < FLAT_MV).any(axis=-1))


def clipped(ecg: NDArray[np.floating], sampling_rate: float) -> NDArray[np.bool_]:
    """Whether a lead rests at an extreme value: ``ecg`` (record, lead, time) in mV, unfiltered -> (record, lead)."""
    length = max(CLIPPED_POINTS, int(np.ceil(CLIPPED_SECONDS * sampling_rate)))
    median = np.median(ecg, axis=-1, keepdims=True)
    found = np.zeros(ecg.shape[:-1], bool)
    for extreme in (ecg.max(axis=-1, keepdims=True), ecg.min(axis=-1, keepdims=True)):
        there = (ecg == extreme) & (np.abs(extreme - median) >= CLIPPED_MV)
        there &= ~np.logical_and.accumulate(there[..., ::-1], axis=-1)[..., ::-1]  # the stay that lasts to the end
        found |= _any_run(there, length)
    return found


def noise(ecg: NDArray[np.floating], sampling_rate: float) -> NDArray[np.float32]:
    """High-frequency noise in mV as `DEFINITIONS` has it: ``ecg`` (record, lead, time) in mV -> (record, lead)."""
    from scipy.signal import savgol_coeffs, savgol_filter

    width = max(5, round(NOISE_SECONDS * sampling_rate) | 1)
    rest = np.abs(ecg - savgol_filter(ecg, width, 2, axis=-1))
    kernel = -savgol_coeffs(width, 2)
    kernel[width // 2] += 1
    scale = _MAD_TO_DEVIATION / np.sqrt(np.square(kernel).sum())
    return np.asarray(np.median(rest, axis=-1) * scale, np.float32)


def wander(ecg: NDArray[np.floating], sampling_rate: float) -> NDArray[np.float32]:
    """How far the baseline moves, in mV: the range of the medians of the seconds; (record, lead, time) in mV."""
    medians = np.median(_seconds(ecg, sampling_rate), axis=-1)
    return np.asarray(np.ptp(medians, axis=-1), np.float32)


def _seconds(ecg: NDArray[np.floating], sampling_rate: float) -> NDArray[np.floating]:
    """(..., time) -> (..., second, time); what is left at the end is passed over, a record below 1 s is one piece."""
    length = min(max(1, round(sampling_rate)), ecg.shape[-1])
    num = ecg.shape[-1] // length
    return ecg[..., : num * length].reshape(*ecg.shape[:-1], num, length)


def _any_run(there: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Whether ``there`` (..., time) is true ``length`` times in a row anywhere."""
    run = there
    for shift in _doublings(length):
        run = run[..., shift:] & run[..., : run.shape[-1] - shift]
    return np.asarray(run.any(axis=-1))


def _doublings(length: int) -> Iterator[int]:
    """Shifts whose combination makes a run of 1 one of ``length``: 10 -> 1, 2, 4, 2."""
    have = 1
    while have < length:
        shift = min(have, length - have)
        yield shift
        have += shift

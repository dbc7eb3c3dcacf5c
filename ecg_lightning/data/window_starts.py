"""Where random windows begin: a function of (seed, epoch, record), computed for a whole batch at once."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_starts(seed: int, epoch: int, ecg_ids: NDArray[np.int64], last: int) -> NDArray[np.int64]:
    """First time points (record,), each of 0..``last`` as likely as any other.

    The draw of a record is number ``ecg_id`` of a SplitMix64 stream whose start is made of (seed, epoch), so it is the
    same whichever batch, process or worker it is asked in. A generator of its own for each record, the plain way, takes
    11 us a record, more than all the rest of a batch.

    Source: Steele, Lea and Flood 2014 (doi:10.1145/2660193.2660195); Lemire 2019 (arXiv 1805.10941) for the range.
    """
    bits = (
        _first(seed, epoch) + (ecg_ids.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    )  # arrays wrap around, as the stream does
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    starts: NDArray[np.int64] = ((bits >> np.uint64(32)) * np.uint64(last + 1) >> np.uint64(32)).astype(np.int64)
    return starts


@lru_cache(maxsize=8)
def _first(seed: int, epoch: int) -> np.uint64:
    first: np.uint64 = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    return first

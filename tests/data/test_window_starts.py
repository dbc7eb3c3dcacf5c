import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_lightning.data.window_starts import random_starts

IDS = np.arange(1, 21_838)
PINNED = [342, 493, 745, 591]


def test_the_draws_are_those_that_earlier_runs_were_trained_with():
    """To change them is to change every run that is resumed."""
    assert random_starts(42, 0, np.array([1, 2, 3, 21_837]), 750).tolist() == PINNED
    assert random_starts(42, 1, np.array([1]), 750).tolist() != PINNED[:1]


def plainly(seed: int, epoch: int, ecg_id: int, last: int) -> int:
    """The published stream, number by number in whole numbers."""
    state = int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])
    bits = (state + (ecg_id + 1) * 0x9E3779B97F4A7C15) % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return ((bits ^ bits >> 31) >> 32) * (last + 1) >> 32


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 1000), st.lists(st.integers(0, 2**40), min_size=1), st.integers(0, 5000)
)
def test_they_are_those_of_the_published_stream_and_lie_in_the_range(seed, epoch, ids, last):
    starts = random_starts(seed, epoch, np.array(ids), last)
    assert starts.tolist() == [plainly(seed, epoch, ecg_id, last) for ecg_id in ids]
    assert ((starts >= 0) & (starts <= last)).all()


@pytest.mark.parametrize("last", [1, 9, 750])
def test_every_start_is_as_likely_as_any_other(last):
    """Chi-square over 20 epochs of PTB-XL's ids, within five deviations."""
    counts = sum(np.bincount(random_starts(7, epoch, IDS, last), minlength=last + 1) for epoch in range(20))
    expected = 20 * len(IDS) / (last + 1)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - last) < 5 * np.sqrt(2 * last)


@pytest.mark.parametrize("other", [(7, 1, 0), (8, 0, 0), (7, 0, 1)], ids=["next epoch", "next seed", "next record"])
def test_neighbours_share_nothing(other):
    seed, epoch, step = other
    one, two = random_starts(7, 0, IDS, 749), random_starts(seed, epoch, IDS + step, 749)
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(len(IDS))
    assert abs((one == two).mean() - 1 / 750) < 5 * np.sqrt(1 / 750 / len(IDS))

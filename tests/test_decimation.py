import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import decimate

from ecg_lightning.decimation import decimate_array, decimate_tensor


def wave(length: int, seed: int = 0) -> np.ndarray:
    """Wandering, noisy, far from zero at its ends."""
    random = np.random.default_rng(seed)
    return 3 + random.normal(size=(2, length)).cumsum(axis=-1) * 0.1 + random.normal(size=(2, length))


@given(length=st.integers(28, 900), factor=st.integers(2, 8), seed=st.integers(0, 99))
@example(length=433, factor=5, seed=0)  # little room before the next power of two
@settings(max_examples=40)
def test_arrays_and_tensors_are_decimated_as_by_scipy(length, factor, seed):
    x = wave(length, seed)
    expected = decimate(x, factor)
    np.testing.assert_allclose(decimate_array(x, factor), expected, atol=1e-10, rtol=0)
    np.testing.assert_allclose(decimate_tensor(torch.from_numpy(x), factor), expected, atol=1e-6, rtol=0)


def test_single_precision_is_kept_and_is_near_enough():
    x = wave(30_000).clip(-1, 1)
    y = decimate_tensor(torch.from_numpy(x).float(), 5)
    assert y.dtype is torch.float32
    np.testing.assert_allclose(y, decimate(x, 5), atol=2e-6, rtol=0)


def test_other_axes_stay_as_they_are():
    x = torch.from_numpy(wave(600)).view(2, 1, 600).expand(2, 3, 600)
    y = decimate_tensor(x, 5)
    assert y.shape == (2, 3, 120)
    torch.testing.assert_close(y[1, 2], decimate_tensor(x[1, 2], 5))


def test_too_short_a_signal_is_refused():
    with pytest.raises(ValueError, match="27 time points are too few"):
        decimate_tensor(torch.zeros(1, 27), 5)

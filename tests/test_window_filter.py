import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from ecg_lightning.chains import (
    BatchStep,
    Chain,
    Crop,
    Resample,
    Standardise,
    WindowFilter,
    chain_from_json,
    chain_to_json,
    run_batch_chain,
)
from ecg_lightning.signals import SignalSpec

HIGH, LOW = WindowFilter("highpass", 0.67, 250), WindowFilter("lowpass", 40.0, 250)


def windows(num_time_points: int = 600) -> np.ndarray:
    random = np.random.default_rng(0)
    wander = 3 * np.sin(np.arange(num_time_points) / 100) + 5
    return random.standard_normal((2, 3, num_time_points)) + wander


def filtered(step: WindowFilter, ecg: np.ndarray) -> np.ndarray:
    sections = butter(step.order, step.cutoff, btype=step.kind, fs=step.sampling_rate, output="sos")
    return np.ascontiguousarray(sosfiltfilt(sections, ecg, axis=-1))


@pytest.mark.parametrize("step", [HIGH, LOW], ids=lambda step: step.kind)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_the_window_filter_equals_scipys_on_tensors(step, dtype, tolerance):
    ecg = windows()
    ours = step(torch.from_numpy(ecg).to(dtype))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), torch.from_numpy(filtered(step, ecg)), atol=tolerance, rtol=0)


@given(num_time_points=st.integers(40, 300), order=st.integers(1, 6), cutoff=st.floats(1.0, 100.0))
def test_the_window_filter_equals_scipys_on_arrays_of_any_length(num_time_points, order, cutoff):
    step, ecg = WindowFilter("lowpass", cutoff, 250, order), windows(num_time_points)
    np.testing.assert_allclose(step(ecg), filtered(step, ecg), atol=1e-8)


@pytest.mark.parametrize("order", [(HIGH, LOW), (LOW, HIGH, LOW)], ids=["two", "three"])
def test_filters_that_follow_one_another_are_one_product_of_the_same_numbers(order):
    ecg, expected = windows(), windows()
    for step in order:
        expected = filtered(step, expected)
    chain = (Standardise(1.0), *order, Standardise(0.0, 2.0))
    got = run_batch_chain(chain, torch.from_numpy(ecg + 1))
    torch.testing.assert_close(got, torch.from_numpy(expected / 2), atol=1e-9, rtol=0)
    np.testing.assert_allclose(run_batch_chain(order, ecg), expected, atol=1e-9)


def test_the_window_filter_keeps_its_precision_under_autocast():
    """Features of a frozen backbone are computed under autocast: half a precision would be another signal."""
    ecg = torch.from_numpy(windows()).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = HIGH(ecg)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, HIGH(ecg))


def test_filters_of_other_numbers_are_not_mixed_up():
    ecg = torch.from_numpy(windows())
    outputs = [
        step(ecg) for step in (HIGH, LOW, WindowFilter("highpass", 0.67, 250, 2), WindowFilter("highpass", 5, 250))
    ]
    for index, one in enumerate(outputs):
        assert all(not torch.allclose(one, other) for other in outputs[index + 1 :])


def test_a_chain_with_a_window_filter_goes_through_json_and_back():
    chain: Chain = (Resample(250), Crop(), HIGH, LOW)
    assert chain_from_json(chain_to_json(chain)) == chain
    assert isinstance(HIGH, BatchStep)


def test_a_window_filter_of_another_rate_than_the_windows_is_refused():
    with pytest.raises(ValueError, match=r"cutoff=0\.67.*filters windows of 500 Hz: give it that rate"):
        SignalSpec(500, 1000, chain=(Crop(), HIGH))

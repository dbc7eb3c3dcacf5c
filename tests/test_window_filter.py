import numpy as np
import pytest
import torch
from hypothesis import given, settings
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
from ecg_lightning.filter_products import filter_matrix, thin_product
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


# --- the thin product ---

LONG = 2250


@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize("steps", [(HIGH, LOW), (LOW, HIGH), (HIGH,), (LOW,), (LOW, HIGH, LOW)], ids=str)
def test_long_windows_on_a_cpu_take_a_band_and_two_thin_matrices_and_come_out_the_same(steps, offset):
    thin = thin_product(steps, LONG)
    assert thin is not None
    ecg = windows(LONG) + offset
    expected = ecg
    for step in steps:
        expected = filtered(step, expected)
    got = run_batch_chain(steps, torch.from_numpy(ecg).float())
    assert got.dtype == torch.float32
    assert torch.equal(got, thin(torch.from_numpy(ecg).float()))
    dense = torch.from_numpy(ecg).float() @ torch.from_numpy(filter_matrix(steps, LONG)).float()
    errors = [np.abs(one.numpy() - expected).max() for one in (got, dense)]
    assert errors[0] < max(2e-6, 1.5 * errors[1])


def test_the_thin_product_takes_less_than_half_of_the_multiplications():
    for steps, share in (((HIGH, LOW), 0.25), ((LOW,), 0.15)):
        thin = thin_product(steps, LONG)
        assert sum(part.numel() for part in (thin.tiles, thin.left, thin.right)) < share * LONG**2


@pytest.mark.parametrize(
    ("steps", "num_time_points"),
    [((HIGH, LOW), 600), ((WindowFilter("lowpass", 0.5, 250),), LONG), ((WindowFilter("highpass", 60, 250),), LONG)],
    ids=["a short window", "a low-pass that reaches far", "a high-pass that takes much"],
)
def test_where_it_would_save_little_the_one_matrix_is_taken(steps, num_time_points):
    assert thin_product(steps, num_time_points) is None
    ecg = windows(num_time_points)
    expected = filtered(steps[0], ecg) if len(steps) == 1 else filtered(LOW, filtered(HIGH, ecg))
    got = run_batch_chain(steps, torch.from_numpy(ecg).float())
    torch.testing.assert_close(got.double(), torch.from_numpy(expected), atol=2e-5, rtol=0)


@settings(max_examples=12)
@given(num_time_points=st.integers(900, 2600), high=st.floats(0.3, 3), low=st.floats(10, 100), order=st.integers(1, 5))
def test_filters_of_any_numbers_equal_scipys_in_single_precision(num_time_points, high, low, order):
    steps = WindowFilter("highpass", high, 250, order), WindowFilter("lowpass", low, 250, order)
    ecg = windows(num_time_points)
    got = run_batch_chain(steps, torch.from_numpy(ecg).float())
    expected = filtered(steps[1], filtered(steps[0], ecg))
    torch.testing.assert_close(got.double(), torch.from_numpy(expected), atol=2e-5, rtol=0)


def test_double_precision_takes_the_one_matrix():
    ecg = torch.from_numpy(windows(LONG))
    got = run_batch_chain((HIGH, LOW), ecg)
    torch.testing.assert_close(got, torch.from_numpy(filtered(LOW, filtered(HIGH, ecg.numpy()))), atol=1e-9, rtol=0)


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

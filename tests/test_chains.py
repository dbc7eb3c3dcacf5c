import numpy as np
import pytest
import torch
from scipy.signal import decimate

from ecg_lightning.chains import (
    STEPS,
    Crop,
    DecimateAcrossLeads,
    FirBandpass,
    Resample,
    ResampleLinearly,
    ScaleToRange,
    ZScoreRecord,
    chain_from_json,
    chain_to_json,
    run_batch_chain,
)
from ecg_lightning.signals import SignalSpec, StoredSignal

HUBERT = (FirBandpass(0.05, 47.0), Resample(500.0), ScaleToRange(), Crop(), DecimateAcrossLeads(5))


def ecg(length: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, length)).cumsum(axis=-1)


def test_a_chain_comes_back_from_its_json_as_it_was():
    for chain in (HUBERT, (ResampleLinearly(500.0), ZScoreRecord(), Crop())):
        assert chain_from_json(chain_to_json(chain)) == chain


def test_every_step_is_known_by_its_name():
    assert all(STEPS[step.name] is type(step) for step in (*HUBERT, ResampleLinearly(500.0), ZScoreRecord()))


def test_the_fir_filter_passes_its_band_and_stops_what_lies_above():
    time = np.arange(5000) / 500
    slow, fast = np.sin(2 * np.pi * 10 * time), np.sin(2 * np.pi * 60 * time)
    filtered = FirBandpass(0.05, 47.0)(np.stack([slow, fast, slow + 5]), 500)
    np.testing.assert_allclose(filtered[0], slow, atol=0.01)
    assert np.abs(filtered[1, 500:-500]).max() < 0.01
    # 0.3 s of taps cannot stop what is slower than 3 Hz: the published filter leaves a constant mostly in.
    assert filtered[2].mean() > 1


def test_linear_resampling_keeps_both_ends_and_stretches_what_lies_between():
    lead = np.arange(1000.0)[None]
    resampled = ResampleLinearly(500.0)(lead, 100)
    assert resampled.shape == (1, 5000)
    assert (resampled[0, 0], resampled[0, -1]) == (0, 999)
    np.testing.assert_allclose(np.diff(resampled[0]), 999 / 4999)


def test_linear_resampling_to_the_same_rate_changes_nothing():
    x = ecg()
    assert ResampleLinearly(500.0)(x, 500) is x


def test_each_lead_is_scaled_to_its_own_range_and_a_flat_one_to_minus_one():
    x = ecg()
    x[1] = 0.3
    scaled = ScaleToRange()(x, 500)
    np.testing.assert_allclose(scaled[[0, 2]].min(axis=1), -1)
    np.testing.assert_allclose(scaled[[0, 2]].max(axis=1), 1)
    assert (scaled[1] == -1).all()


def test_each_lead_of_a_record_is_normalised_by_its_own_statistics_and_a_flat_one_is_zero():
    x = ecg()
    x[1] = 0.1  # whose mean of 1000 is not exactly 0.1
    normalised = ZScoreRecord()(x, 500)
    np.testing.assert_allclose(normalised[[0, 2]].mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(normalised[[0, 2]].std(axis=1), 1)
    assert not normalised[1].any()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_leads_are_decimated_as_one_string_not_one_by_one(as_tensor):
    windows = np.stack([ecg(500), ecg(500)[::-1]])  # (batch, lead, time)
    step = DecimateAcrossLeads(5)
    decimated = np.asarray(step(torch.from_numpy(windows) if as_tensor else windows))
    assert decimated.shape == (2, 3, 100)
    for record, strung in zip(decimated, windows.reshape(2, -1), strict=True):
        np.testing.assert_allclose(record.ravel(), decimate(strung, 5), atol=1e-6)
    assert np.abs(decimated - decimate(windows, 5)).max() > 0.1


def test_windows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="windows of 502 time points cannot be decimated by 5"):
        DecimateAcrossLeads(5)(np.zeros((3, 502)))


def test_a_chain_that_decimates_behind_the_crop_cuts_longer_windows_than_the_network_reads():
    signal = SignalSpec(500, 500, chain=HUBERT)
    assert (signal.stored_rate, signal.window_points, signal.sampling_rate) == (500, 2500, 100)
    assert run_batch_chain(signal.batch_chain, np.zeros((12, signal.window_points))).shape == (12, 500)


def test_a_store_too_short_for_the_cut_is_refused_by_the_cuts_length():
    signal = SignalSpec(500, 500, chain=HUBERT)
    stored = StoredSignal(500, signal.leads, 2400, signal.stored_chain)
    assert signal.misfits(stored) == ["its records have 2400 time points, not 2500 or more"]
    assert signal.misfits(StoredSignal(500, signal.leads, 2500, signal.stored_chain)) == []

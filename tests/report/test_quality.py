import numpy as np
import pytest

from ecg_lightning.chains import Bandpass, Crop, ZScore
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.report import quality
from ecg_lightning.report.quality import clipped, flat, noise, store_quality, wander
from ecg_lightning.signals import SignalSpec

RATES = pytest.mark.parametrize("rate", [100.0, 250.0, 500.0])


def beats(rate, seconds=10, deviation=0.0, seed=0):
    """A simulated lead, (1, 1, time) in mV: 72 beats a minute of 1.2 mV and their T waves, white noise."""
    time = np.arange(round(seconds * rate)) / rate
    phase = time % (60 / 72)
    wave = 1.2 * np.exp(-0.5 * ((phase - 0.2) / 0.012) ** 2) + 0.3 * np.exp(-0.5 * ((phase - 0.5) / 0.05) ** 2)
    return (wave + np.random.default_rng(seed).normal(0, deviation, len(time)))[None, None]


def measured(function, ecg, rate):
    (value,) = function(ecg, rate).ravel()
    return value


@RATES
def test_a_dead_lead_is_flat(rate):
    assert measured(flat, np.zeros((1, 1, round(10 * rate))), rate)
    assert not measured(flat, beats(rate, deviation=0.005), rate)


@RATES
def test_a_lead_that_falls_off_for_a_second_is_flat(rate):
    ecg = beats(rate, deviation=0.005)
    ecg[..., round(4 * rate) : round(5 * rate)] = 0.2
    assert measured(flat, ecg, rate)


@RATES
@pytest.mark.parametrize("sign", [1, -1])
def test_a_lead_that_rests_at_its_extreme_is_clipped(rate, sign):
    ecg = np.round(np.clip(3 * beats(rate, deviation=0.005), -5, 1.5), 3)
    assert measured(clipped, sign * ecg, rate)
    assert not measured(clipped, sign * np.round(3 * beats(rate, deviation=0.005), 3), rate)


def test_a_flat_top_below_half_a_millivolt_is_a_wave_and_not_clipped():
    ecg = np.round(np.clip(beats(500.0, deviation=0.002), -5, 0.3), 3)
    assert not measured(clipped, ecg, 500.0)


def test_the_value_held_at_the_end_of_a_record_is_not_clipping():
    ecg = np.round(beats(500.0, deviation=0.005), 3)
    ecg[..., -55:] = 2.0
    assert not measured(clipped, ecg, 500.0)
    ecg[..., 1000:1010] = 2.0
    assert measured(clipped, ecg, 500.0)


def test_nine_points_at_500_hz_are_not_clipping_and_ten_are():
    ecg = np.round(beats(500.0, deviation=0.005), 3)
    ecg[..., 1000:1009] = 2.0
    assert not measured(clipped, ecg, 500.0)
    ecg[..., 1009] = 2.0
    assert measured(clipped, ecg, 500.0)


@RATES
@pytest.mark.parametrize("deviation", [0.01, 0.05, 0.2])
def test_noise_of_known_power_is_measured_within_a_tenth(rate, deviation):
    silence = np.zeros((1, 1, round(10 * rate)))
    noisy = silence + np.random.default_rng(1).normal(0, deviation, silence.shape)
    assert measured(noise, noisy, rate) == pytest.approx(deviation, rel=0.1)


@RATES
def test_beats_are_not_noise(rate):
    assert measured(noise, beats(rate), rate) < 0.005
    assert measured(noise, beats(rate, deviation=0.05), rate) == pytest.approx(0.05, rel=0.15)


@RATES
@pytest.mark.parametrize("amplitude", [0.3, 1.0])
def test_wander_of_known_amplitude_is_measured_within_a_tenth(rate, amplitude):
    ecg = beats(rate, seconds=20, deviation=0.01)
    still = measured(wander, ecg, rate)
    ecg = ecg + amplitude * np.sin(2 * np.pi * 0.1 * np.arange(ecg.shape[-1]) / rate)
    assert still < 0.05
    assert measured(wander, ecg, rate) == pytest.approx(2 * amplitude, rel=0.1)


def test_the_next_lead_and_record_do_not_count():
    ecg = np.repeat(np.repeat(beats(100.0, deviation=0.005), 3, axis=0), 2, axis=1)
    ecg[1, 0] = 0.0
    assert flat(ecg, 100.0).tolist() == [[False, False], [True, False], [False, False]]


# --- over a store ---


@pytest.fixture
def store(tiny_ptbxl, tmp_path):
    prepare(tiny_ptbxl, tmp_path / "some.h5", SignalSpec(100, 1000), workers=1, progress=False)
    return Store(tmp_path / "some.h5")


def test_pieces_of_any_size_measure_the_same(store, monkeypatch):
    whole = store_quality(store)
    monkeypatch.setattr(quality, "_CHUNK_BYTES", 3 * 4 * 12 * 1000)
    pieces = store_quality(store)
    assert pieces.rows.tolist() == list(range(40))
    np.testing.assert_array_equal(pieces.noise, whole.noise)
    np.testing.assert_array_equal(pieces.wander, whole.wander)
    # As made: noise of 0.1 mV of which the wave's own slope is taken away again.
    assert np.median(whole.noise) == pytest.approx(0.1, rel=0.15)
    assert whole.faults["noisy"].all()


def test_of_a_large_store_a_drawn_part_is_read_unless_all_is_asked_for(store, monkeypatch):
    monkeypatch.setattr(quality, "NUM_LOOKED_AT", 15)
    part = store_quality(store, seed=1)
    assert len(part.rows) == 15
    assert sorted(set(part.rows.tolist())) == part.rows.tolist()
    assert (
        part.rows.tolist() == store_quality(store, seed=1).rows.tolist() != store_quality(store, seed=2).rows.tolist()
    )
    everything = store_quality(store, all_records=True)
    assert len(everything.rows) == 40
    np.testing.assert_array_equal(part.noise, everything.noise[part.rows])


def test_clipping_is_not_looked_for_behind_a_filter(tiny_ptbxl, tmp_path):
    spec = SignalSpec(100, 1000, chain=(Bandpass(0.67, 40.0), Crop(), ZScore()))
    prepare(tiny_ptbxl, tmp_path / "filtered.h5", spec, workers=1, progress=False)
    assert [*store_quality(Store(tmp_path / "filtered.h5")).faults] == ["flat", "noisy", "wander"]


def test_progress_sees_every_piece(store, monkeypatch):
    monkeypatch.setattr(quality, "_CHUNK_BYTES", 30 * 4 * 12 * 1000)
    seen = []

    def track(chunks, num_chunks):
        for chunk in chunks:
            seen.append((len(chunk), num_chunks))
            yield chunk

    store_quality(store, track=track)
    assert seen == [(30, 2), (10, 2)]

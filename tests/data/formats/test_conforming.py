import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_formats import LEADS, made_up

from ecg_lightning.data.formats import Layout, Recording, conform, find_recordings, read_recording
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12


def recording(ecg, rate=500.0, leads=("I", "II")):
    return Recording(np.asarray(ecg, dtype=np.float64), rate, tuple(leads), {})


def sine(frequency, rate, seconds=10.0):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def test_what_fits_comes_as_it_is_and_without_notes():
    whole = made_up()
    ecg, notes = conform(whole, LEADS, 500, 1000)
    assert notes == []
    np.testing.assert_array_equal(ecg, whole.ecg)
    assert ecg.flags.c_contiguous


def test_leads_come_by_alias_in_the_order_asked_for():
    whole = made_up(("V6", "I", "aVR"))
    spelled = Recording(whole.ecg, 500, ("MDC_ECG_LEAD_V6", "lead i", "AVR (mV)"), {})
    ecg, notes = conform(spelled, ("I", "avr", "V6"), 500, None)
    np.testing.assert_array_equal(ecg, whole.ecg[[1, 2, 0]])
    assert notes == []


def test_limb_leads_are_derived_exactly_and_said():
    whole = made_up()
    eight = made_up(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))
    ecg, notes = conform(eight, LEADS_12, 500, None)
    np.testing.assert_allclose(ecg, whole.ecg, atol=1e-12)
    one, two = eight.ecg[:2]
    np.testing.assert_array_equal(ecg[2], two - one)
    np.testing.assert_array_equal(ecg[3], -0.5 * one - 0.5 * two)
    np.testing.assert_array_equal(ecg[4], one - 0.5 * two)
    np.testing.assert_array_equal(ecg[5], two - 0.5 * one)
    assert notes == ["III, aVR, aVL, aVF derived from I and II (Einthoven, Goldberger)"]


def test_derived_leads_are_those_that_real_devices_write(shared):
    for path in find_recordings([shared / "cinc2021"]):
        whole = read_recording(path, Layout())
        eight = [place for place, lead in enumerate(whole.leads) if lead in ("I", "II") or lead.startswith("V")]
        less = Recording(whole.ecg[eight], whole.sampling_rate, tuple(whole.leads[place] for place in eight), {})
        np.testing.assert_allclose(conform(less, whole.leads, 500, None)[0], whole.ecg, atol=0.004)


def test_a_lead_in_the_file_is_not_derived():
    whole = made_up()
    ecg, _ = conform(
        recording([whole.ecg[0], whole.ecg[1], whole.ecg[6]], leads=("I", "II", "III")), ("III",), 500, None
    )
    np.testing.assert_array_equal(ecg[0], whole.ecg[6])


def test_nothing_is_derived_from_one_limb_lead():
    with pytest.raises(
        InputError, match=r"leads missing: III, V1 \(found I; .*--leads .*a backbone for the leads there are"
    ):
        conform(made_up(("I",)), ("I", "III", "V1"), 500, None)


def test_a_lead_given_twice_is_told():
    with pytest.raises(InputError, match="I and Lead I are one lead: name each lead once"):
        conform(recording(np.zeros((2, 10)), leads=("I", "Lead I")), ("I",), 500, None)


@pytest.mark.parametrize(("rate", "to"), [(500, 100), (1000, 250), (360, 100), (257, 500), (100, 500), (128.5, 100)])
def test_a_known_sine_keeps_its_shape_at_another_rate(rate, to):
    ecg, notes = conform(recording([sine(10, rate)], rate, ["I"]), ("I",), to, None)
    inner = slice(to, -to)
    np.testing.assert_allclose(ecg[0, inner], sine(10, to, ecg.shape[1] / to)[inner], atol=2e-3)
    assert ecg.shape == (1, -(-round(10 * rate) * to // rate))
    assert notes[0].startswith(f"resampled from {rate:g} to {to:g} Hz (polyphase, anti-aliased")
    assert ("holds nothing above" in notes[0]) == (to > rate)


def test_what_the_lower_rate_cannot_hold_is_taken_out_not_folded_back():
    ecg, _ = conform(recording([sine(80, 500)], leads=["I"]), ("I",), 100, None)
    assert np.abs(ecg[0, 100:-100]).max() < 0.01


def test_an_offset_makes_no_waves_at_the_ends():
    ecg, _ = conform(recording(np.full((1, 5000), 7.5), leads=["I"]), ("I",), 100, None)
    np.testing.assert_allclose(ecg, 7.5, atol=1e-9)


def test_a_500_hz_record_comes_as_the_authors_of_ptbxl_resampled_it(shared):
    pairs = 0
    for path in find_recordings([shared / "ptbxl500"])[:20]:
        low = next((shared / "ptbxl").rglob(path.name.replace("_hr", "_lr")), None)
        if low is None:
            continue
        theirs = read_recording(low, Layout())
        ours, _ = conform(read_recording(path, Layout()), theirs.leads, 100, 1000)
        rest = (ours - theirs.ecg)[:, 50:-50]
        assert rest.std() < 0.15 * theirs.ecg.std()
        pairs += 1
    assert pairs > 5


def test_a_longer_record_is_cut_to_its_first_time_points_and_said():
    whole = made_up(seconds=3)
    ecg, notes = conform(whole, LEADS, 500, 1000)
    np.testing.assert_array_equal(ecg, whole.ecg[:, :1000])
    assert notes == ["cut to its first 1000 of 1500 time points"]


def test_a_shorter_record_is_told_with_its_length_and_the_way_out():
    with pytest.raises(
        InputError, match=r"it lasts 2 s \(200 time points at 100 Hz\), .*10 s \(1000\): .*leave this one out"
    ):
        conform(made_up(), LEADS, 100, 1000)


def test_all_that_is_wrong_comes_in_one_message():
    with pytest.raises(InputError, match=r"it lasts 2 s.*; leads missing: V9"):
        conform(made_up(), ("V9",), 500, 5000)


@pytest.mark.parametrize("rate", [1e-9, 1e12])
def test_a_rate_that_no_filter_reaches_is_told(rate):
    with pytest.raises(InputError, match=r"Hz is too far from 100 Hz: is the rate right\?"):
        conform(recording(np.zeros((1, 100)), rate, ["I"]), ("I",), 100, None)


@given(rate=st.integers(50, 2000), to=st.sampled_from([100, 125, 250, 500]), num=st.integers(2, 3000))
def test_the_length_told_beforehand_is_the_length_that_comes(rate, to, num):
    whole = recording(np.zeros((1, num)), float(rate), ["I"])
    length = conform(whole, ("I",), to, None)[0].shape[1]
    assert conform(whole, ("I",), to, length)[0].shape == (1, length)
    with pytest.raises(InputError, match="it lasts"):
        conform(whole, ("I",), to, length + 1)

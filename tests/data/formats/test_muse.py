import numpy as np
import pytest
from made_up_formats import made_up, muse_counts, muse_text

from ecg_lightning.data.formats import Layout, conform, read_recording
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

EIGHT = made_up(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))


def read(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    return read_recording(tmp_path / "a.xml", Layout())


def replaced(old, new, count=1):
    text = muse_text(EIGHT)
    assert old in text
    return text.replace(old, new, count)


def test_the_rhythm_comes_in_millivolts_and_the_median_beat_is_passed_over(tmp_path):
    recording = read(tmp_path, muse_text(EIGHT))
    np.testing.assert_allclose(recording.ecg, muse_counts(EIGHT.ecg) * 0.00488, atol=1e-12)
    assert (recording.leads, recording.sampling_rate) == (EIGHT.leads, 500)


def test_the_four_leads_that_muse_leaves_out_are_derived(tmp_path):
    ecg, notes = conform(read(tmp_path, muse_text(EIGHT)), LEADS_12, 500, None)
    np.testing.assert_allclose(ecg, made_up().ecg, atol=0.005)
    assert notes == ["III, aVR, aVL, aVF derived from I and II (Einthoven, Goldberger)"]


def test_the_facts_are_those_of_the_export(tmp_path):
    facts = {"PatientID": "0815", "Age": "77", "Sex": "FEMALE", "Date": "01-02-2024"}
    assert read(tmp_path, muse_text(EIGHT)).facts == {**facts, "Statements": "Sinus rhythm; Normal ECG"}
    assert read(tmp_path, replaced("YEARS", "MONTHS")).facts["Age"] == "77 months"


def test_the_rate_is_base_times_ten_to_the_exponent(tmp_path):
    text = replaced("<SampleBase>500</SampleBase><SampleExponent>0<", "<SampleBase>5</SampleBase><SampleExponent>2<")
    assert read(tmp_path, text).sampling_rate == 500


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (">4.88<", ">4,88<"),  # as some sites write it
        ("<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>", ""),
        ("<SampleExponent>0</SampleExponent>", ""),
        ("<LeadSampleSize>2</LeadSampleSize>", ""),
        ("<FirstSampleBaseline>0</FirstSampleBaseline>", ""),
        ("<LeadTimeOffset>0</LeadTimeOffset>", ""),
    ],
)
def test_what_may_be_left_out_is_the_usual_value(tmp_path, old, new):
    np.testing.assert_array_equal(read(tmp_path, replaced(old, new, -1)).ecg, read(tmp_path, muse_text(EIGHT)).ecg)


def test_a_sum_of_zero_says_that_none_was_made(tmp_path):
    start = muse_text(EIGHT).index("<LeadDataCRC32>")
    text = muse_text(EIGHT)
    end = text.index("</LeadDataCRC32>", start)
    assert read(tmp_path, f"{text[:start]}<LeadDataCRC32>0{text[end:]}").ecg.shape == (8, 1000)


def test_a_flipped_bit_breaks_the_sum_of_its_lead(tmp_path):
    text = muse_text(EIGHT)
    place = text.index("<WaveFormData>") + 200
    other = "B" if text[place] != "B" else "C"
    with pytest.raises(InputError, match=r"a\.xml: lead I is damaged: LeadDataCRC32 says \d+, it is \d+: export"):
        read(tmp_path, text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (">1000</LeadSampleCountTotal>", ">999</LeadSampleCountTotal>", "LeadSampleCountTotal says 999, it is 1000"),
        (">2000</LeadByteCountTotal>", ">1999</LeadByteCountTotal>", "LeadByteCountTotal says 1999, it is 2000"),
        (
            "<LeadSampleSize>2",
            "<LeadSampleSize>1",
            "1 bytes per value and a baseline of 0, 2 and 0 are read: .* as DICOM",
        ),
        ("<FirstSampleBaseline>0", "<FirstSampleBaseline>9", "a baseline of 9, 2 and 0 are read: .* as DICOM"),
        ("<LeadOffsetFirstSample>0", "<LeadOffsetFirstSample>9", "its leads do not start together .*: export"),
        ("<LeadTimeOffset>0", "<LeadTimeOffset>9", "its leads do not start together .*: export"),
        ("MICROVOLTS", "KELVIN", "the unit of lead I is 'KELVIN', known are mV, uV, nV and V: convert"),
        (">4.88<", "><", "LeadAmplitudeUnitsPerBit is '', it must be a number: fetch or export"),
        (">4.88<", ">nan<", "LeadAmplitudeUnitsPerBit is 'nan', it must be a number"),
        ("<SampleBase>500</SampleBase><SampleExp", "<SampleExp", "SampleBase is '', it must be a number"),
        ("<SampleBase>500</SampleBase><SampleExp", "<SampleBase>0</SampleBase><SampleExp", "its sampling rate is 0 Hz"),
        ("<WaveFormData>", "<WaveFormData>$", "lead I is no base64 .*: export the ECG from MUSE again"),
        (
            "<WaveformType>Rhythm",
            "<WaveformType>Other",
            "holds 0 rhythm waveforms, one is read: .*with one rhythm strip",
        ),
        ("<WaveformType>Median", "<WaveformType>Rhythm", "holds 2 rhythm waveforms, one is read: "),
    ],
)
def test_what_is_not_as_muse_exports_it_is_told(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message) as told:
        read(tmp_path, replaced(old, new))
    assert "a.xml" in str(told.value)


def test_leads_of_unequal_length_and_none_are_told(tmp_path):
    text = muse_text(EIGHT)
    first, second = text.index("<LeadData><"), text.index("<LeadData><", text.index("<LeadData><") + 9)
    longer = muse_text(made_up(("III",), seconds=3))
    lead = longer[longer.index("<LeadData><") : longer.rindex("</LeadData>") + len("</LeadData>")]
    with pytest.raises(InputError, match=r"of one length, time points are: III 1500, II 1000, .*: export it again"):
        read(tmp_path, text[:first] + lead + text[second:])
    with pytest.raises(InputError, match=r"its leads must be there and .*: none"):
        read(tmp_path, text[:first] + text[text.rindex("</LeadData>") + len("</LeadData>") :])


def test_the_value_that_stands_for_missing_is_told(tmp_path):
    hole = made_up(("I", "II"))
    hole.ecg[1, 5] = -32768 * 0.00488
    with pytest.raises(InputError, match="missing or infinite time points in lead II,"):
        read(tmp_path, muse_text(hole))

import numpy as np
import pytest
from made_up_formats import LEADS, aecg_text, made_up

from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.errors import InputError

WHOLE = made_up()


def read(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    return read_recording(tmp_path / "a.xml", Layout())


def replaced(text, old, new, count=-1):
    assert old in text
    return text.replace(old, new, count)


@pytest.mark.parametrize(("units_per_digit", "unit"), [(5, "uV"), (2.5, "uV"), (0.005, "mV")])
def test_digits_come_in_millivolts_by_their_scale(tmp_path, units_per_digit, unit):
    recording = read(tmp_path, aecg_text(WHOLE, units_per_digit=units_per_digit, unit=unit))
    np.testing.assert_allclose(recording.ecg, WHOLE.ecg, atol=1e-9)
    assert recording.leads == tuple(f"MDC_ECG_LEAD_{lead.upper()}" for lead in LEADS)


def test_the_origin_is_added_and_may_be_left_out(tmp_path):
    shifted = replaced(aecg_text(WHOLE), 'origin value="0" unit="uV"', 'origin value="0.2" unit="mV"', 1)
    np.testing.assert_allclose(read(tmp_path, shifted).ecg[0], WHOLE.ecg[0] + 0.2)
    bare = replaced(aecg_text(WHOLE), '<origin value="0" unit="uV"/>', "")
    np.testing.assert_allclose(read(tmp_path, bare).ecg, WHOLE.ecg, atol=1e-9)


@pytest.mark.parametrize(
    ("increment", "rate"),
    [
        ('value="0.002" unit="s"', 500),
        ('value="2" unit="ms"', 500),
        ('value="1000" unit="us"', 1000),
        ('value="0.004"', 250),
    ],
)
def test_the_rate_is_one_over_the_increment(tmp_path, increment, rate):
    assert read(tmp_path, aecg_text(WHOLE, increment=increment)).sampling_rate == rate


def test_the_facts_are_those_of_the_document(tmp_path):
    assert read(tmp_path, aecg_text(WHOLE)).facts == {
        "PatientID": "subject1",
        "Age": "46",
        "Sex": "M",
        "BirthDate": "19530508",
        "Date": "20021122091000",
        "id": "61d1a24f-b47e-41aa-ae95-f8ac302f4eeb",
    }


def test_a_date_may_be_an_interval_or_missing(tmp_path):
    text = aecg_text(WHOLE)
    center = '<center value="20021122091000"/>'
    assert read(tmp_path, replaced(text, center, '<low value="2002"/><high value="2003"/>')).facts["Date"] == "2002"
    assert "Date" not in read(tmp_path, replaced(text, center, "")).facts


def test_the_representative_beat_is_passed_over(tmp_path):
    assert read(tmp_path, aecg_text(WHOLE)).ecg.shape == (12, 1000)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<scale value="5" unit="uV"/>', "", "the scale of lead MDC_ECG_LEAD_I is '', it must be a number"),
        ('<scale value="5"', '<scale value="inf"', "the scale of lead MDC_ECG_LEAD_I is 'inf', it must be a number"),
        ('<scale value="5" unit="uV"/>', '<scale value="5"/>', "the unit of lead MDC_ECG_LEAD_I is '', known are mV"),
        ('unit="uV"', 'unit="mmHg"', "the unit of lead MDC_ECG_LEAD_I is 'mmHg', known are mV, uV, nV and V: convert"),
        ("<digits>", "<digits>x ", "lead MDC_ECG_LEAD_I holds what is no number .*: export the ECG again"),
        ("<digits>", "<digits>NaN ", "of one length, time points are: MDC_ECG_LEAD_I 1001, MDC_ECG_LEAD_II 1000"),
        ("SLIST_PQ", "SLIST_TS", "lead MDC_ECG_LEAD_I is of type SLIST_TS, SLIST_PQ with digits is read: export"),
        ("<digits>", "<digit>", "no XML that can be read"),
        ('"0.002" unit="s"', '"0" unit="s"', "the time increment is 0 s, it must be above 0 s, ms or us"),
        ('"0.002" unit="s"', '"1" unit="h"', "the time increment is 1 h, it must be above 0 s, ms or us"),
        ('"0.002"', '"fast"', "the time increment is 'fast', it must be a number"),
        ("TIME_ABSOLUTE", "MDC_ECG_LEAD_V7", "lead MDC_ECG_LEAD_V7 is of type GLIST_TS, SLIST_PQ with digits is read"),
        ('<code code="MDC_ECG_LEAD_I"', '<code cod="MDC_ECG_LEAD_I"', r"a sequence without code .*\(code missing\)"),
    ],
)
def test_what_is_not_as_the_schema_has_it_is_told(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message) as told:
        read(tmp_path, replaced(aecg_text(WHOLE), old, new, 1))
    assert "a.xml" in str(told.value)


def test_a_series_of_another_kind_is_passed_over(tmp_path):
    text = aecg_text(WHOLE)
    start = text.index("<component><series>")
    other = aecg_text(made_up(seconds=1)).replace("RHYTHM", "HIGH_GAIN")
    other = other[other.index("<component><series>") : other.index("</AnnotatedECG>")]
    assert read(tmp_path, text[:start] + other + text[start:]).ecg.shape == (12, 1000)


def test_a_series_without_a_code_is_read_where_it_is_the_only_one(tmp_path):
    text = replaced(aecg_text(WHOLE), '<series><code code="RHYTHM"/>', "<series>")
    assert read(tmp_path, text).ecg.shape == (12, 1000)


def test_missing_digits_are_told_as_missing_time_points(tmp_path):
    text = aecg_text(made_up(("I",)))
    start = text.index("<digits>") + len("<digits>")
    end = text.index(" ", start)
    with pytest.raises(InputError, match="missing or infinite time points in lead MDC_ECG_LEAD_I,"):
        read(tmp_path, text[:start] + "NaN" + text[end:])


def test_several_strips_and_none_are_told(tmp_path):
    text = aecg_text(WHOLE)
    start, end = text.index("<component><series>"), text.index("</AnnotatedECG>")
    with pytest.raises(InputError, match=r"holds 2 sets of leads, one is read: export .*one rhythm strip"):
        read(tmp_path, text[:end] + text[start:end] + text[end:])
    with pytest.raises(InputError, match="holds 0 sets of leads, one is read: export"):
        read(tmp_path, text[:start] + text[end:])


def test_two_clocks_are_told_unless_they_agree(tmp_path):
    text = aecg_text(WHOLE)
    start, end = text.index('<component><sequence><code code="TIME_ABSOLUTE"'), text.index('MDC_ECG_LEAD_I"')
    clock = text[start : text.rindex("<component>", start, end)]
    both = text[:start] + clock.replace("ABSOLUTE", "RELATIVE") + text[start:]
    assert read(tmp_path, both).sampling_rate == 500
    with pytest.raises(InputError, match="tells 2 rates for its rhythm strip, it must tell one"):
        read(tmp_path, both.replace('"0.002"', '"0.001"', 1))

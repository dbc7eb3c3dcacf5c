import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_formats import LEADS, dicom_dataset, dicom_group, made_up, write_dicom

from ecg_lightning.data.formats import Layout, conform, read_recording, warnings_of
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

pydicom = pytest.importorskip("pydicom")
WHOLE = made_up()


def read(tmp_path, dataset):
    write_dicom(tmp_path / "a.dcm", dataset)
    return read_recording(tmp_path / "a.dcm", Layout())


def test_the_ecg_that_pydicom_ships_is_read_whole():
    """A real resting ECG of an ELI 250, SCP-ECG lead codes, 1.25 uV per count, rhythm and median beat."""
    from pydicom.data import get_testdata_file

    recording = read_recording(get_testdata_file("waveform_ecg.dcm"), Layout())
    assert (recording.ecg.shape, recording.sampling_rate, recording.leads) == ((12, 10000), 1000, LEADS_12)
    assert recording.facts["Age"] == "42"
    assert recording.facts["Sex"] == "F"
    assert recording.facts["Statements"] == "RITMO SINUSALE; ECG NORMALE"
    assert not any("name" in fact.lower() for fact in recording.facts)
    assert warnings_of(recording) == []
    raw = pydicom.dcmread(get_testdata_file("waveform_ecg.dcm")).WaveformSequence[0].WaveformData
    np.testing.assert_allclose(recording.ecg.T.ravel(), np.frombuffer(raw, "<i2") * 0.00125, atol=1e-12)
    assert conform(recording, LEADS_12, 500, 5000)[0].shape == (12, 5000)


def test_counts_come_in_millivolts_with_their_facts(tmp_path):
    recording = read(tmp_path, dicom_dataset(WHOLE))
    np.testing.assert_allclose(recording.ecg, WHOLE.ecg, atol=1e-9)
    assert recording.leads == tuple(f"Lead {lead}" for lead in LEADS)
    assert {name: recording.facts[name] for name in ("PatientID", "Age", "Sex")} == {
        "PatientID": "0815",
        "Age": "77",
        "Sex": "F",
    }
    assert "Doe" not in str(recording.facts)


def test_sensitivity_correction_and_baseline_are_those_of_the_channel(tmp_path):
    dataset = dicom_dataset(WHOLE)
    channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[0]
    channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = "0.01", "0.5"
    channel.ChannelSensitivityUnitsSequence[0].CodeValue, channel.ChannelBaseline = "mV", "0.3"
    np.testing.assert_allclose(read(tmp_path, dataset).ecg[0], WHOLE.ecg[0] + 0.3, atol=1e-9)


@pytest.mark.parametrize(("code", "lead"), [("2:1", "I"), ("2:63", "aVL"), ("5.6.3-9-8", "V6"), ("5.6.3-9-64", "aVF")])
def test_a_lead_goes_by_its_code_in_whatever_language_its_meaning_is(tmp_path, code, lead):
    dataset = dicom_dataset(made_up(("I",)))
    source = dataset.WaveformSequence[0].ChannelDefinitionSequence[0].ChannelSourceSequence[0]
    source.CodeValue, source.CodeMeaning = code, "Derivazione"
    assert read(tmp_path, dataset).leads == (lead,)


def test_of_a_lead_without_code_and_meaning_the_label_counts(tmp_path):
    dataset = dicom_dataset(made_up(("I",)))
    channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[0]
    channel.ChannelSourceSequence[0].CodeMeaning, channel.ChannelLabel = "unknown", "V3"
    assert read(tmp_path, dataset).leads == ("V3",)


@pytest.mark.parametrize("label", ["MEDIAN BEAT", "RHYTHM"])
def test_the_derived_beat_is_passed_over(tmp_path, label):
    dataset = dicom_dataset(WHOLE)
    beat = dicom_group(made_up(seconds=1), WaveformOriginality="DERIVED", MultiplexGroupLabel=label)
    dataset.WaveformSequence = [beat, dataset.WaveformSequence[0]]
    assert read(tmp_path, dataset).ecg.shape == (12, 1000)


def test_of_two_originals_the_one_labelled_rhythm_is_read(tmp_path):
    dataset = dicom_dataset(WHOLE)
    dataset.WaveformSequence = [dicom_group(made_up(seconds=1), MultiplexGroupLabel="MEDIAN"), dicom_group(WHOLE)]
    assert read(tmp_path, dataset).ecg.shape == (12, 1000)


def refused(tmp_path, message, change):
    dataset = dicom_dataset(WHOLE)
    change(dataset, dataset.WaveformSequence[0], dataset.WaveformSequence[0].ChannelDefinitionSequence[1])
    with pytest.raises(InputError, match=message) as told:
        read(tmp_path, dataset)
    assert "a.dcm" in str(told.value)


def test_several_groups_are_told_with_their_labels(tmp_path):
    def change(dataset, group, channel):
        dataset.WaveformSequence = [group, dicom_group(WHOLE, MultiplexGroupLabel="RHYTHM 2")]

    refused(tmp_path, r"holds 2 waveforms \(RHYTHM, RHYTHM 2\), one original or one labelled RHYTHM .*: export", change)


def set_to(name, value, *, on):
    def change(dataset, group, channel):
        setattr({"group": group, "channel": channel, "dataset": dataset}[on], name, value)

    return change


def without(name, *, on):
    return lambda dataset, group, channel: delattr({"group": group, "channel": channel, "dataset": dataset}[on], name)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"holds 0 waveforms \(\), one original", without("WaveformSequence", on="dataset")),
        (
            "lead Lead II has no sensitivity, so its unit is not known: export",
            without("ChannelSensitivity", on="channel"),
        ),
        ("lead Lead II has no sensitivity", without("ChannelSensitivityUnitsSequence", on="channel")),
        ("lead Lead II was recorded at another time .*: export", set_to("ChannelSampleSkew", "3", on="channel")),
        ("values encoded as MB are not read: export", set_to("WaveformSampleInterpretation", "MB", on="group")),
        ("pydicom cannot read it .*: export", set_to("NumberOfWaveformSamples", 2**31, on="group")),
        ("pydicom cannot read it .*: export", set_to("NumberOfWaveformChannels", 60000, on="group")),
        ("pydicom cannot read it .*: export", without("WaveformData", on="group")),
        ("pydicom cannot read it .*: export", without("SamplingFrequency", on="group")),
        ("pydicom cannot read it .*: export", without("ChannelSourceSequence", on="channel")),
        ("its sampling rate is 0 Hz, it must be positive", set_to("SamplingFrequency", 0, on="group")),
    ],
)
@pytest.mark.filterwarnings("ignore:Value .* is not valid for elements with a VR:UserWarning")
def test_what_keeps_a_group_from_being_an_ecg_is_told(tmp_path, message, change):
    if "MB" in message:
        change_bits = set_to("WaveformBitsAllocated", 8, on="group")
        refused(tmp_path, message, lambda *all: (change(*all), change_bits(*all)))
    else:
        refused(tmp_path, message, change)


def test_a_unit_that_is_no_voltage_is_told(tmp_path):
    def change(dataset, group, channel):
        channel.ChannelSensitivityUnitsSequence[0].CodeValue = "mm[Hg]"

    refused(tmp_path, r"the unit of lead Lead II is 'mm\[Hg\]', known are mV, uV, nV and V: convert", change)


def test_padding_is_told_as_missing_time_points(tmp_path):
    def change(dataset, group, channel):
        values = np.frombuffer(group.WaveformData, "<i2").copy()
        values[12 * 7 + 1] = -32768
        group.WaveformData, group.WaveformPaddingValue = values.tobytes(), np.int16(-32768).tobytes()

    refused(tmp_path, "missing or infinite time points in lead Lead II,", change)


def test_deflated_files_are_refused_before_they_inflate(tmp_path):
    dataset = dicom_dataset(WHOLE)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    with pytest.raises(InputError, match=r"has the transfer syntax 1\.2\.840\.10008\.1\.2\.1\.99, plain .*: export"):
        read(tmp_path, dataset)


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM"])
def test_what_is_no_dicom_is_told(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.dcm"):
        read_recording(tmp_path / "a.dcm", Layout())


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@given(st.data())
def test_damage_gives_our_own_error_or_an_ecg(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("dicom") / "a.dcm"
    write_dicom(path, dicom_dataset(made_up(("I", "II"), seconds=0.02)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        recording = read_recording(path, Layout())
        assert recording.ecg.shape[0] == len(recording.leads) > 0

"""Writes an ECG in the published layouts of HL7 aECG, GE MUSE XML and DICOM, and as CSV."""

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_lightning.data.formats import Recording

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def made_up(leads: Sequence[str] = LEADS, sampling_rate: float = 500, seconds: float = 2, seed: int = 0) -> Recording:
    """Whole units of 0.005 mV, the limb leads as Einthoven and Goldberger have them."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    beats = np.exp(-(((time % 0.8) - 0.3) ** 2) / 0.001)
    waves = {name: random.uniform(0.5, 1.5) * beats + random.normal(0, 0.02, time.size) for name in LEADS}
    waves = {name: np.rint(wave / 0.01) * 0.01 for name, wave in waves.items()}
    one, two = waves["I"], waves["II"]
    waves |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return Recording(np.stack([waves[name] for name in leads]), sampling_rate, tuple(leads), {})


def write_csv(
    path: Path,
    recording: Recording,
    *,
    delimiter: str = ",",
    scale: float = 1,
    header: Sequence[str] = (),
    time: str = "",
) -> None:
    """A column per lead, and one of the time in seconds where it has a name."""
    columns, names = recording.ecg.T * scale, list(header or recording.leads)
    if time:
        columns = np.column_stack([np.arange(len(columns)) / recording.sampling_rate, columns])
        names = [time, *names]
    np.savetxt(path, columns, "%.6f", delimiter, header=delimiter.join(names), comments="")


def aecg_text(recording: Recording, *, units_per_digit: float = 5, unit: str = "uV", increment: str = "") -> str:
    """As PORT_MT020001 has it, less what no reader of signals asks for."""
    to_unit = {"uV": 1000, "mV": 1}[unit]
    sequences = "".join(
        f"""<component><sequence>
          <code code="MDC_ECG_LEAD_{lead.upper()}" codeSystem="2.16.840.1.113883.6.24" codeSystemName="MDC"/>
          <value xsi:type="SLIST_PQ"><origin value="0" unit="{unit}"/><scale value="{units_per_digit}" unit="{unit}"/>
          <digits>{" ".join(str(round(value * to_unit / units_per_digit)) for value in wave)}</digits></value>
        </sequence></component>"""
        for lead, wave in zip(recording.leads, recording.ecg, strict=True)
    )
    increment = increment or f'value="{1 / recording.sampling_rate}" unit="s"'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" type="Observation">
      <id root="61d1a24f-b47e-41aa-ae95-f8ac302f4eeb"/>
      <effectiveTime><center value="20021122091000"/></effectiveTime>
      <componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>
        <id root="2.16.840.1.113883.3.400" extension="subject1"/>
        <subjectDemographicPerson><name>Clark</name><administrativeGenderCode code="M"/><birthTime value="19530508"/>
        </subjectDemographicPerson></trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
      <controlVariable><relatedObservation><code code="21612-7" codeSystemName="LOINC"/>
        <value xsi:type="PQ" value="46" unit="a"/></relatedObservation></controlVariable>
      <component><series><code code="RHYTHM"/><component><sequenceSet>
        <component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20021122091000"/>
        <increment {increment}/></value></sequence></component>
        {sequences}
      </sequenceSet></component>
      <derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/><component><sequenceSet><component><sequence>
        <code code="MDC_ECG_LEAD_I"/>
        <value xsi:type="SLIST_PQ"><scale value="1" unit="uV"/><digits>1 2 3</digits></value>
      </sequence></component></sequenceSet></component></derivedSeries></derivation>
      </series></component>
    </AnnotatedECG>"""


def muse_text(recording: Recording) -> str:
    """As MUSE 9 exports it: 4.88 uV per bit, the median beat before the rhythm."""
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
    <!DOCTYPE RestingECG SYSTEM "restecg.dtd">
    <RestingECG>
      <PatientDemographics><PatientID>0815</PatientID><PatientAge>77</PatientAge><AgeUnits>YEARS</AgeUnits>
        <Gender>FEMALE</Gender><PatientLastName>Anonymous</PatientLastName></PatientDemographics>
      <TestDemographics><AcquisitionDate>01-02-2024</AcquisitionDate></TestDemographics>
      <Diagnosis><DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Sinus rhythm</StmtText></DiagnosisStatement>
        <DiagnosisStatement><StmtText>Normal ECG</StmtText></DiagnosisStatement></Diagnosis>
      <Waveform><WaveformType>Median</WaveformType><SampleBase>500</SampleBase><LeadData/></Waveform>
      <Waveform><WaveformType>Rhythm</WaveformType><NumberofLeads>{len(recording.leads)}</NumberofLeads>
        <SampleBase>{recording.sampling_rate:g}</SampleBase><SampleExponent>0</SampleExponent>
        {"".join(map(_muse_lead, recording.leads, recording.ecg))}
      </Waveform>
    </RestingECG>"""


def muse_counts(ecg: np.ndarray) -> np.ndarray:
    return np.rint(ecg / 0.00488).astype("<i2")


def _muse_lead(lead: str, wave: np.ndarray) -> str:
    content = muse_counts(wave).tobytes()
    lines = base64.encodebytes(content).decode()
    return f"""<LeadData><LeadByteCountTotal>{len(content)}</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset>
      <LeadSampleCountTotal>{len(wave)}</LeadSampleCountTotal>
      <LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>
      <LeadID>{lead}</LeadID><LeadOffsetFirstSample>0</LeadOffsetFirstSample><FirstSampleBaseline>0</FirstSampleBaseline>
      <LeadSampleSize>2</LeadSampleSize><LeadDataCRC32>{zlib.crc32(content)}</LeadDataCRC32>
      <WaveFormData>{lines}</WaveFormData></LeadData>"""


def dicom_dataset(recording: Recording) -> Any:
    """12-lead ECG waveform storage with 5 uV per count: one group, original."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = TwelveLeadECGWaveformStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["made up"])
    dataset.PatientID, dataset.PatientAge, dataset.PatientSex = "0815", "077Y", "F"
    dataset.PatientName = "Doe^Jane"
    dataset.WaveformSequence = [dicom_group(recording)]
    return dataset


def dicom_group(recording: Recording, **changes: Any) -> Any:
    from pydicom.dataset import Dataset

    group = Dataset()
    group.MultiplexGroupLabel, group.WaveformOriginality = "RHYTHM", "ORIGINAL"
    group.NumberOfWaveformSamples, group.NumberOfWaveformChannels = recording.ecg.shape[1], len(recording.leads)
    group.SamplingFrequency = recording.sampling_rate
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = np.rint(recording.ecg.T / 0.005).astype("<i2").tobytes()
    group.ChannelDefinitionSequence = [_dicom_channel(lead) for lead in recording.leads]
    for name, value in changes.items():
        setattr(group, name, value)
    return group


def _dicom_channel(lead: str) -> Any:
    from pydicom.dataset import Dataset

    channel, source, unit = Dataset(), Dataset(), Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "none", "L", f"Lead {lead}"
    unit.CodeValue, unit.CodingSchemeDesignator = "uV", "UCUM"
    channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
    channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = 5, 1, 0
    return channel


def write_dicom(path: Path, dataset: Any) -> None:
    dataset.save_as(path, enforce_file_format=True)

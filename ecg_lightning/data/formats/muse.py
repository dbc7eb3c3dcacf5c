"""GE MUSE XML: the export of the MUSE ECG management system."""

import base64
import binascii
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.recording import Recording, make_recording, stack_leads, to_float
from ecg_lightning.data.formats.units import unit_scale
from ecg_lightning.errors import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_EXPORT = "export the ECG from MUSE again"
_MISSING = -32768
_FACTS = {
    "PatientID": "./PatientDemographics/PatientID",
    "Age": "./PatientDemographics/PatientAge",
    "Sex": "./PatientDemographics/Gender",
    "Date": "./TestDemographics/AcquisitionDate",
    "Time": "./TestDemographics/AcquisitionTime",
    "Device": "./TestDemographics/AcquisitionDevice",
}


def read_muse(path: Path, root: "Element") -> Recording:
    """The rhythm waveform in a ``RestingECG``: leads as little-endian int16 in base64, checked by their CRC-32.

    MUSE stores I, II and V1-V6; `conform` derives the other four. The median beat is passed over. Facts: PatientID,
    Age, Sex, Date, Time, Device, Statements (the diagnosis as it was confirmed, statement by statement).

    Source: the layout of exports of MUSE 9 (restecg.dtd); voltage = count x LeadAmplitudeUnitsPerBit.

    Raises:
        InputError: for no or several rhythm waveforms, leads of unequal length or start, another encoding than that
            above, sizes and sums that are not those told.
    """
    rhythms = [each for each in root.findall("./Waveform") if _text(each, "WaveformType").lower() == "rhythm"]
    if len(rhythms) != 1:
        raise InputError(f"{path} holds {len(rhythms)} rhythm waveforms, one is read: {_EXPORT}, with one rhythm strip")
    data = rhythms[0].findall("./LeadData")
    starts = {tuple(_text(lead, name) or "0" for name in ("LeadTimeOffset", "LeadOffsetFirstSample")) for lead in data}
    if len(starts) > 1:
        raise InputError(f"{path}: its leads do not start together (LeadTimeOffset, LeadOffsetFirstSample): {_EXPORT}")
    leads = [(_text(lead, "LeadID"), _voltage(path, lead)) for lead in data]
    base, exponent = (_number(path, rhythms[0], name) for name in ("SampleBase", "SampleExponent"))
    rate = base * 10.0 ** min(exponent, 9)
    return make_recording(path, stack_leads(path, leads), rate, [name for name, _ in leads], _facts(root))


def _voltage(path: Path, lead: "Element") -> NDArray[np.float64]:
    """One lead in mV."""
    name = _text(lead, "LeadID")
    try:
        content = base64.b64decode("".join(_text(lead, "WaveFormData").split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{path}: lead {name} is no base64 ({error}): {_EXPORT}") from error
    told = {field: _number(path, lead, field) for field in ("LeadSampleSize", "FirstSampleBaseline")}
    if told["LeadSampleSize"] != 2 or told["FirstSampleBaseline"] != 0:
        raise InputError(
            f"{path}: lead {name} has {told['LeadSampleSize']:g} bytes per value and a baseline of "
            f"{told['FirstSampleBaseline']:g}, 2 and 0 are read: {_EXPORT} as DICOM"
        )
    sizes = {"LeadByteCountTotal": len(content), "LeadSampleCountTotal": len(content) // 2}
    if _text(lead, "LeadDataCRC32") != "0":  # which says that none was made
        sizes["LeadDataCRC32"] = zlib.crc32(content)
    for field, got in sizes.items():
        if (text := _text(lead, field)) and _number(path, lead, field) != got:
            raise InputError(f"{path}: lead {name} is damaged: {field} says {text}, it is {got}: {_EXPORT}")
    if len(content) % 2:
        raise InputError(f"{path}: lead {name} is damaged: {len(content)} bytes are no whole values: {_EXPORT}")
    counts = np.frombuffer(content, "<i2").astype(np.float64)
    counts[counts == _MISSING] = np.nan
    unit = _text(lead, "LeadAmplitudeUnits") or "MICROVOLTS"
    return counts * _number(path, lead, "LeadAmplitudeUnitsPerBit") * unit_scale(path, name, unit)


def _facts(root: "Element") -> dict[str, str]:
    facts = {name: " ".join((root.findtext(place) or "").split()) for name, place in _FACTS.items()}
    units = (root.findtext("./PatientDemographics/AgeUnits") or "").strip().upper()
    if facts["Age"] and units not in ("", "YEARS"):
        facts["Age"] = f"{facts['Age']} {units.lower()}"
    statements = [
        " ".join((text.text or "").split()) for text in root.findall("./Diagnosis/DiagnosisStatement/StmtText")
    ]
    facts["Statements"] = "; ".join(filter(None, statements))
    return {name: fact for name, fact in facts.items() if fact}


def _text(element: "Element", name: str) -> str:
    return (element.findtext(f"./{name}") or "").strip()


def _number(path: Path, element: "Element", name: str) -> float:
    """A field as number; some sites write decimal commas. Of what may be left out, the usual value."""
    usual = {"SampleExponent": "0", "LeadSampleSize": "2", "FirstSampleBaseline": "0"}
    return to_float(path, name, (_text(element, name) or usual.get(name, "")).replace(",", "."))

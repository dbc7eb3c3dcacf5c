"""DICOM waveforms (12-lead, general and ambulatory ECG storage), read through pydicom."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.extras import needs_extra
from ecg_lightning.data.formats.lead_names import is_lead
from ecg_lightning.data.formats.recording import Recording, check_size, make_recording
from ecg_lightning.data.formats.units import unit_scale
from ecg_lightning.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_EXPORT = "export the ECG again as 12-lead ECG waveform storage"
_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
"""Implicit and explicit little endian: what waveforms come in. A deflated file might inflate beyond all memory."""

_LEAD_CODE = re.compile(r"(?:2:|5\.6\.3-9-)(\d+)")
_LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", **{n + 2: f"V{n}" for n in range(1, 7)}}
"""Numbers of the leads in ISO/IEEE 11073 (MDC ``2:1``) and SCP-ECG (``5.6.3-9-1``), which are the same."""

_FACTS = {
    "PatientID": "PatientID",
    "Age": "PatientAge",
    "Sex": "PatientSex",
    "Date": "AcquisitionDateTime",
    "id": "SOPInstanceUID",
    "Device": "ManufacturerModelName",
}


def is_dicom(path: Path) -> bool:
    """Whether the file says that it is DICOM: hospitals export it under any name."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path) -> Recording:
    """The rhythm waveform of a DICOM file, in mV by each channel's sensitivity, correction factor and baseline.

    Of several multiplex groups the one original is read, or the one labelled RHYTHM; the median beat is derived. Facts:
    PatientID, Age, Sex, Date, id, Device, Statements (unformatted annotations).

    Source: DICOM PS3.3 C.10.9 (waveform module), PS3.16 CID 3001 (ECG leads).

    Raises:
        InputError: for files that are no DICOM or hold no ECG, several groups, compressed values, channels without
            sensitivity or recorded at other times, padding inside.
    """
    with needs_extra(path, "pydicom"):
        import pydicom
        from pydicom.waveforms.numpy_handler import multiplex_array
    try:
        check_size(path, path.stat().st_size)
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", "none")
        if syntax not in _SYNTAXES:
            raise InputError(f"{path} has the transfer syntax {syntax}, plain little endian is read: {_EXPORT}")
        dataset = pydicom.dcmread(path)
        index = _rhythm(path, dataset)
        group = dataset.WaveformSequence[index]
        ecg = _voltage(path, group, dataset.waveform_array(index).T)
        if padding := group.get("WaveformPaddingValue"):
            counts = multiplex_array(dataset, index, as_raw=True).T
            ecg[counts == np.frombuffer(padding, counts.dtype)[0]] = np.nan
        leads = [_lead(channel) for channel in group.ChannelDefinitionSequence]
        return make_recording(path, ecg, float(group.SamplingFrequency), leads, _facts(dataset))
    except InputError:
        raise
    except Exception as error:  # the library raises nearly every type on damaged files
        raise InputError(f"{path}: pydicom cannot read it ({type(error).__name__}: {error}): {_EXPORT}") from error


def _rhythm(path: Path, dataset: "Dataset") -> int:
    """Place of the multiplex group that is the record."""
    groups = list(dataset.get("WaveformSequence", []))
    labels = [str(group.get("MultiplexGroupLabel", "")).upper() for group in groups]
    for wanted in (
        [place for place, group in enumerate(groups) if group.get("WaveformOriginality") == "ORIGINAL"],
        [place for place, label in enumerate(labels) if "RHYTHM" in label],
        list(range(len(groups))),
    ):
        if len(wanted) == 1:
            return wanted[0]
    told = ", ".join(label or "no label" for label in labels)
    raise InputError(
        f"{path} holds {len(groups)} waveforms ({told}), one original or one labelled RHYTHM is read: {_EXPORT}"
    )


def _voltage(path: Path, group: "Dataset", values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` (lead, time) in the channels' units -> mV, once nothing is in the way."""
    if group.WaveformSampleInterpretation not in ("SB", "UB", "SS", "US", "SL", "UL"):
        raise InputError(f"{path}: values encoded as {group.WaveformSampleInterpretation} are not read: {_EXPORT}")
    scaled = []
    for channel, signal in zip(group.ChannelDefinitionSequence, values, strict=True):
        name = _lead(channel)
        if "ChannelSensitivity" not in channel or "ChannelSensitivityUnitsSequence" not in channel:
            raise InputError(f"{path}: lead {name} has no sensitivity, so its unit is not known: {_EXPORT}")
        if any(abs(float(channel.get(skew, 0) or 0)) >= 1 for skew in ("ChannelSampleSkew", "ChannelTimeSkew")):
            raise InputError(f"{path}: lead {name} was recorded at another time than its group (skew): {_EXPORT}")
        scaled.append(signal * unit_scale(path, name, channel.ChannelSensitivityUnitsSequence[0].CodeValue))
    return np.stack(scaled)


def _lead(channel: Any) -> str:
    """The channel's lead by its code, or as its meaning or label spells it."""
    source = channel.ChannelSourceSequence[0]
    code = _LEAD_CODE.fullmatch(str(source.get("CodeValue", "")))
    spelled = [str(source.get("CodeMeaning", "")), str(channel.get("ChannelLabel", ""))]
    if code and int(code[1]) in _LEADS:
        return _LEADS[int(code[1])]
    return next(filter(is_lead, spelled), spelled[0] or spelled[1])


def _facts(dataset: "Dataset") -> dict[str, str]:
    facts = {name: str(dataset.get(keyword) or "").strip() for name, keyword in _FACTS.items()}
    if re.fullmatch(r"\d{3}Y", facts["Age"]):
        facts["Age"] = str(int(facts["Age"][:3]))
    texts = (str(note.get("UnformattedTextValue") or "") for note in dataset.get("WaveformAnnotationSequence", []))
    facts["Statements"] = "; ".join(filter(None, (" ".join(text.split()) for text in texts)))
    return {name: fact for name, fact in facts.items() if fact}

"""Reads one's own ECGs: WFDB, CSV, NPY, and by the extra `formats` DICOM, HL7 aECG and GE MUSE XML."""

from ecg_lightning.data.formats.conforming import conform
from ecg_lightning.data.formats.doubts import warnings_of
from ecg_lightning.data.formats.readers import find_recordings, read_recording
from ecg_lightning.data.formats.recording import Layout, Recording

__all__ = ["Layout", "Recording", "conform", "find_recordings", "read_recording", "warnings_of"]

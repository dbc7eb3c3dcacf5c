"""Reads ECGs out of whatever files they are in: WFDB, CSV, NPY and NPZ."""

from ecg_lightning.data.formats.conforming import conform
from ecg_lightning.data.formats.doubts import warnings_of
from ecg_lightning.data.formats.readers import find_recordings, read_recording
from ecg_lightning.data.formats.recording import Layout, Recording

__all__ = ["Layout", "Recording", "conform", "find_recordings", "read_recording", "warnings_of"]

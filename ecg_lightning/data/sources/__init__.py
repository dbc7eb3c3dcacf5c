"""Where records come from: PTB-XL, a WFDB folder with diagnoses in its headers, a manifest, or plain files."""

from ecg_lightning.data.sources.finding import read_source
from ecg_lightning.data.sources.source import Kind, Source, SourceOptions

__all__ = ["Kind", "Source", "SourceOptions", "read_source"]

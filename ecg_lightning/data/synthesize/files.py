"""Records in PTB-XL's own WFDB layout: format 16, 1000 units per mV, the sum of each lead in the header."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.record import read_record
from ecg_lightning.data.synthesize.record import LEADS
from ecg_lightning.errors import InputError


def write_record(path: Path, ecg: NDArray[np.int16], sampling_rate: int) -> None:
    """Writes ``ecg`` (lead, time) in units of 0.001 mV to ``path`` (without extension): the signal, then the header."""
    path.with_name(f"{path.name}.dat").write_bytes(np.ascontiguousarray(ecg.T, "<i2").tobytes())
    path.with_name(f"{path.name}.hea").write_text(header_text(path.name, ecg, sampling_rate), encoding="ascii")


def header_text(name: str, ecg: NDArray[np.int16], sampling_rate: int) -> str:
    """PTB-XL's header of the record ``name``."""
    sums = (ecg.sum(axis=1, dtype=np.int64) % 65536).tolist()
    lines = [f"{name} {len(ecg)} {sampling_rate} {ecg.shape[1]}"]
    for lead, first, checksum in zip(LEADS, ecg[:, 0].tolist(), sums, strict=True):
        lines.append(f"{name}.dat 16 1000.0(0)/mV 16 0 {first} {checksum} 0 {lead}")
    return "\n".join(lines) + "\n"


def finished(paths: Mapping[int, Path]) -> bool:
    """Whether the record is there at each rate of ``paths``, whole: its checksums are those of its header."""
    try:
        for rate, path in paths.items():
            read_record(path, LEADS, rate, 10 * rate)
    except InputError:
        return False
    return True

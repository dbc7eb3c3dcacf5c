"""All that `prepare` settles before the first record is read."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ecg_lightning
from ecg_lightning.chains import chain_to_json, run_record_chain
from ecg_lightning.data.labels import check_whole_ptbxl, label_counts
from ecg_lightning.data.ptbxl import PtbxlTable, read_table
from ecg_lightning.data.record import MILLIVOLTS_PER_UNIT, header_length
from ecg_lightning.data.store_format import FORMAT_VERSION
from ecg_lightning.errors import InputError
from ecg_lightning.signals import SignalSpec, StoredSignal


@dataclass(frozen=True, eq=False)
class Plan:
    """Where records come from, what is stored of them, and what the store says of itself.

    Attributes:
        source: the folder of the table.
        table: its rows.
        paths: of the records, below the source, without extension.
        stored: what the store will hold.
        record_points: time points of every record before the chain.
        attributes: of the store.
    """

    source: Path
    table: PtbxlTable
    paths: tuple[str, ...]
    stored: StoredSignal
    record_points: int
    attributes: dict[str, str | int | float]

    @property
    def dtype(self) -> str:
        """Of the stored signals: int16 is a lossless copy, what a chain filtered is float32."""
        return "<f4" if self.stored.chain else "<i2"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the stored signals: (record, lead, time)."""
        return len(self.paths), len(self.stored.leads), self.stored.num_time_points

    @property
    def num_bytes(self) -> int:
        """Of the stored signals."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def key(self) -> str:
        """Hash of all that decides what the store will hold, but for the command."""
        signal = [self.stored.record_rate, self.stored.leads, self.stored.num_time_points, self.record_points]
        rest = {name: value for name, value in self.attributes.items() if name != "command"}
        parts = [FORMAT_VERSION, signal, chain_to_json(self.stored.chain), rest]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def make_plan(source: Path, signal: SignalSpec, command: str) -> Plan:
    """Reads the table, checks it against PTB-XL 1.0.3 where it is the whole of it, looks at some headers.

    Raises:
        InputError: for problems in the table, no records at the rate, records too short for the backbone.
    """
    table = read_table(source)
    records = table.records
    counts = label_counts(table.likelihood, table.statements, records["strat_fold"], records["patient_id"])
    whole = check_whole_ptbxl(counts, table.csv_sha256)
    paths = table.filenames["filename_lr" if signal.record_rate == 100 else "filename_hr"]
    folder = source / Path(paths[0]).parts[0]
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist, the records of {signal.record_rate:g} Hz are looked for there: fetch them with "
            "https://physionet.org/content/ptb-xl/1.0.3/, or choose a --backbone for the rate that is there"
        )
    record_points = _usual_length(source, paths) or round(10 * signal.record_rate)
    return Plan(
        source,
        table,
        paths,
        _stored(signal, record_points),
        record_points,
        {
            "source": str(source.resolve()),
            "source_version": "PTB-XL 1.0.3" if whole else "unknown: not the whole of PTB-XL 1.0.3",
            "csv_sha256": table.csv_sha256,
            "statements_sha256": table.statements_sha256,
            "package_version": ecg_lightning.__version__,
            "command": command,
            "millivolts_per_unit": 1.0 if signal.stored_chain else MILLIVOLTS_PER_UNIT,
        },
    )


def _usual_length(source: Path, paths: Sequence[str]) -> int | None:
    """The most common number of time points among some headers: one odd record must not condemn the rest."""
    some = paths[:: max(1, len(paths) // 16)]
    lengths = Counter(length for path in some if (length := header_length(source / path)))
    return lengths.most_common(1)[0][0] if lengths else None


def _stored(signal: SignalSpec, record_points: int) -> StoredSignal:
    silence = np.zeros((1, record_points))
    try:
        length = run_record_chain(signal.stored_chain, silence, signal.record_rate).shape[-1]
    except ValueError as error:
        raise InputError(f"records of {record_points} time points are too short for the chain ({error})") from error
    if length < signal.num_time_points:
        raise InputError(
            f"the records give {length} time points at {signal.sampling_rate:g} Hz, the backbone takes "
            f"{signal.num_time_points}: choose another --backbone, or one with fewer time points"
        )
    return StoredSignal(float(signal.record_rate), signal.leads, length, signal.stored_chain)

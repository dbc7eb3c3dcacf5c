"""All that `prepare` settles before the first record is read."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import ecg_lightning
from ecg_lightning.chains import chain_to_json, run_record_chain
from ecg_lightning.data.record import MILLIVOLTS_PER_UNIT, header_length
from ecg_lightning.data.sources import Source, SourceOptions, read_source
from ecg_lightning.data.sources.source import WORDS
from ecg_lightning.data.store_format import FORMAT_VERSION
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.signals import SignalSpec, StoredSignal


@dataclass(frozen=True, eq=False)
class Plan:
    """Where records come from, what is stored of them, and what the store says of itself.

    Attributes:
        source: the records.
        stored: what the store will hold.
        record_points: time points of every record before the chain.
        dtype: of the stored signals: ``<i2`` is a lossless copy in units of 0.001 mV; ``<f4`` what a chain filtered,
            what was resampled, or what is finer.
        facts: what the store says of itself, but for the unit.
    """

    source: Source
    stored: StoredSignal
    record_points: int
    dtype: str
    facts: dict[str, str]

    @property
    def attributes(self) -> dict[str, str | int | float]:
        """Of the store."""
        return {**self.facts, "millivolts_per_unit": MILLIVOLTS_PER_UNIT if self.dtype == "<i2" else 1.0}

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the records, below the source."""
        return self.source.paths

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
        parts = [FORMAT_VERSION, signal, chain_to_json(self.stored.chain), rest, self._tables_hash()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _tables_hash(self) -> str:
        """Of what flags such as --labels and --seed make of a source; PTB-XL's tables follow from their files."""
        source = self.source
        if source.layout is None:
            return ""
        digest = hashlib.sha256(json.dumps([repr(source.layout), source.paths]).encode())
        for columns in (source.records, source.statements.to_columns(), {"likelihood": source.likelihood}):
            for name, column in columns.items():
                digest.update(f"{name} {column.dtype.str} {column.shape}".encode() + column.tobytes())
        return digest.hexdigest()


def make_plan(path: Path, signal: SignalSpec, command: str, options: SourceOptions) -> Plan:
    """Reads all that the source at ``path`` says of its records, and looks at some of them.

    Raises:
        InputError: for problems in the source, no records at PTB-XL's rate, records too short for the backbone.
    """
    source = read_source(path, options, signal.record_rate)
    facts = {
        "source": str(path.resolve()),
        "source_kind": source.kind,
        "source_version": WORDS[source.kind],
        **source.attributes,
        "package_version": ecg_lightning.__version__,
        "command": command,
    }
    if source.layout is None:
        record_points = _usual_length(source.root, source.paths) or round(10 * signal.record_rate)
        stored = signal_to_store(signal, record_points)
        return Plan(source, stored, record_points, "<f4" if stored.chain else "<i2", facts)
    record_points = asked_length(signal, options.seconds)
    stored = signal_to_store(signal, record_points)
    facts["notes"] = "; ".join(source.notes)
    facts["conforming"] = (
        "leads by name, III, aVR, aVL and aVF from I and II where absent; other rates resampled to "
        f"{signal.record_rate:g} Hz; the first {record_points / signal.record_rate:g} s of longer records"
    )
    plan = Plan(source, stored, record_points, "<i2", facts)
    return plan if not stored.chain and _first_is_whole(plan) else replace(plan, dtype="<f4")


def asked_length(signal: SignalSpec, seconds: float | None) -> int:
    """Time points of a record before the chain: ``seconds`` long, by default as long as the backbone needs.

    Raises:
        UsageError: for less than the backbone needs.
    """
    needed = signal.num_time_points / signal.sampling_rate
    length = math.ceil(round((needed if seconds is None else seconds) * signal.record_rate, 6))
    if seconds is not None and seconds < needed:
        raise UsageError(f"--seconds is {seconds:g}, the backbone takes {needed:g} s: leave it out, or make it longer")
    return length


def _first_is_whole(plan: Plan) -> bool:
    """Whether the first record that can be read is in whole units: a guess, which `prepare` drops where it fails."""
    from ecg_lightning.data.any_record import conformed

    source = plan.source
    assert source.layout is not None
    for path in source.paths[:16]:
        try:
            ecg = conformed(source.root / path, source.layout, plan.stored, plan.record_points).ecg
        except InputError:
            continue  # told when the record is converted
        return ecg.dtype == np.int16
    return True


def _usual_length(source: Path, paths: Sequence[str]) -> int | None:
    """The most common number of time points among some headers: one odd record must not condemn the rest."""
    some = paths[:: max(1, len(paths) // 16)]
    lengths = Counter(length for path in some if (length := header_length(source / path)))
    return lengths.most_common(1)[0][0] if lengths else None


def signal_to_store(signal: SignalSpec, record_points: int) -> StoredSignal:
    """What is left of records of ``record_points`` behind the steps of ``signal`` before its crop.

    Raises:
        InputError: for records that are too short for the chain or the backbone.
    """
    silence = np.zeros((1, record_points))
    try:
        length = run_record_chain(signal.stored_chain, silence, signal.record_rate).shape[-1]
    except ValueError as error:
        raise InputError(f"records of {record_points} time points are too short for the chain ({error})") from error
    if length < signal.window_points:
        raise InputError(
            f"the records give {length} time points at {signal.stored_rate:g} Hz, the backbone takes "
            f"{signal.window_points}: choose another --backbone, or one with fewer time points"
        )
    return StoredSignal(float(signal.record_rate), signal.leads, length, signal.stored_chain)

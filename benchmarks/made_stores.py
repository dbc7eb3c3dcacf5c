"""Stores made by hand for benchmarks: real records over and over, or simulated ones written in a moment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.labels import ABSENT, Statements, ptbxl_statements
from ecg_lightning.data.store import Store
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.signals import LEADS_12, StoredSignal

WRITTEN_AT_ONCE = 1000
"""Records."""


def tiled(store: Path, path: Path, num_records: int) -> Path:
    """The records of ``store`` over and over, each time under new ids: as large a set as a cache does not hold."""
    opened = Store(store)
    rows = np.arange(num_records) % opened.num_records
    records = {name: column[rows] for name, column in opened.records.items()} | {
        "ecg_id": np.arange(1, num_records + 1)
    }
    own = ("format_version", "block_records", "signal", "sha256")
    attributes = {name: value for name, value in opened.attributes.items() if name not in own}
    signals = opened.signals()
    _write(path, opened.stored, signals, rows, records, opened.likelihood[rows], opened.statements, attributes)
    return path


def simulated(path: Path, num_records: int, sampling_rate: int = 100) -> Path:
    """Noise in 12 leads of 10 s, PTB-XL's folds, 71 labels, three to a record: for what asks nothing of the signals."""
    random = np.random.default_rng(0)
    codes = tuple(f"S{place:02d}" for place in range(71))
    flags = {kind: np.ones(71, bool) for kind in ("diagnostic", "form", "rhythm")}
    likelihood = np.full((num_records, 71), ABSENT, np.uint8)
    for _ in range(3):
        likelihood[np.arange(num_records), random.integers(71, size=num_records)] = 100
    records = {
        "ecg_id": np.arange(1, num_records + 1),
        "patient_id": np.arange(num_records),
        "strat_fold": (np.arange(num_records) % 10 + 1).astype(np.int8),
        "age": random.uniform(18, 90, num_records),
        "sex": random.integers(2, size=num_records).astype(np.int8),
        "checksum": np.zeros(num_records, np.uint32),
    }
    signals = random.integers(-2000, 2000, (257, 12, 10 * sampling_rate), dtype=np.int16)
    stored = StoredSignal(float(sampling_rate), LEADS_12, 10 * sampling_rate)
    attributes = {"source": "made up", "millivolts_per_unit": 0.001}
    rows = np.arange(num_records) % len(signals)
    _write(path, stored, signals, rows, records, likelihood, ptbxl_statements(codes, flags, codes, codes), attributes)
    return path


def _write(
    path: Path,
    stored: StoredSignal,
    signals: NDArray[Any],
    rows: NDArray[np.int64],
    records: Mapping[str, NDArray[Any]],
    likelihood: NDArray[np.uint8],
    statements: Statements,
    attributes: Mapping[str, Any],
) -> None:
    offset = create_store(path, stored, signals.dtype.str, records, likelihood, statements, attributes)
    with path.open("r+b") as file:
        file.seek(offset)
        for start in range(0, len(rows), WRITTEN_AT_ONCE):
            file.write(signals[rows[start : start + WRITTEN_AT_ONCE]].tobytes())
    finish_store(path, {})

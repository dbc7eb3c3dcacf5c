"""A store cut into several, as `prepare` would have written them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ecg_lightning.data.store import Store
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.signals import StoredSignal


def part_of(store: Path, path: Path, rows: Sequence[int] | slice, block_records: int = 4096, **changes: Any) -> Path:
    """These rows of a store as a store of their own; ``changes`` to its signal or its columns."""
    opened = Store(store)
    records = {name: column[rows] for name, column in opened.records.items()}
    stored = opened.stored
    fields = {name: changes.get(name, getattr(stored, name)) for name in stored.__dataclass_fields__}
    records |= {name: column for name, column in changes.items() if name in records}
    signals = np.ascontiguousarray(opened.signals()[rows][..., : fields["num_time_points"]])
    attributes_of_signals: dict[str, Any] = {}
    if changes.get("as_millivolts"):
        signals, attributes_of_signals = (signals * np.float32(0.001)).astype("<f4"), {"millivolts_per_unit": 1.0}
    own = ("format_version", "block_records", "signal", "sha256")
    attributes = {name: value for name, value in opened.attributes.items() if name not in own} | attributes_of_signals
    statements = changes.get("statements", opened.statements)
    offset = create_store(
        path,
        StoredSignal(**fields),
        signals.dtype.str,
        records,
        opened.likelihood[rows],
        statements,
        attributes,
        block_records,
    )
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(signals.tobytes())
    finish_store(path, {})
    return path


def cut_into(store: Path, folder: Path, number: int) -> list[Path]:
    """As many shards of (nearly) the same size, in order."""
    bounds = np.linspace(0, Store(store).num_records, number + 1).astype(int).tolist()
    return [
        part_of(store, folder / f"shard-{place}.h5", slice(start, stop))
        for place, (start, stop) in enumerate(pairwise(bounds))
    ]

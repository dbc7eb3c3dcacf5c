"""Reads what Weights & Biases wrote offline: LevelDB's log format, records in protocol buffers."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def history(run: Path) -> list[dict[str, Any]]:
    """Rows of the one offline folder that `wandb sync` would find, in their order; ``_step`` is their number."""
    [file] = (run / "wandb").glob("offline-run-*/*.wandb")
    return rows(file)


def rows(file: Path) -> list[dict[str, Any]]:
    """Of a run that has ended: its file is written on for a moment behind that, up to a record that says so."""
    begin, found = time.monotonic(), _parsed(file)
    while not any(record.HasField("exit") for record in found):
        assert time.monotonic() - begin < 120, f"{file} was not ended"
        time.sleep(0.1)
        found = _parsed(file)
    return [
        {(".".join(i.nested_key) or i.key): json.loads(i.value_json) for i in record.history.item}
        | {"_step": record.history.step.num}
        for record in found
        if record.HasField("history")
    ]


def _parsed(file: Path) -> list[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    return [Record.FromString(content) for content in _records(file.read_bytes())]


def _records(log: bytes) -> Iterator[bytes]:
    """Whole records; a tail that a kill cut off is left out."""
    place, parts = HEADER, b""  # the file's own header is as long as a record's
    while place + HEADER <= len(log):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", log[place : place + HEADER])
        if kind == 0 or place + HEADER + length > len(log):
            return
        parts += log[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""

"""A probe's frozen backbone: written once, beside the checkpoints of head and optimizer that name it by its hash.

A checkpoint without its backbone is completed by one function, `completed`, wherever it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ecg_lightning.backbones.provenance import ENTRY, TRAINED_ON
from ecg_lightning.errors import InputError
from ecg_lightning.whole_files import whole_file

FILE = "frozen-backbone.safetensors"
"""Beside the checkpoints, so that a run may be moved or copied; its names are the backbone's own."""
PREFIX = "backbone."
_KEY = "frozen_backbone"


class FrozenBackbone:
    """Takes the backbone out of a process's checkpoints, and has it written before the first one that names it."""

    def __init__(self) -> None:
        self._written: tuple[object, ...] = ()
        self._sha256 = ""

    def taken_out(self, checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The checkpoint with the backbone's hash in its place; the backbone lies in ``folder`` behind this."""
        state: dict[str, Tensor] = checkpoint["state_dict"]
        backbone = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        # Frozen, but nobody need be believed: what is written to in place, or moved, is hashed again.
        marks = (folder, *((tensor.data_ptr(), tensor._version) for tensor in backbone.values()))
        if marks != self._written or not (folder / FILE).is_file():
            self._sha256 = tensors_sha256(backbone)
            if _digest_of(folder / FILE) != self._sha256:
                before = checkpoint.get(TRAINED_ON, {}).get("before", [])
                _write(backbone, folder / FILE, {ENTRY: json.dumps({"pretraining": before})})
            self._written = marks
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}
        return {**checkpoint, "state_dict": rest, _KEY: {"sha256": self._sha256}}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this package, whole, on the CPU; runs no code from the file.

    Raises:
        InputError: as `completed`.
    """
    return completed(torch.load(path, map_location="cpu", weights_only=True, mmap=True), path)


def completed(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The checkpoint read from ``path`` with the frozen backbone that it names, itself where it names none.

    Raises:
        InputError: when the backbone's file is missing, damaged or another one's.
    """
    named = checkpoint.get(_KEY)
    if named is None:
        return checkpoint
    file = path.parent / FILE
    way_out = "put the file of its run back beside it, or train anew under another --run"
    if not file.is_file():
        raise InputError(
            f"{path} was written in a probe, without the frozen backbone, and {file} is missing: {way_out}"
        )
    try:
        backbone = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}, the frozen backbone of {path.name}, is damaged ({error}): {way_out}") from None
    found = tensors_sha256(backbone)
    if found != named["sha256"]:
        raise InputError(
            f"{file} is not the frozen backbone that {path.name} was trained on: its tensors hash to {found[:12]}, "
            f"the checkpoint names {str(named['sha256'])[:12]}: {way_out}"
        )
    state = {f"{PREFIX}{name}": tensor for name, tensor in backbone.items()} | checkpoint["state_dict"]
    return {**{key: value for key, value in checkpoint.items() if key != _KEY}, "state_dict": state}


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values: the same whatever library wrote the file, in whatever order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest_of(file: Path) -> str | None:
    try:
        return tensors_sha256(load_file(file))
    except (SafetensorError, OSError):  # none there, or damaged: written anew
        return None


def _write(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        own[name] = (tensor.clone() if place in seen else tensor).detach().contiguous()  # safetensors takes no sharing
        seen.add(place)
    with whole_file(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(own, temporary, metadata)
        temporary.chmod(mode)  # safetensors makes files that nobody else may read

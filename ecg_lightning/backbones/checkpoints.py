"""Weights from a file into a backbone: all of them, or an error that names every tensor that does not fit."""

import argparse
import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ecg_lightning.backbones.base import Backbone
from ecg_lightning.backbones.hub import local_file
from ecg_lightning.backbones.pickles import excess_of
from ecg_lightning.backbones.provenance import Pretraining, facts_in, pretraining_of
from ecg_lightning.errors import InputError, joined

State = dict[str, Tensor]

OWN_PREFIX = "backbone."
"""How the backbone's names start in a checkpoint of this package's classifier."""

STATE_KEYS = ("state_dict", "model")
"""Where weights lie in a training save, after the backbone's own `published_key`."""

_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)

# Plain data that training saves hold beside the weights; none of them can run code.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


class Unread:
    """Stands in for any object of a file that is neither a tensor nor plain data; it takes and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> "Unread":
        """As any class is called, with no effect."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Forgets the object's state."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        path: the file.
        sha256: of the file.
        matched: the backbone's tensors, all of them.
        dropped: names of the file that the backbone has no place for.
        unread: classes of objects beside the weights, left unread.
        remark: what the backbone has to say of such a file.
        history: what its pre-training here was on, where the file says so.
    """

    path: Path
    sha256: str
    matched: tuple[str, ...]
    dropped: tuple[str, ...]
    unread: tuple[str, ...] = ()
    remark: str = ""
    history: tuple[Pretraining, ...] = ()

    def __str__(self) -> str:
        patterns = sorted({re.sub(r"\d+", "*", name.rpartition(".")[0] or name) for name in self.dropped})
        dropped = f"; {len(self.dropped)} dropped by name ({joined(patterns, limit=6)})" if patterns else ""
        unread = f"; left unread: {joined(self.unread, limit=6)}" if self.unread else ""
        remark = f". Note: {self.remark}" if self.remark else ""
        history = f"; pre-trained on {joined([str(one) for one in self.history])}" if self.history else ""
        return (
            f"{self.path.name} (sha256 {self.sha256[:12]}): {len(self.matched)} tensors loaded"
            f"{dropped}{unread}{history}{remark}"
        )


def load_weights(backbone: Backbone, path: str | Path, *, sha256: str | None = None) -> LoadReport:
    """Loads a published checkpoint, a state dict, or a checkpoint of this package's classifier into ``backbone``.

    Heads and other parts that the backbone has no place for are dropped by name and reported; everything else must
    fit, and nothing in the backbone changes unless all of it does. Two published names of one tensor may both be there,
    with equal values. Files that could run code are refused; objects that the backbone says its authors saved beside
    the weights (`Backbone.foreign_objects`) are left unread and reported.

    Args:
        backbone: takes the weights, in place.
        path: a safetensors file or a torch file; ``hf://owner/repository/file`` for one on the Hugging Face hub.
        sha256: what the file must hash to, when given.

    Raises:
        InputError: when the file cannot be read, is not the one asked for, or does not fit.
    """
    path = local_file(path)
    digest = weights_digest(path, sha256)
    entries, unread = _entries(path, backbone.foreign_objects)
    state = _state_dict(backbone, entries, path)
    weights, dropped = _placed(backbone, state, path)
    _compare(backbone, weights, path)
    backbone.load_state_dict(weights)
    remark, history = backbone.remark(state), pretraining_of(path)
    return LoadReport(path, digest, tuple(weights), tuple(dropped), tuple(unread), remark, history)


def weights_digest(path: str | Path, expected: str | None = None) -> str:
    """The sha256 of a file of weights, named as for `load_weights`.

    Raises:
        InputError: when there is no such file, it is empty, or its hash is not the one ``expected``.
    """
    path = local_file(path)
    if not path.is_file():
        raise InputError(f"{path} is no file: give the path of a checkpoint (.safetensors, .pth, .pt, .ckpt)")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: download or copy the checkpoint again")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected.lower():
        raise InputError(
            f"{path} has sha256 {digest}, not {expected}: it is another file or a damaged one, fetch it anew"
        )
    return digest


def _entries(path: Path, foreign: tuple[str, ...]) -> tuple[Any, list[str]]:
    """What the file holds, told by its first bytes, not by its suffix; and the foreign classes left unread in it."""
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:] == b"{":
            return load_file(path), []
        if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
            return _torch_entries(path, foreign)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise _unpickling_error(path, error) from None
    except MemoryError:
        size = path.stat().st_size / 2**20
        raise InputError(
            f"{path} ({size:.0f} MiB) asks for more memory than there is: if the file is whole (--model.weights_sha256 "
            "tells), free some or take a larger machine; else download or copy it again"
        ) from None
    except Exception as error:  # what torch's functions raise on arguments that a damaged file gives them has no end
        raise _damaged(path) from error
    raise InputError(f"{path} is not a checkpoint: give a safetensors or a torch file")


def _torch_entries(path: Path, foreign: tuple[str, ...]) -> tuple[Any, list[str]]:
    is_zip = zipfile.is_zipfile(path)
    if excess := excess_of(path):
        raise InputError(f"{path} is refused: it asks for {excess}, which no weights need; convert it to safetensors")
    with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # it is refused, or it loads
        unread = _foreign_classes(path, foreign) if is_zip and foreign else []
        # torch's reader looks names up in its list and nowhere else: what they mean outside is never imported.
        with torch.serialization.safe_globals([(Unread, name) for name in unread]):
            return torch.load(path, map_location="cpu", weights_only=True), unread


def _foreign_classes(path: Path, foreign: tuple[str, ...]) -> list[str]:
    """The classes that the file asks for and that the backbone knows as beside the point."""
    asked_for = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return sorted(name for name in asked_for if any(f"{name}.".startswith(f"{known}.") for known in foreign))


def _unpickling_error(path: Path, error: Exception) -> InputError:
    found = re.search(r"GLOBAL (\S+)|Unsupported (?:class|operand)", str(error))
    if found is None:
        return _damaged(path)
    what = f"it asks for {found[1]}" if found[1] else "it is a pickle of more than tensors"
    return InputError(f"{path} is refused: loading it could run code ({what}); convert it to safetensors")


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is not a whole checkpoint, it is cut off or damaged: download or copy it again")


def _state_dict(backbone: Backbone, entries: Any, path: Path) -> State:
    for key in (backbone.published_key, *STATE_KEYS):
        if isinstance(entries, Mapping) and isinstance(entries.get(key), Mapping):
            entries = entries[key]
            break
    if isinstance(entries, Mapping) and entries and all(map(_is_named_tensor, entries.items())):
        _refuse_odd_tensors(entries, path)
        return dict(entries)
    found = joined([*map(_shown, entries)]) if isinstance(entries, Mapping) else type(entries).__name__
    keys = ", ".join(dict.fromkeys(key for key in (backbone.published_key, *STATE_KEYS) if key))
    raise InputError(f"{path} holds no weights (found: {found}): give a state dict, alone or as one of {keys}")


def _shown(key: object) -> str:
    """Short whatever stands in the file: not all that can be a key can be written out."""
    return key[:60] if isinstance(key, str) else type(key).__name__


def _is_named_tensor(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _refuse_odd_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuses tensors that cannot be looked at or copied as numbers, or that the file is too short for."""
    kinds = {name: _odd_kind(tensor, path.stat().st_size) for name, tensor in state.items()}
    if odd := [f"{name} is {kind}" for name, kind in kinds.items() if kind]:
        raise InputError(f"{path} holds what is not plain weights: {joined(odd)}: save a state dict of dense tensors")


def _odd_kind(tensor: Tensor, num_bytes: int) -> str:
    if tensor.is_meta:
        return "without values"
    if tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        return f"{tensor.layout} of {tensor.dtype}"
    return "larger than the file" if tensor.numel() > num_bytes else ""


def _placed(backbone: Backbone, state: State, path: Path) -> tuple[State, list[str]]:
    """The tensors under the backbone's names, and the names that it has no place for."""
    kinds = [prefix for prefix in (OWN_PREFIX, backbone.published_prefix) if prefix]
    prefix = next((one for one in kinds if any(name.startswith(one) for name in state)), "")
    wrappers = () if prefix == OWN_PREFIX else backbone.wrappers(state)
    weights: State = {}
    places: dict[str, str] = {}
    dropped, unlike = [], []
    for name, tensor in state.items():
        bare = reduce(str.removeprefix, wrappers, name.removeprefix(prefix))
        own = backbone.own_name(bare) if name.startswith(prefix) else None
        if own is None:
            dropped.append(name)
        elif own not in weights:
            weights[own], places[own] = tensor, name
        elif not _is_same(tensor, weights[own]):
            unlike.append(f"{places[own]} and {name} for {own}")
    if unlike:
        raise InputError(
            f"{path} holds some weights under two names that differ: {joined(unlike)}: keep the right one of each, "
            "drop the other"
        )
    return weights, dropped


def _compare(backbone: Backbone, weights: State, path: Path) -> None:
    own, network = backbone.state_dict(), type(backbone).__name__
    if not own.keys() & weights.keys():
        raise InputError(
            f"{path} holds another network: none of its {len(weights)} tensors ({joined(list(weights), limit=3)}) is "
            f"one of {network}'s: give a file of {network}, or the backbone that the file is of"
        )
    unlike = [name for name in own if name in weights and _kind(own[name]) != _kind(weights[name])]
    problems = [
        f"{what}: {joined(names)}"
        for what, names in (
            ("missing", [name for name in own if name not in weights]),
            ("unexpected", [name for name in weights if name not in own]),
            ("of another size", [f"{n} is {_shape(weights[n])}, not {_shape(own[n])}" for n in unlike]),
        )
        if names
    ]
    if problems:
        fix = f"give the file of this network, or build it with the sizes that the file has{_sizes_in(path)}"
        raise InputError(f"{path} does not fit {network}; {'; '.join(problems)}: {fix}")
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"{path} holds NaN or infinite weights in {joined(broken)}: use a checkpoint from before that")


def _sizes_in(path: Path) -> str:
    """The sizes that a file of `pretrain` says it has, as flags."""
    sizes = facts_in(path).get("sizes")
    named = sizes.items() if isinstance(sizes, dict) else ()
    flags = [f"--model.backbone.{name} {json.dumps(value)}" for name, value in named]
    return f" ({' '.join(flags)})" if flags else ""


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether they are one tensor that was registered under two names; NaN equals NaN, it is reported later."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _kind(tensor: Tensor) -> tuple[bool, bool, torch.Size]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.shape


def _shape(tensor: Tensor) -> str:
    size = " x ".join(str(length) for length in tensor.shape) or "one number"
    return size if tensor.is_floating_point() else f"{size} ({tensor.dtype})"

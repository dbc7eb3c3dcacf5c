"""Files of weights of every wrong kind, for `fit --model.weights` and `embed --weights`."""

import json
import pickle
import struct
from collections.abc import Callable

import torch
from bad_records import RunsCode, archive
from bad_row import Here, Make, Row, both, file, nothing
from safetensors.torch import save_file

from ecg_lightning.backbones import ViT

EMBED = "embed --backbone vit --sizes SIZES --store STORE --output out.npz --weights"
FIT_WITH = "fit FIT --data.store STORE --run run --model.weights"
SIZES = {"depth": 1, "dim": 6}


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(ViT(**SIZES).state_dict())


def saved(name: str, change: Callable[[dict[str, torch.Tensor]], object] = lambda weights: weights) -> Make:
    """A torch file of what ``change`` makes of good weights."""

    def make(here: Here) -> None:
        torch.save(change(state()), here.path / name)

    return make


def cut(name: str, share: float) -> Make:
    def make(here: Here) -> None:
        path = here.path / name
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return make


def safetensors(here: Here) -> None:
    save_file(state(), here.path / "w.safetensors")


def lying(change: Callable[[dict[str, dict[str, object]]], object], length: int | None = None) -> Make:
    """A safetensors file whose head says something else than its body holds."""

    def make(here: Here) -> None:
        safetensors(here)
        path = here.path / "w.safetensors"
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + size])
        change(head)
        packed = json.dumps(head).encode()
        path.write_bytes(struct.pack("<Q", len(packed) if length is None else length) + packed + content[8 + size :])

    return make


def first(head: dict[str, dict[str, object]]) -> dict[str, object]:
    return head[next(name for name in head if name != "__metadata__")]


def reshaped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name in weights if weights[name].dim() == 2)
    return {**weights, name: weights[name][:, :-1]}


def with_nan(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(iter(weights))
    return {**weights, name: torch.full_like(weights[name], float("nan"))}


NO_CHECKPOINT = ("is not a checkpoint", "give a safetensors or a torch file")
DAMAGED = ("is not a whole checkpoint", "download or copy it again")
ROWS = (
    Row("empty", f"{FIT_WITH} w.pt", ("w.pt is empty", "download or copy"), file("w.pt", b""), process=True),
    Row("text", f"{FIT_WITH} w.pt", ("w.pt", *NO_CHECKPOINT), file("w.pt", "weights")),
    Row("a web page", f"{EMBED} w.pt", ("w.pt", *NO_CHECKPOINT), file("w.pt", "<!DOCTYPE html><html>404</html>")),
    Row("an archive of something else", f"{FIT_WITH} w.pt", ("w.pt", *DAMAGED), file("w.pt", archive({"a.txt": b"x"}))),
    Row("a folder", f"{FIT_WITH} w", ("w is no file", "give the path"), lambda here: (here.path / "w").mkdir()),
    Row("not there", f"{EMBED} w.pt", ("w.pt is no file", "give the path")),
    Row("another network's", f"{FIT_WITH} w.pt", ("w.pt holds another network", "give a file of ViT"), saved("w.pt", lambda weights: {"fc.weight": torch.ones(3)})),
    Row("of another size", f"{EMBED} w.pt", ("w.pt does not fit ViT", "of another size", "build it with the sizes"), saved("w.pt", reshaped)),
    Row("in part", f"{FIT_WITH} w.pt", ("w.pt does not fit ViT", "missing"), saved("w.pt", lambda weights: dict([*weights.items()][:-2]))),
    Row("NaN", f"{FIT_WITH} w.pt", ("w.pt holds NaN", "use a checkpoint from before"), saved("w.pt", with_nan)),
    Row("a list", f"{FIT_WITH} w.pt", ("w.pt holds no weights", "give a state dict"), saved("w.pt", lambda weights: [1, 2])),
    Row("an empty dict", f"{EMBED} w.pt", ("w.pt holds no weights", "give a state dict"), saved("w.pt", lambda weights: {})),
    Row("a whole module", f"{FIT_WITH} w.pt", ("w.pt is refused: loading it could run code", "convert it to safetensors"), saved("w.pt", lambda weights: torch.nn.Linear(2, 2))),
    Row("cut", f"{FIT_WITH} w.pt", ("w.pt", *DAMAGED), both(saved("w.pt"), cut("w.pt", 0.6)), process=True),
    Row("cut safetensors", f"{EMBED} w.safetensors", ("w.safetensors", *DAMAGED), both(safetensors, cut("w.safetensors", 0.6))),
    Row("a head of an exabyte", f"{FIT_WITH} w.safetensors", ("w.safetensors", *DAMAGED), lying(nothing, 2**60), bounded=True),  # type: ignore[arg-type]
    Row("offsets beyond the file", f"{EMBED} w.safetensors", ("w.safetensors", *DAMAGED), lying(lambda head: first(head).update(data_offsets=[0, 2**50])), bounded=True),
    Row("a shape beyond the data", f"{EMBED} w.safetensors", ("w.safetensors", *DAMAGED), lying(lambda head: first(head).update(shape=[2**40, 2**20])), bounded=True),
    Row("an unknown type of number", f"{FIT_WITH} w.safetensors", ("w.safetensors", *DAMAGED), lying(lambda head: first(head).update(dtype="F99"))),
    *(
        Row(f"a pickle called {name}", f"{FIT_WITH} {name}", (name, "could run code", "convert it to safetensors"), saved(name, lambda weights: {**weights, "more": RunsCode()}))
        for name in ("w.pt", "w.pth", "w.bin", "w.ckpt")
    ),
    Row("a pickle called w.safetensors", f"{EMBED} w.safetensors", ("w.safetensors", *DAMAGED), saved("w.safetensors", lambda weights: {**weights, "more": RunsCode()})),
    Row("a bare pickle", f"{EMBED} w.bin", ("w.bin", "could run code"), file("w.bin", pickle.dumps(RunsCode(), protocol=2)), process=True),
    Row("of another hash", f"{FIT_WITH} w.pt --model.weights_sha256 {'ab' * 32}", ("w.pt has sha256", "ab" * 32, "fetch it anew"), saved("w.pt")),
    Row("a hash that is none", f"{FIT_WITH} w.pt --model.weights_sha256 123", ("w.pt has sha256", "not 123"), saved("w.pt")),
    Row("a name on the hub that is none", f"{FIT_WITH} hf://nothing", ("hf://nothing names no file on the hub", "hf://owner/repository/file")),
)  # fmt: skip

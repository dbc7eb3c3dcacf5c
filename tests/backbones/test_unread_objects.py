"""Files with objects beside the weights: whatever lies in them, and wherever, none of it runs or is imported."""

import contextlib
import pickle
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published import foreign_class

from ecg_lightning.backbones import HuBERTECGSmall, ViT, load_weights
from ecg_lightning.errors import InputError

TINY: dict[str, Any] = {"dim": 32, "depth": 1, "heads": 2, "conv_channels": 16}


def backbone() -> HuBERTECGSmall:
    torch.manual_seed(3)
    return HuBERTECGSmall(**TINY)


class Calls:
    """A pickle of this calls ``module.name(*arguments)``."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments

    def __reduce__(self) -> Any:
        return Foreign(self.module, self.name), self.arguments


class Foreign:
    """Stands for a function of a package while the file is written (`dumped` writes its name)."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *_: Any) -> None:
        raise AssertionError("only its name is written")


class _Pickler(pickle._Pickler):
    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_foreign(self, obj: Foreign) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    dispatch[Foreign] = save_foreign


class PickleModule:
    """What torch.save takes as its pickle module."""

    Pickler = _Pickler
    dump, dumps, load, loads = pickle.dump, pickle.dumps, pickle.load, pickle.loads
    Unpickler = pickle.Unpickler


@pytest.fixture
def trap(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder on the path with packages named as the authors'; importing or calling anything in them leaves a mark."""
    mark = tmp_path / "ran_code"
    for package in ("hubert_ecg", "transformers"):
        (tmp_path / "packages").mkdir(exist_ok=True)
        (tmp_path / "packages" / f"{package}.py").write_text(
            f"from pathlib import Path\n\nmark = Path({str(mark)!r})\nmark.touch()\n\n\n"
            "def run(*_):\n    mark.touch()\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.chdir(tmp_path)
    yield mark
    for package in ("hubert_ecg", "transformers"):
        sys.modules.pop(package, None)


DANGEROUS = [
    ("os", "system", "touch ran_code"),
    ("posix", "system", "touch ran_code"),
    ("builtins", "eval", "open('ran_code', 'w')"),
    ("builtins", "exec", "open('ran_code', 'w')"),
    ("subprocess", "Popen", ["touch", "ran_code"]),
    ("runpy", "run_path", "packages/hubert_ecg.py"),
    ("importlib", "import_module", "hubert_ecg"),
    ("torch.hub", "load", "somebody/repository"),
    ("torch", "load", "ran_code"),
    ("ecg_lightning.backbones.checkpoints", "load_weights", "ran_code"),
]
DISGUISED = [("hubert_ecg", "run", 1), ("transformers", "run", 1), ("hubert_ecg", "run.os.system", "touch ran_code")]


class WithState:
    """Is built by one foreign class with arguments and is given a state that is the payload."""

    def __init__(self, payload: Any) -> None:
        self.payload = payload

    def __reduce__(self) -> Any:
        return Foreign("hubert_ecg", "Config"), (self.payload,), self.payload


POSITIONS = {
    "top entry": lambda payload, weights: {"a": payload, "model_state_dict": weights},
    "key": lambda payload, weights: {payload: 1, "model_state_dict": weights},
    "behind the weights": lambda payload, weights: {"model_state_dict": weights, "optimizer": {"state": [payload]}},
    "argument and state of a foreign object": lambda payload, weights: {
        "model_config": WithState(payload),
        "model_state_dict": weights,
    },
    "argument of an allowed call": lambda payload, weights: {
        "best": Calls("collections", "OrderedDict", [["a", payload]]),
        "model_state_dict": weights,
    },
    "argument of a NumPy number": lambda payload, weights: {
        "best": Calls("numpy.core.multiarray", "scalar", np.dtype("f8"), payload),
        "model_state_dict": weights,
    },
}
INSIDE = {
    "among the weights": lambda payload, weights: {"model_state_dict": {**weights, "norm.weight": payload}},
    "instead of the weights": lambda payload, weights: {"model_state_dict": payload},
    "the whole file": lambda payload, weights: payload,
    "storage of a tensor": lambda payload, weights: {
        "model_state_dict": {
            **weights,
            "norm.weight": Calls("torch._utils", "_rebuild_tensor_v2", payload, 0, (32,), (1,), False, payload),
        }
    },
    "data of a parameter": lambda payload, weights: {
        "model_state_dict": {**weights, "norm.weight": Calls("torch._utils", "_rebuild_parameter", payload, True, {})}
    },
    "hooks of a tensor": lambda payload, weights: {
        "model_state_dict": {
            **weights,
            "norm.weight": Calls(
                "torch._utils", "_rebuild_tensor_v2", torch.ones(32)._typed_storage(), 0, (3,), (1,), False, payload
            ),
        }
    },
}


def write(path: Path, contents: Any) -> Path:
    torch.save(contents, path, pickle_module=PickleModule)  # type: ignore[arg-type]
    return path


def refused(path: Path) -> str:
    target = backbone()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(target, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    return str(error.value)


def source_state() -> dict[str, Any]:
    return dict(backbone().state_dict())


@pytest.mark.parametrize("position", [*POSITIONS, *INSIDE])
def test_a_reader_that_runs_code_springs_the_trap(position, trap, tmp_path):
    path = write(
        tmp_path / "m.pt", (POSITIONS | INSIDE)[position](Calls("posix", "system", "touch ran_code"), source_state())
    )
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize("position", [*POSITIONS, *INSIDE])
@pytest.mark.parametrize("call", DANGEROUS, ids=lambda call: f"{call[0]}.{call[1]}")
def test_a_dangerous_call_is_refused_wherever_it_lies(position, call, trap, tmp_path):
    contents = (POSITIONS | INSIDE)[position](Calls(*call), source_state())
    message = refused(write(tmp_path / "m.pt", contents))
    assert "could run code" in message
    assert not trap.exists()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("call", DISGUISED, ids=lambda call: f"{call[0]}.{call[1]}")
def test_a_call_under_a_name_that_is_left_unread_is_neither_imported_nor_run(position, call, trap, tmp_path):
    path = write(tmp_path / "m.pt", POSITIONS[position](Calls(*call), source_state()))
    target = HuBERTECGSmall(**TINY)
    if "NumPy" in position:  # which wants bytes
        assert "damaged" in refused(path)
    else:
        report = load_weights(target, path)
        assert f"{call[0]}.{call[1]}" in report.unread
        assert all(torch.equal(tensor, source_state()[name]) for name, tensor in target.state_dict().items())
    assert not trap.exists()
    assert not {"hubert_ecg", "transformers"} & sys.modules.keys()


@pytest.mark.parametrize("position", INSIDE)
@pytest.mark.parametrize("call", DISGUISED, ids=lambda call: f"{call[0]}.{call[1]}")
def test_an_unread_object_in_the_place_of_weights_is_refused(position, call, trap, tmp_path):
    refused(write(tmp_path / "m.pt", INSIDE[position](Calls(*call), source_state())))
    assert not trap.exists()
    assert not {"hubert_ecg", "transformers"} & sys.modules.keys()


def test_a_foreign_object_is_refused_by_a_backbone_whose_files_hold_none(trap, tmp_path):
    vit = ViT(depth=1, dim=12, heads=3, num_time_points=100)
    path = write(tmp_path / "m.pt", {"a": Calls("hubert_ecg", "Config"), "model": vit.state_dict()})
    with pytest.raises(InputError, match=r"could run code \(it asks for hubert_ecg.Config\)"):
        load_weights(vit, path)


def test_a_name_that_only_starts_like_a_known_one_is_refused(trap, tmp_path):
    path = write(tmp_path / "m.pt", {"a": Calls("hubert_ecg_evil", "Config"), "model_state_dict": source_state()})
    assert "hubert_ecg_evil.Config" in refused(path)


def test_an_object_as_a_persistent_id_is_refused(trap, tmp_path):
    path = write(tmp_path / "m.pt", {"model_state_dict": source_state()})
    with_pickle(path, lambda data: data.replace(b"ctorch\nFloatStorage\n", b"chubert_ecg\nrun\n", 1))
    assert "damaged" in refused(path)
    assert not trap.exists()


def test_an_old_format_file_with_a_foreign_object_is_refused(trap, tmp_path):
    contents = {"a": Calls("hubert_ecg", "Config"), "model_state_dict": source_state()}
    torch.save(contents, tmp_path / "m.pt", pickle_module=PickleModule, _use_new_zipfile_serialization=False)
    assert "could run code" in refused(tmp_path / "m.pt")
    assert not trap.exists()


def with_pickle(path: Path, change: Any) -> None:
    """Rewrites the file's pickle, with right checksums."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    """A file as the authors save it."""
    with foreign_class("hubert_ecg", "Config") as config_class:
        config = config_class()
        config.sizes = {"hidden_size": 32}
        contents = {"model_config": config, "best": np.float64(0.5), "model_state_dict": source_state()}
        return write(tmp_path_factory.mktemp("honest") / "m.pt", contents)


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), length=st.integers(1, 3))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_in_the_pickle_end_in_weights_or_in_a_refusal(place, byte, length, honest, tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(honest.read_bytes())

    def change(data: bytes) -> bytes:
        start = int(place * len(data))
        return data[:start] + bytes([byte] * length) + data[start + length :]

    with_pickle(path, change)
    target = backbone()
    try:
        report = load_weights(target, path)
    except InputError:
        return
    assert len(report.matched) == len(target.state_dict())

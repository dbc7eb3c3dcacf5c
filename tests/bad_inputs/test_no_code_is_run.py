"""No code from a file is ever run: each trap is shown to spring in a reader that trusts it, and never in ours."""

import contextlib
import io
import json
import lzma
import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_predictions
import bad_records
import bad_runs
import bad_tables
import bad_weights
import h5py
import numpy as np
import pytest
import torch
import yaml
from bad_row import Here
from bad_stores import attribute
from tiny import of_lightning_cli

from ecg_lightning.cli import main
from ecg_lightning.demo.excerpt import unpack
from ecg_lightning.errors import InputError
from ecg_lightning.frozen_backbone import read_checkpoint
from ecg_lightning.own_code import class_paths, refuse_code_of
from ecg_lightning.runs import global_step

pytestmark = of_lightning_cli
PAYLOAD = Path("ran_code")
RunsCode = bad_records.RunsCode


def trusting_hdf5() -> object:
    with h5py.File("store.h5") as opened:
        return pickle.loads(opened.attrs["signal"].tobytes())


def trusting_codes() -> object:
    return eval("__import__('os').system('touch ran_code')")


def row_of(rows: Any, name: str, command: str = "") -> Any:
    """The row of that name, whose command begins so."""
    return next(row for row in rows.ROWS if row.name == name and row.command.startswith(command))


def load_array(name: str, key: str | None = None) -> Callable[[], object]:
    def load() -> object:
        loaded = np.load(name, allow_pickle=True)
        return loaded if key is None else loaded[key]

    return load


TRAPS: dict[str, tuple[Any, Callable[[], object]]] = {
    **{
        f"weights {name}": (
            row_of(bad_weights, f"a pickle called {name}"),
            lambda name=name: torch.load(io.BytesIO(Path(name).read_bytes()), weights_only=False),
        )
        for name in ("w.pt", "w.pth", "w.bin", "w.ckpt")
    },
    "a bare pickle": (row_of(bad_weights, "a bare pickle"), lambda: pickle.loads(Path("w.bin").read_bytes())),
    "a checkpoint": (
        row_of(bad_runs, "a checkpoint that runs code", "test"),
        lambda: torch.load("run/checkpoints/finetune-best.ckpt", weights_only=False),
    ),
    "a run's config": (
        row_of(bad_runs, "a config that runs code"),
        lambda: yaml.unsafe_load(Path("run/config.yaml").read_text()),
    ),
    **{
        f"predictions {key}": (row_of(bad_predictions, f"objects as {key}"), load_array("p.npz", key))
        for key in ("record_id", "probabilities", "label_names", "meta")
    },
    "an array": (row_of(bad_records, "an array of objects"), load_array("a.npy")),
    "an archive of arrays": (row_of(bad_records, "an archive of objects"), load_array("a.npz", "signal")),
    "a pickle as a record": (row_of(bad_records, "a pickle"), lambda: pickle.loads(Path("a.pkl").read_bytes())),
    "codes in a table": (row_of(bad_tables, "codes that are a call"), trusting_codes),
}


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_store, plain_run, ptbxl):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Here(tmp_path / "here", tiny_store, plain_run, ptbxl)


@pytest.mark.parametrize("name", TRAPS)
def test_a_reader_that_trusts_the_file_runs_its_code(name, here):
    row, trust = TRAPS[name]
    row.make(here)
    assert not PAYLOAD.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trust()
    assert PAYLOAD.exists()


@pytest.mark.parametrize("name", TRAPS)
def test_ours_refuses_it_and_runs_nothing(name, here):
    from test_bad_inputs import arguments

    row, _ = TRAPS[name]
    row.make(here)
    good = {"STORE": here.good_store, "RUN": here.good_run, "PTBXL": here.good_ptbxl}
    assert main(arguments(row, good)) == row.code
    assert not PAYLOAD.exists()


def test_a_pickle_in_an_attribute_of_a_store_is_not_read(here, capsys):
    attribute("signal", np.void(pickle.dumps(RunsCode())))(here)
    assert main(["inspect", "store.h5"]) == 1
    assert "store.h5 is not a store, or damaged" in capsys.readouterr().err
    assert not PAYLOAD.exists()
    trusting_hdf5()
    assert PAYLOAD.exists()


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with lzma.open(path, "wb") as compressed, tarfile.open(fileobj=compressed, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [(member("../escaped"), b"x")],
        [(member("inside/../../escaped"), b"x")],
        [(member("link", tarfile.SYMTYPE, ".."), b""), (member("link/escaped"), b"x")],
        [(member("link", tarfile.LNKTYPE, "../target"), b"")],
        [(member("link", tarfile.SYMTYPE, "inside"), b"")],
        [(member("device", tarfile.CHRTYPE), b"")],
    ],
    ids=["dots", "dots inside", "through a link", "a hard link", "a link inside", "a device"],
)
def test_nothing_of_an_archive_lies_outside_its_folder_and_no_link_is_followed(members, here):
    (here.path / "target").write_text("mine")
    archive = packed(here.path / "a.tar.xz", *members)
    (here.path / "out").mkdir()
    with pytest.raises(InputError, match=r"a\.tar\.xz"):
        unpack(archive, here.path / "out")
    assert not (here.path / "escaped").exists()
    assert not any((here.path / "out").iterdir())
    assert (here.path / "target").read_text() == "mine"


def test_an_absolute_member_is_refused(here):
    archive = packed(here.path / "a.tar.xz", (member(f"{here.path}/escaped"), b"x"))
    (here.path / "out").mkdir()
    with pytest.raises(InputError, match="would lie outside"):
        unpack(archive, here.path / "out")
    assert not (here.path / "escaped").exists()


@pytest.mark.parametrize("read", [read_checkpoint, global_step])
def test_each_reader_of_checkpoints_refuses_by_itself(read, here):
    row_of(bad_runs, "a checkpoint that runs code", "test").make(here)
    with contextlib.suppress(pickle.UnpicklingError):
        assert read(Path("run/checkpoints/finetune-best.ckpt")) is None
    assert not PAYLOAD.exists()


# --- a run folder of somebody else ---

NET = "open('ran_code', 'w').close()\nfrom trained_runs import PlainNet\nclass Net(PlainNet): pass\n"


@pytest.fixture
def with_code(here, monkeypatch):
    """A run whose folder brings the code of its backbone, as seen by somebody who stands in it."""
    run = here.run()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["backbone"] = {"class_path": "came_along.Net", "init_args": {}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "came_along.py").write_text(NET)
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(str(run))
    return run


@pytest.mark.parametrize(
    "command",
    ["test --run .", "validate --run .", "fit --run . --resume auto", "export --run . --output out.safetensors"],
    ids=lambda command: command.split()[0],
)
def test_code_that_came_with_a_run_is_not_imported(command, with_code, capsys):
    if "resume" in command:
        (with_code / "state.json").write_text(json.dumps({"state": "interrupted"}))
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    assert "names came_along.Net" in said
    assert "code that comes with a run is never run" in said
    assert not (with_code / "ran_code").exists()


def test_code_beside_a_run_is_ones_own(with_code, here, monkeypatch, capsys):
    (with_code / "came_along.py").rename(here.path / "came_along.py")
    monkeypatch.chdir(here.path)
    monkeypatch.syspath_prepend(str(here.path))
    assert main(["export", "--run", "run", "--output", "out.safetensors"]) == 0
    assert Path("ran_code").exists()  # importing a class is running its module: that is what a class path asks for


def test_every_class_of_a_config_is_looked_at(tmp_path):
    config = {"trainer": {"callbacks": [{"class_path": "a.B", "init_args": {"inner": {"class_path": "c.D"}}}]}}
    assert list(class_paths(config)) == ["a.B", "c.D"]
    refuse_code_of(tmp_path, config)

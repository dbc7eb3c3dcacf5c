"""What all tests share."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_ptbxl import write_ptbxl
from short_run import short_store, undisturbed  # noqa: F401
from tiny import fresh_screen, tiny_store  # noqa: F401
from trained_runs import filtered_run, plain_run, ptbxl  # noqa: F401

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background of a shell; the tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Two spinning thread pools on few cores make everything ten times slower.
torch.set_num_threads(1)


@pytest.fixture
def shared() -> Path:
    """The folder with full-size references and real records; tests that need it are skipped without."""
    folder = os.environ.get("ECG_SHARED")
    if not folder:
        pytest.skip("ECG_SHARED does not name the folder of full-size references and real records")
    return Path(folder)


@pytest.fixture(scope="session")
def make_ptbxl(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a made-up tree of PTB-XL's shape: ``make_ptbxl(num_records=40, sampling_rate=100, ...)`` -> its folder."""

    def make(**arguments: Any) -> Path:
        folder = tmp_path_factory.mktemp("ptbxl")
        write_ptbxl(folder, **arguments)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_ptbxl_template(make_ptbxl: Callable[..., Path]) -> Path:
    return make_ptbxl()


@pytest.fixture
def tiny_ptbxl(tiny_ptbxl_template: Path, tmp_path: Path) -> Path:
    """40 made-up records at 100 Hz over all ten folds, in PTB-XL's layout; the test's own copy, to damage at will."""
    return Path(shutil.copytree(tiny_ptbxl_template, tmp_path / "ptbxl"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder

"""A small data set of PTB-XL's shape, published on a server of the test's own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_ptbxl import write_ptbxl
from ptbxl_server import STATEMENTS, TABLE, Server, digests, serving, write_list

from ecg_lightning.data import download as download_module
from ecg_lightning.data import published
from ecg_lightning.data import server as server_module


@pytest.fixture(scope="session")
def published_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 made-up records at both rates with PTB-XL's other files."""
    folder = tmp_path_factory.mktemp("published")
    for rate in (500, 100):
        write_ptbxl(folder, num_records=20, sampling_rate=rate)
    (folder / "LICENSE.txt").write_text("Creative Commons Attribution 4.0\n")
    write_list(folder)
    return folder


@pytest.fixture
def tree(published_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own copy of what is published, taken for PTB-XL 1.0.3; pauses are short."""
    folder = Path(shutil.copytree(published_template, tmp_path / "published"))
    known = {name: digests(folder)[name] for name in (TABLE, STATEMENTS)}
    for module in (published, download_module):
        monkeypatch.setattr(module, "known_hashes", lambda: known)
    monkeypatch.setattr(server_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(server_module, "LONGEST_PAUSE", 0.02)
    return folder


@pytest.fixture
def server(tree: Path) -> Iterator[Server]:
    with serving(tree) as server:
        yield server


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "ptbxl"

"""Every file of a run is on the disk before it takes its name, and what had the name stays until then."""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from short_run import fit_here
from tiny import of_lightning_cli

from ecg_lightning.whole_files import whole_file

pytestmark = of_lightning_cli
APPENDED = {"log.txt", ".lock"}
"""Of a run folder: the only files that are not written whole."""


class Call(NamedTuple):
    """A call of the system: the file's or the folder's path, its inode, its size, and for a rename the target."""

    kind: str
    path: Path
    inode: int
    size: int
    target: Path | None = None
    replaced: bool = False


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """All calls of fsync, and all renames by whatever function, in their order."""
    seen: list[Call] = []
    real = os.fsync
    listening = True

    def fsync(file: int) -> None:
        status = os.fstat(file)
        kind = "fsync of folder" if stat.S_ISDIR(status.st_mode) else "fsync"
        seen.append(Call(kind, Path(f"/proc/self/fd/{file}").readlink(), status.st_ino, status.st_size))
        real(file)

    def listen(event: str, arguments: tuple[object, ...]) -> None:  # an audit hook stays for ever
        if listening and event == "os.rename":
            path, target = Path(str(arguments[0])), Path(str(arguments[1]))
            status = path.stat()
            seen.append(Call("rename", path, status.st_ino, status.st_size, target, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    sys.addaudithook(listen)
    yield seen
    listening = False


def test_each_file_of_a_run_is_written_beside_its_name_forced_to_the_disk_and_renamed(
    calls: list[Call], short_store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert fit_here(short_store, run, "--checkpoint_every", "2") == 0
    renames = [place for place, call in enumerate(calls) if call.kind == "rename" and run in call.path.parents]
    for place in renames:
        before, rename, after = calls[place - 1], calls[place], calls[place + 1]
        assert rename.target is not None
        assert rename.path.parent == rename.target.parent
        assert rename.path.suffix == ".tmp"
        assert (before.kind, before.inode, before.size) == ("fsync", rename.inode, rename.size)
        assert (after.kind, after.path) == ("fsync of folder", rename.target.parent)
    written = {calls[place].target for place in renames}
    found = {path for path in run.rglob("*") if path.is_file() and path.name not in APPENDED}
    assert {path.name for path in found} >= {
        *("config.yaml", "environment.json", "state.json", "metrics.csv", "metrics_val.json", "val.npz"),
        *("last.ckpt", "probe-best.ckpt", "finetune-best.ckpt", "frozen-backbone.safetensors"),
    }
    assert found <= written
    # The former file of the name was there up to the rename: nobody took it away first.
    last = [calls[place] for place in renames if calls[place].target == run / "checkpoints" / "last.ckpt"]
    assert len(last) >= 8
    assert [call.replaced for call in last] == [False] + [True] * (len(last) - 1)


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_the_former_file_outlives_whatever_ends_a_write(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "some.txt"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("new, in pa")
            raise error

    with pytest.raises(type(error)):
        write()
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("some.txt", "old")]


def test_two_processes_that_write_one_file_do_not_share_a_temporary(tmp_path: Path) -> None:
    """On two machines that take each other for dead, process ids may be the same."""
    path = tmp_path / "some.txt"
    with whole_file(path) as one, whole_file(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"

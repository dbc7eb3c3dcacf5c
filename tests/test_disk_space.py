"""Whether a run will fit on its disk is known before it begins; the estimate is held against real files."""

import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from short_run import fit_here
from tiny import norm_net, of_lightning_cli, tiny_classifier

from ecg_lightning.disk_space import check_space, need_of
from ecg_lightning.errors import InputError
from ecg_lightning.frozen_backbone import FILE
from ecg_lightning.phases import FineTune, Probe
from ecg_lightning.runs import BEST, RunFolder

pytestmark = of_lightning_cli
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_free(number: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, int(number)))

    return set_free


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    return run


def test_the_estimate_is_what_a_run_writes(undisturbed: Callable[[int, bool], Path], short_store: Path) -> None:
    """The network of the short run; its files hold some kB beside the tensors: positions, figures, names."""
    from ecg_lightning import load_run

    run = undisturbed(1, True)
    classifier = load_run(run, device="cpu").classifier
    need = need_of(classifier, Probe(epochs=2), FineTune(epochs=2)).files
    for name in (BEST["probe"], BEST["fine_tune"], "last.ckpt", FILE):
        size = (run / "checkpoints" / name).stat().st_size
        assert size - 25_000 < need[name] < size + 25_000, name


def test_layers_that_stay_frozen_have_no_moments() -> None:
    whole, frozen = (need_of(tiny_classifier(norm_net()), Probe(0), FineTune(1, freeze_layers=n)).total for n in (0, 2))
    assert frozen < whole


def test_a_phase_that_is_left_out_needs_nothing() -> None:
    classifier = tiny_classifier()
    assert set(need_of(classifier, Probe(0), FineTune(1)).files) & {BEST["probe"], FILE} == set()
    assert BEST["fine_tune"] not in need_of(classifier, Probe(1), FineTune(0)).files


def test_a_disk_that_is_too_small_is_refused_with_the_numbers(run: RunFolder, free: Callable[[float], None]) -> None:
    need = need_of(tiny_classifier(), Probe(1), FineTune(1))
    free(need.total - 1)
    with pytest.raises(
        InputError, match=r"needs 0\.\d\d MB for its checkpoints, 0\.\d\d MB are free on its disk"
    ) as error:
        check_space(run, need)
    assert f"{BEST['fine_tune']} 0." in str(error.value)
    assert "choose a folder on another disk" in str(error.value)


def test_a_disk_that_is_nearly_too_small_is_warned_of(
    run: RunFolder, free: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    need = need_of(tiny_classifier(), Probe(1), FineTune(1))
    free(need.total)
    check_space(run, need)
    assert "are free on its disk: when it is full the run ends, and can be gone on with" in caplog.text
    caplog.clear()
    free(need.total * 2)
    check_space(run, need)
    assert caplog.text == ""


def test_what_a_resumed_run_has_written_is_not_asked_for_again(run: RunFolder, free: Callable[[float], None]) -> None:
    need = need_of(tiny_classifier(), Probe(1), FineTune(1))
    best, last = run.checkpoints / BEST["fine_tune"], run.checkpoints / "last.ckpt"
    best.write_bytes(bytes(1000))
    last.hardlink_to(best)
    free(need.total - 1000)
    check_space(run, need)
    free(need.total - 1001)
    with pytest.raises(InputError, match="free some space there"):
        check_space(run, need)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # whatever a failing test left open


def test_fit_refuses_a_disk_that_is_too_small_and_leaves_nothing_there(
    tiny_disk: Path, short_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit_here(short_store, tiny_disk / "run") == 1
    said = capsys.readouterr().err
    assert f"--run {tiny_disk}/run needs" in said
    assert "Traceback" not in said
    assert [*tiny_disk.iterdir()] == []

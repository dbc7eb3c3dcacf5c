import hashlib
import io
import json
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from processes import run_python
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ecg_lightning.backbones import ViT, load_weights
from ecg_lightning.backbones.provenance import pretraining_of
from ecg_lightning.cli import main
from ecg_lightning.demo.backbone import CARD, FILE
from ecg_lightning.demo.excerpt import FILE_NAME, unpack, unpack_excerpt
from ecg_lightning.demo.make_backbone import MAX_BYTES as MOST_BYTES
from ecg_lightning.demo.make_backbone import halve
from ecg_lightning.demo.make_excerpt import MAX_BYTES, make_excerpt
from ecg_lightning.demo.story import RECIPES
from ecg_lightning.errors import InputError

EXCERPT = Path(str(files("ecg_lightning.demo").joinpath(FILE_NAME)))
BACKBONE = EXCERPT.with_name(FILE)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    return unpack_excerpt(tmp_path_factory.mktemp("excerpt") / "ptbxl")


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def archive(path, *members):
    with tarfile.open(path, "w:xz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


# --- the excerpt ---


def test_the_excerpt_is_no_larger_than_6_mb():
    assert EXCERPT.stat().st_size <= MAX_BYTES


def test_the_excerpt_has_its_licence_and_citation_beside_it_and_the_licence_inside(unpacked):
    licence = EXCERPT.with_name("LICENSE-PTB-XL.txt").read_bytes()
    assert licence == (unpacked / "LICENSE.txt").read_bytes()
    assert b"Creative Commons Attribution 4.0" in licence
    assert "Scientific Data 7, 154" in EXCERPT.with_name("CITATION-PTB-XL.txt").read_text()


def test_the_excerpt_holds_422_records_in_ptbxls_layout(unpacked):
    assert len(list((unpacked / "records100" / "00000").glob("*_lr.dat"))) == 422
    assert (unpacked / "records100" / "00000" / "00001_lr.hea").is_file()


def test_fold_10_is_not_in_the_excerpt(unpacked):
    import csv

    with (unpacked / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        assert {int(row["strat_fold"]) for row in csv.DictReader(file)} == set(range(1, 10))


def test_the_excerpt_unpacks_to_the_original_files(unpacked, shared):
    assert digests(unpacked) == digests(shared / "ptbxl")


def test_unpacking_again_mends_what_was_damaged_and_leaves_other_files(tmp_path):
    folder = unpack_excerpt(tmp_path / "ptbxl")
    table = folder / "ptbxl_database.csv"
    expected = table.read_bytes()
    table.write_bytes(b"damaged")
    (folder / "mine.txt").write_text("mine")
    unpack_excerpt(folder)
    assert table.read_bytes() == expected
    assert (folder / "mine.txt").read_text() == "mine"


def test_the_same_files_give_the_same_archive(tiny_ptbxl, tmp_path):
    for name in ("LICENSE.txt", "README.md"):
        (tiny_ptbxl / name).write_text(name)
    sizes = [make_excerpt(tiny_ptbxl, tmp_path / name) for name in ("a.tar.xz", "b.tar.xz")]
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    assert sizes[0] == (tmp_path / "a.tar.xz").stat().st_size


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt"])
def test_a_member_outside_the_folder_is_refused(tmp_path, name):
    member = tarfile.TarInfo(name)
    member.size = 3
    with pytest.raises(InputError, match="install ecg-lightning anew"):
        unpack(archive(tmp_path / "bad.tar.xz", member), tmp_path / "folder")
    assert not (tmp_path / "outside.txt").exists()


def test_it_unpacks_on_pythons_whose_tarfile_knows_no_filters(tmp_path, monkeypatch):
    def extract(self, member, path="", set_attrs=True, *, numeric_owner=False):  # that of 3.11.2
        raise AssertionError("without a filter it follows links and leaves the folder")

    monkeypatch.setattr(tarfile.TarFile, "extract", extract)
    member = tarfile.TarInfo("a/b.txt")
    member.size = 3
    unpack(archive(tmp_path / "good.tar.xz", member), tmp_path / "folder")
    assert (tmp_path / "folder" / "a" / "b.txt").stat().st_size == 3


def test_a_link_is_refused(tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "../outside"
    with pytest.raises(InputError, match="link is neither a file nor a folder"):
        unpack(archive(tmp_path / "bad.tar.xz", link), tmp_path / "folder")


@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_cut_archive_is_refused_with_the_way_out(tmp_path, keep):
    cut = tmp_path / "cut.tar.xz"
    cut.write_bytes(EXCERPT.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"is damaged .*: install ecg-lightning anew"):
        unpack(cut, tmp_path / "folder")


# --- the command ---


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("mine")
    assert main(["demo", "--output", str(path)]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_an_output_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ptbxl_excerpt").write_text("mine")
    assert main(["demo", "--output", str(tmp_path / "out")]) == 1
    assert "name another --output" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--probe_epochs", "--fine_tune_epochs"])
def test_the_demo_has_both_phases(tmp_path, capsys, flag):
    assert main(["demo", "--output", str(tmp_path / "out"), flag, "0"]) == 2
    assert "set 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_shows_what_the_demo_takes(capsys):
    assert main(["demo", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--output", "--probe_epochs", "--fine_tune_epochs"))


# --- the backbone ---


def test_the_backbone_is_no_larger_than_6_mb_and_its_card_names_its_hash_and_its_command():
    assert BACKBONE.stat().st_size <= MOST_BYTES
    card = BACKBONE.with_name(CARD).read_text()
    assert hashlib.sha256(BACKBONE.read_bytes()).hexdigest() in card
    assert "ecg-lightning pretrain --config data/excerpt" in card
    assert "python -m ecg_lightning.demo.make_backbone" in card


def test_the_backbone_saw_the_training_folds_of_the_demo_and_no_other():
    (history,) = pretraining_of(BACKBONE)
    assert (history.source, history.folds) == ("PTB-XL", (1, 2, 3, 4, 5, 6, 7))


def test_half_precision_keeps_names_history_and_values_to_half_a_unit(tmp_path):
    network, wide = ViT(depth=1, dim=12, heads=1), tmp_path / "wide.safetensors"
    weights = {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
    save_file(weights, wide, {"ecg_lightning": '{"pretraining": []}'})
    halve(wide, tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * wide.stat().st_size
    other = ViT(depth=1, dim=12, heads=1)
    load_weights(other, tmp_path / "half.safetensors")
    for name, tensor in other.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=2**-11, atol=2**-24)
    with safe_open(tmp_path / "half.safetensors", "pt") as file:
        assert file.metadata() == {"ecg_lightning": '{"pretraining": []}'}


@pytest.mark.slow
def test_the_backbone_is_made_by_one_command(tmp_path):
    """As the shipped one, but for two epochs."""
    few = ["--pretraining.epochs", "2", "--pretraining.warmup_epochs", "1", "--pretraining.pictures", "0"]
    done = run_python("-m", "ecg_lightning.demo.make_backbone", str(tmp_path), *few)
    assert done.returncode == 0, done.stdout
    made = tmp_path / FILE
    assert pretraining_of(made)[0].folds == pretraining_of(BACKBONE)[0].folds
    assert pretraining_of(made)[0].epochs == 2
    assert hashlib.sha256(made.read_bytes()).hexdigest() in (tmp_path / CARD).read_text()
    names = [load_file(path).keys() for path in (made, BACKBONE)]
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # Of Lightning 2.6: its LightningCLI calls what jsonargparse 4.53 has renamed; the other two are hidden from users.
    "ignore::DeprecationWarning",
    "ignore:.*eval mode at the start of training",
    "ignore:Be aware that when using `ckpt_path`",
)
def test_the_demo_runs_and_a_second_one_is_put_beside_the_first(tmp_path, capsys):
    arguments = ["demo", "--output", str(tmp_path), "--probe_epochs", "1", "--fine_tune_epochs", "1"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "folds 1-7 train, fold 8 validates, fold 9 tests" in shown
    assert "say nothing about published PTB-XL results" in shown
    for run in RECIPES:
        seen = json.loads((tmp_path / "run-1" / run / "environment.json").read_text())["pretrained_on"]
        assert [(one["source"], one["folds"]) for one in seen] == [("PTB-XL", [1, 2, 3, 4, 5, 6, 7])]
    told = {line[:46].strip(): line[46:].split() for line in shown.splitlines() if "pre-trained" not in line}
    for name, title in (("method", "probe, then fine-tuning with stochastic depth"), ("plain", "plain fine-tuning")):
        judged = [
            json.loads((tmp_path / f"run-1/{name}/metrics_{split}.json").read_text()) for split in ("val", "test")
        ]
        assert told[title] == [f"{one[figure]:.4f}" for one in judged for figure in ("auroc", "auprc")]
    assert len(told["linear probe alone"]) == 2
    assert main(arguments) == 0
    for run in ("run-1", "run-2"):
        assert (tmp_path / run / "method" / "demo_picture.png").is_file()
        assert (tmp_path / run / "plain" / "metrics_test.json").is_file()
        page = (tmp_path / run / "report" / "report.html").read_text()
        assert "method" in page
        assert "plain" in page

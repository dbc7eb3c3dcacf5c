"""What weights were trained on goes with them into every file, and no command judges them on it."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shards import part_of
from test_pretrain_command import SHORT, TINY, fit, pretrained  # noqa: F401 - a fixture
from tiny import of_lightning_cli

from ecg_lightning.backbones.provenance import Origins, Pretraining, pretraining_of
from ecg_lightning.cli import main
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.trained_on import what_is_trained_on
from ecg_lightning.data.unlabelled import UnlabelledECGs

pytestmark = of_lightning_cli
ENCODER = ("masked auto-encoding, 75% masked", (1, 2, 3, 4, 5, 6, 7))
LABELS = ("labels of task superdiagnostic", (1, 2))


@pytest.fixture(scope="module")
def tuned(pretrained, tiny_store, tmp_path_factory):  # noqa: F811
    """A run that probed and fine-tuned the encoder of folds 1 to 7 on folds 1 and 2, and its export."""
    folder = tmp_path_factory.mktemp("tuned")
    more = ["--data.train_folds=[1,2]", "--config", "recipe/default", "--post_training.probe.epochs=1"]
    more += ["--post_training.fine_tune.epochs=1", "--post_training.fine_tune.warmup_epochs=0"]
    assert fit(folder / "run", pretrained / "encoder.safetensors", tiny_store, *more) == 0
    assert main(["export", "--run", str(folder / "run"), "--output", str(folder / "run.safetensors")]) == 0
    return folder / "run"


def seen_by(file):
    return [(one.objective, one.folds) for one in pretraining_of(file)]


FILES = {
    "run/checkpoints/finetune-best.ckpt": [ENCODER, LABELS],
    "run/checkpoints/probe-best.ckpt": [ENCODER, LABELS],
    "run/checkpoints/last.ckpt": [ENCODER, LABELS],
    "run/checkpoints/frozen-backbone.safetensors": [ENCODER],
    "run.safetensors": [ENCODER, LABELS],
}


def test_every_file_of_a_run_says_what_its_weights_have_seen(pretrained, tuned):  # noqa: F811
    assert {name: seen_by(tuned.parent / name) for name in FILES} == FILES
    assert seen_by(pretrained / "checkpoints" / "last.ckpt") == [ENCODER]
    labelled = pretraining_of(tuned / "checkpoints" / "last.ckpt")[1]
    assert (labelled.source, labelled.epochs) == ("PTB-XL", 2)
    told = json.loads((tuned / "environment.json").read_text())["pretrained_on"]
    assert [Pretraining.from_json(one) for one in told] == [*pretraining_of(pretrained / "encoder.safetensors")]


@pytest.mark.parametrize("name", ["run/checkpoints/finetune-best.ckpt", "run.safetensors", "the pre-training's own"])
def test_fit_refuses_whichever_file_of_seen_weights_it_is_given(
    pretrained,  # noqa: F811
    tuned,
    tiny_store,
    tmp_path,
    capsys,
    name,
):
    file = tuned.parent / name if name.startswith("run") else pretrained / "checkpoints" / "last.ckpt"
    flags = ["--data.train_folds=[3]", "--data.val_folds=[1]", "--data.test_folds=[9]"]
    assert fit(tmp_path / "run", file, tiny_store, *flags) == 2
    assert "trained on fold(s) 1 of PTB-XL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "folds", "seen"),
    [
        ("test", ("[1,2]", "[9]", "[7]"), "fold(s) 7"),
        ("validate", ("[1,2]", "[7]", "[10]"), "fold(s) 7"),
        ("test", ("[9]", "[10]", "[2]"), "fold(s) 2 of PTB-XL, fold(s) 2"),
    ],
)
def test_a_run_is_not_judged_on_other_folds_that_its_weights_have_seen(tuned, capsys, command, folds, seen):
    flags = [f"--data.{name}_folds={given}" for name, given in zip(("train", "val", "test"), folds, strict=True)]
    before = sorted(tuned.rglob("*"))
    assert main([command, "--run", str(tuned), *flags]) == 2
    assert f"were trained on {seen}" in capsys.readouterr().err.replace("; fold", ", fold").replace(" and ", ", ")
    assert sorted(tuned.rglob("*")) == before


def test_a_grid_is_refused_before_its_first_run(pretrained, tiny_store, tmp_path, capsys):  # noqa: F811
    grid = tmp_path / "grid.yaml"
    grid.write_text("axes:\n  fold: {flag: data.val_folds, values: [[9], [7]]}\n")
    common = [*TINY, "--config", "backbone/vit", "--config", "recipe/linear_probe", "--post_training.probe.epochs=1"]
    data = ["--data.train_folds=[1]", "--data.task=superdiagnostic", "--data.store", str(tiny_store)]
    weights = ["--model.weights", str(pretrained / "encoder.safetensors"), "--output", str(tmp_path / "runs")]
    assert main(["experiment", str(grid), *common, *data, *weights]) == 2
    assert "trained on fold(s) 7 of PTB-XL" in capsys.readouterr().err
    assert not [*tmp_path.rglob("checkpoints")]


def test_a_second_pretraining_is_not_judged_on_what_the_first_has_seen(
    pretrained,  # noqa: F811
    tiny_store,
    tmp_path,
    capsys,
):
    run, weights = tmp_path / "run", ["--model.weights", str(pretrained / "checkpoints" / "last.ckpt")]
    folds = ["--data.train_folds=[1]", "--data.val_folds=[2]"]
    assert main([*SHORT, *folds, *weights, "--data.stores", str(tiny_store), "--run", str(run)]) == 2
    assert "trained on fold(s) 2 of PTB-XL, which are in data.val_folds" in capsys.readouterr().err
    assert not run.exists()


def test_a_resume_remembers_what_its_weights_had_seen_though_their_file_is_gone(
    pretrained,  # noqa: F811
    tiny_store,
    tmp_path,
):
    weights, run = tmp_path / "encoder.safetensors", tmp_path / "run"
    shutil.copy(pretrained / "encoder.safetensors", weights)
    command = [*SHORT, "--model.weights", str(weights), "--data.stores", str(tiny_store), "--run", str(run)]
    command += ["--pretraining.pictures=0", "--resume", "auto"]
    assert main([*command, "--trainer.max_steps=4"]) != 0
    weights.unlink()
    assert main([*command, "--trainer.max_steps=-1"]) == 0
    assert seen_by(run / "encoder.safetensors") == [ENCODER, (ENCODER[0], (1, 2, 3, 4, 5, 6, 7, 8))]


def test_a_source_that_was_left_out_halfway_is_not_forgotten():
    one, other, again = (
        Pretraining(source, (1,), 8, 4, epochs, "words", ("hash",)) for source, epochs in (("A", 1), ("B", 1), ("A", 3))
    )
    past = Origins((other,), (one, other))
    assert Origins((), (again,)).behind(past) == Origins((other,), (other, again))


def test_stores_of_several_sources_under_one_glob_are_each_named(tiny_store, tmp_path, monkeypatch):
    part_of(tiny_store, tmp_path / "a.h5", range(0, 80, 2))
    shutil.copy(tiny_store, tmp_path / "b.h5")
    data = UnlabelledECGs(str(tmp_path / "*.h5"))
    monkeypatch.setitem(data.stores.stores[0].attributes, "source_kind", "files")
    monkeypatch.setitem(data.stores.stores[0].attributes, "source", "/a/hospital")
    found = [(one["source"], one["records"], one["patients"]) for one in what_is_trained_on(data)]
    assert found == [("files hospital", 32, 16), ("PTB-XL", 64, 32)]


def test_a_fraction_and_a_weight_of_nothing_count_as_what_was_read(tiny_store, tmp_path):
    other = part_of(tiny_store, tmp_path / "other.h5", range(40))
    data = UnlabelledECGs([str(tiny_store), str(other)], weights=[0, 1])
    assert [one["records"] for one in what_is_trained_on(data)] == [len(data.split("train", 1))]
    half = PTBXLDataModule(str(tiny_store), "superdiagnostic", train_fraction=0.5)
    [told] = what_is_trained_on(half)
    assert (told["records"], told["folds"]) == (len(half.split("train")), list(range(1, 9)))
    assert told["records"] < 64


def test_embed_says_what_the_features_come_from(pretrained, tuned, tiny_store, tmp_path):  # noqa: F811
    sizes = '{"depth": 2, "dim": 12, "heads": 3, "patch": [12, 50]}'
    of = {
        "backbone": ["--backbone", "vit", "--sizes", sizes, "--weights", str(pretrained / "encoder.safetensors")],
        "run": ["--run", str(tuned)],
    }
    for name, flags in of.items():
        output = tmp_path / f"{name}.npz"
        assert main(["embed", *flags, "--store", str(tiny_store), "--output", str(output), "--device", "cpu"]) == 0
        told = json.loads(str(np.load(output)["meta"]))["trained_on"]
        assert told[0].startswith("PTB-XL, fold(s) 1, 2, 3, 4, 5, 6, 7: 56 records of 28 patients, masked")
        assert len(told) == {"backbone": 1, "run": 2}[name]


def test_files_of_others_say_nothing_and_a_damaged_history_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", {"trained_on": "[]"})
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    torch.save([torch.ones(1)], tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-40])
    names = ("a.safetensors", "a.pth", "b.pth", "c.pth", "gone.pth")
    assert {pretraining_of(tmp_path / name) for name in names} == {()}
    torch.save({"trained_on": {"before": [{"source": "A"}], "here": []}}, tmp_path / "d.ckpt")
    with pytest.raises(ValueError, match="cannot be read"):
        pretraining_of(tmp_path / "d.ckpt")


def test_a_run_killed_behind_its_last_checkpoint_ends_with_the_same_encoder_and_figures(
    pretrained,  # noqa: F811
    tiny_store,
    tmp_path,
):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    for name in ("encoder.safetensors", "encoder.md", "metrics_pretraining.json"):
        (run / name).unlink()
    (run / "state.json").write_text('{"state": "running"}')
    assert main(["pretrain", "--run", str(run), "--resume", "auto"]) == 0
    assert load_file(run / "encoder.safetensors").keys() == load_file(pretrained / "encoder.safetensors").keys()
    for name in ("encoder.safetensors", "encoder.md", "metrics_pretraining.json"):
        assert (run / name).read_bytes() == (pretrained / name).read_bytes(), name
    assert "probe_auroc" in (run / "encoder.md").read_text()

"""The command pretrain: from stores to an encoder that fit takes, and never judges on what it was trained on."""

import csv
import json

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shards import part_of
from tiny import SIZES, of_lightning_cli

from ecg_lightning.backbones import ViT, load_weights
from ecg_lightning.backbones.provenance import pretraining_of
from ecg_lightning.cli import main
from ecg_lightning.data.store import Store
from ecg_lightning.data.trained_on import source_name
from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.signals import SignalSpec

pytestmark = of_lightning_cli
TINY = [
    *(f"--model.backbone.{name}={json.dumps(value)}" for name, value in SIZES.items()),
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.batch_size=16"),
]
SHORT = [
    *("pretrain", "--config", "backbone/vit", "--config", "pretrain/masked", *TINY, "--pretraining.epochs=2"),
    *(
        "--pretraining.warmup_epochs=1",
        "--model.decoder_dim=16",
        "--model.decoder_depth=1",
        "--pretraining.probe_every=1",
    ),
    "--pretraining.pictures=1",
]


@pytest.fixture(scope="module")
def pretrained(tiny_store, tmp_path_factory):
    """A run on folds 1 to 7 of 80 made-up records."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    folds = ["--data.train_folds=[1,2,3,4,5,6,7]", "--data.val_folds=[8]", "--data.test_folds=[9,10]"]
    assert main([*SHORT, *folds, "--data.stores", str(tiny_store), "--run", str(run)]) == 0
    return run


def fit(run, encoder, store, *more):
    sizes = [*TINY, "--config", "backbone/vit", "--config", "recipe/linear_probe", "--post_training.probe.epochs=1"]
    judged = ["--data.task=superdiagnostic", "--data.store", str(store), "--run", str(run)]
    return main(["fit", *sizes, "--model.weights", str(encoder), *judged, *more])


@pytest.mark.parametrize(("name", "epochs"), [("masked", (200, 10)), ("simulated", (5, 0.3))])
@pytest.mark.parametrize("backbone", ["vit", "mtecg_ti", "st_mem_small", "st_mem_base"])
def test_each_shipped_config_goes_with_each_backbone_over_patches(capsys, tmp_path, backbone, name, epochs):
    configs = ["--config", f"backbone/{backbone}", "--config", f"pretrain/{name}"]
    given = ["--data.stores", "some.h5", "--run", str(tmp_path / "run"), "--print_config"]
    assert main(["pretrain", *configs, *given]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["pretraining"]["epochs"], config["pretraining"]["warmup_epochs"]) == epochs
    assert config["model"]["mask_ratio"] == (0.75 if name == "masked" else 0.6)
    assert not (tmp_path / "run").exists()


def test_a_run_leaves_encoder_card_figures_and_pictures(pretrained):
    assert json.loads((pretrained / "state.json").read_text())["state"] == "complete"
    names = {path.name for path in pretrained.iterdir()}
    assert {"encoder.safetensors", "encoder.md", "metrics_pretraining.json", "config.yaml", "environment.json"} <= names
    rows = list(csv.DictReader((pretrained / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows if row["val/probe_auroc"]] == ["0", "1"]
    assert all(float(row["val/loss"]) > 0 for row in rows if row["val/loss"])
    [picture] = (pretrained / "reconstructions").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
    assert [path.name for path in (pretrained / "checkpoints").iterdir()] == ["last.ckpt"]


def test_the_encoder_is_the_network_of_the_last_checkpoint_without_the_decoder(pretrained):
    state = torch.load(pretrained / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    encoder = load_file(pretrained / "encoder.safetensors")
    assert {*encoder} == {name for name in state if name.startswith("backbone.")}
    assert all(torch.equal(encoder[name], state[name]) for name in encoder)


def test_what_it_was_trained_on_is_in_the_file_the_card_and_every_load_report(pretrained):
    [seen] = pretraining_of(pretrained / "encoder.safetensors")
    assert (seen.source, seen.folds, seen.records, seen.patients) == ("PTB-XL", (1, 2, 3, 4, 5, 6, 7), 56, 28)
    assert (seen.epochs, seen.objective) == (2, "masked auto-encoding, 75% masked")
    report = load_weights(ViT(**SIZES), pretrained / "encoder.safetensors")
    told = "PTB-XL, fold(s) 1, 2, 3, 4, 5, 6, 7: 56 records of 28 patients, masked auto-encoding, 75% masked, 2 epochs"
    assert f"pre-trained on {told}" in str(report)
    assert told in (pretrained / "encoder.md").read_text()


def test_fit_takes_the_encoder_where_it_judges_on_other_folds(pretrained, tiny_store, tmp_path, capsys):
    assert fit(tmp_path / "run", pretrained / "encoder.safetensors", tiny_store) == 0
    assert "pre-trained on PTB-XL, fold(s) 1, 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folds", "split", "seen"), [(("[7]", "[10]"), "val", "7"), (("[9]", "[5,6,10]"), "test", "5, 6")]
)
def test_fit_refuses_weights_that_have_seen_what_they_would_be_judged_on(
    pretrained, tiny_store, tmp_path, capsys, folds, split, seen
):
    flags = ["--data.train_folds=[1,2]", f"--data.val_folds={folds[0]}", f"--data.test_folds={folds[1]}"]
    run = tmp_path / "run"
    assert fit(run, pretrained / "encoder.safetensors", tiny_store, *flags) == 2
    told = capsys.readouterr().err
    assert f"were trained on fold(s) {seen} of PTB-XL, which are in data.{split}_folds" in told
    assert not run.exists()


def test_an_archive_has_one_name_whatever_was_stored_of_it_and_a_simulated_one_its_own():
    assert source_name({"source_kind": "ptbxl", "source_version": "1.0.3", "source": "/x"}) == "PTB-XL"
    assert source_name({"source_kind": "ptbxl", "source_version": "unknown: not the whole"}) == "PTB-XL"
    assert source_name({"source_kind": "ptbxl", "source_version": "simulated: seed 7"}) == "simulated: seed 7"
    hospital = {"source_kind": "folders", "source_version": "-", "source": "/a/hospital/"}
    assert source_name(hospital) == "folders hospital"


@pytest.mark.parametrize("test_folds", ["[9]", "[]"])
def test_fold_10_of_ptbxl_is_trained_on_only_when_it_is_said_in_words(tiny_store, tmp_path, capsys, test_folds):
    folds = ["--data.train_folds=[1,10]", "--data.val_folds=[8]", f"--data.test_folds={test_folds}"]
    given = ["--data.stores", str(tiny_store), "--run", str(tmp_path / "run"), "--pretraining.pictures=0"]
    assert main([*SHORT, *folds, *given]) == 2
    assert "data.train_folds holds fold 10" in capsys.readouterr().err
    assert main([*SHORT, *folds, *given, "--data.with_test_fold=true"]) == 0


def test_an_archive_that_nothing_is_tested_on_leaves_no_fold_alone(tiny_store):
    folds = {"train_folds": (1, 2, 3, 4, 5, 6, 7, 8, 9), "test_folds": ()}
    data = UnlabelledECGs(str(tiny_store), **folds, val_folds=(10,))
    data.use_signal(SignalSpec(100, 1000))
    assert len(data.rows("train")) + len(data.rows("val")) == data.stores.num_records
    with pytest.raises(UsageError, match=r"data\.val_folds is empty: name at least one fold"):
        UnlabelledECGs(str(tiny_store), **folds, val_folds=()).rows("val")


def test_stores_without_a_common_task_are_mixed_by_weight(tiny_store, tmp_path):
    statements = Store(tiny_store).statements
    bare = type(statements)(**{**vars(statements), "tasks": {}})
    other = part_of(tiny_store, tmp_path / "other.h5", range(0, 80, 2), statements=bare)
    run = tmp_path / "run"
    assert main([*SHORT, "--data.stores", str(tiny_store), str(other), "--data.weights=[1,3]", "--run", str(run)]) == 0
    first, second = pretraining_of(run / "encoder.safetensors")
    assert (first.records, second.records) == (64, 32)


def test_a_second_pretraining_goes_on_from_the_first_and_remembers_it(pretrained, tiny_store, tmp_path):
    run = tmp_path / "run"
    encoder = pretrained / "encoder.safetensors"
    command = [*SHORT, "--data.stores", str(tiny_store), "--run", str(run), "--model.weights", str(encoder)]
    assert main([*command, "--pretraining.learning_rate=0", "--pretraining.pictures=0"]) == 0
    assert [one.folds for one in pretraining_of(run / "encoder.safetensors")] == [
        tuple(range(1, 8)),
        tuple(range(1, 9)),
    ]
    before, after = load_file(encoder), load_file(run / "encoder.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("command", ["validate", "test", "predict", "export"])
def test_commands_that_need_labels_send_a_pretraining_on_to_fit(pretrained, tmp_path, capsys, command):
    more = {"predict": ["--records", "x", "--output", "p.csv"], "export": ["--output", "x.onnx"]}.get(command, [])
    assert main([command, "--run", str(pretrained), *more]) == 2
    assert "is a pre-training, it knows no labels: fine-tune its encoder first" in capsys.readouterr().err


def test_inspect_shows_a_pretraining_and_the_file_it_made(pretrained, capsys):
    assert main(["inspect", str(pretrained)]) == 0
    assert "probe_auroc" in capsys.readouterr().out
    assert main(["inspect", str(pretrained / "encoder.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "source: PTB-XL" in told
    assert "patients: 28" in told


@pytest.mark.parametrize("shared", [False, True])
def test_pictures_leave_the_run_folder_only_where_it_is_said(tiny_store, tmp_path, monkeypatch, shared):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    given = ["--data.stores", str(tiny_store), "--run", str(run), "--config", "logger/wandb"]
    more = [f"--pretraining.share_pictures={str(shared).lower()}", "--pretraining.epochs=1"]
    assert main([*SHORT, *given, *more]) == 0
    sent = [path for path in (run / "wandb").rglob("*.png") if "ecg_" not in path.name]
    assert len(sent) == shared
    if shared:
        [drawn] = (run / "reconstructions").iterdir()
        assert sent[0].read_bytes() == drawn.read_bytes()


def test_other_sizes_are_refused_with_those_of_the_file(pretrained):
    told = r"--model.backbone.depth 2 --model.backbone.dim 12 .*--model.backbone.patch \[12, 50\]"
    with pytest.raises(InputError, match=told):
        load_weights(ViT(), pretrained / "encoder.safetensors")


def test_a_history_that_cannot_be_read_is_refused(pretrained, tmp_path):
    file = tmp_path / "encoder.safetensors"
    save_file(
        load_file(pretrained / "encoder.safetensors"), file, {"ecg_lightning": '{"pretraining": [{"source": 1}]}'}
    )
    with pytest.raises(InputError, match="what it says of its pre-training cannot be read"):
        load_weights(ViT(**SIZES), file)
    with safe_open(file, "pt") as opened:
        assert "pretraining" in opened.metadata()["ecg_lightning"]


def test_complete_it_is_left_alone_and_for_more_epochs_refused(pretrained, tiny_store, capsys):
    command = [*SHORT, "--data.stores", str(tiny_store), "--run", str(pretrained)]
    before = (pretrained / "encoder.safetensors").read_bytes()
    assert main(command) == 1
    assert "holds a run already (complete)" in capsys.readouterr().err
    assert main([*command, "--resume", "auto"]) == 0
    assert "is complete, nothing is left to train" in capsys.readouterr().err
    assert main([*command, "--resume", "auto", "--pretraining.epochs=3"]) == 2
    assert "pretraining.epochs is 3, the run is complete with 2" in capsys.readouterr().err
    assert (pretrained / "encoder.safetensors").read_bytes() == before


def test_a_network_without_patches_leaves_no_run_behind(tiny_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", "--model.backbone", "s4", "--data.stores", str(tiny_store), "--run", str(run)]) == 2
    assert "has no grid of patches to mask: choose vit" in capsys.readouterr().err
    assert not run.exists()

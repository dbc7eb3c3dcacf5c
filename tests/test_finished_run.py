"""What a finished run holds, and what may be done with it."""

import re
import shutil

import pytest
import yaml
from command_line import SHORT, TINY, called
from shards import part_of
from tiny import of_lightning_cli

from ecg_lightning.cli import main

pytestmark = of_lightning_cli


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def finished(tiny_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", *TINY, *SHORT, "--data.store", str(tiny_store), "--run", str(run)]) == 0
    return run


def test_a_finished_run_holds_what_the_design_promises(finished):
    expected = {"config.yaml", "metrics.csv", "state.json", "environment.json", "log.txt", "metrics_val.json"}
    assert expected <= {path.name for path in finished.iterdir()}
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "finetune-best.ckpt",
        "frozen-backbone.safetensors",
        "last.ckpt",
        "probe-best.ckpt",
    ]
    assert not [path for path in finished.rglob("*") if path.suffix in (".tmp", ".partial")]


def test_the_config_of_a_run_is_complete_and_says_nothing_of_the_call(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert {"model", "data", "trainer", "post_training", "seed_everything"} <= config.keys()
    assert not {"run", "resume", "checkpoint_every", "config"} & config.keys()
    assert config["data"]["batch_size"] == 256


def test_a_complete_run_is_refused_and_left_alone(capsys, finished, tiny_store):
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*.ckpt"))
    code, _, err = called(capsys, "fit", *TINY, *SHORT, "--data.store", tiny_store, "--run", finished)
    assert code == 1
    assert "(complete): choose another name, or test it" in err
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*.ckpt")) == before


def test_resuming_a_complete_run_is_a_success_that_does_nothing(capsys, finished):
    before = (finished / "metrics.csv").read_text()
    assert called(capsys, "fit", "--run", finished, "--resume", "auto")[0] == 0
    assert (finished / "metrics.csv").read_text() == before


def test_a_fit_ends_with_what_was_judged_and_what_comes_next(finished):
    said = (finished / "log.txt").read_text()
    assert f"that is finetune-best.ckpt, the best of its epochs; next: ecg-lightning test --run {finished}" in said


def test_testing_a_run_writes_its_predictions_once(capsys, finished):
    code, out, _ = called(capsys, "test", "--run", finished, "--trainer.enable_progress_bar=false")
    assert code == 0
    assert re.search(r"test: macro AUROC \d\.\d+, macro AUPRC \d\.\d+ over \d of 5 labels, 8 records", out)
    assert (finished / "predictions" / "test.npz").exists()
    assert (finished / "metrics_test.json").exists()


def test_another_checkpoint_writes_under_its_own_name(capsys, finished):
    best = finished / "checkpoints" / "probe-best.ckpt"
    assert (
        called(capsys, "validate", "--run", finished, "--checkpoint", best, "--trainer.enable_progress_bar=false")[0]
        == 0
    )
    assert (finished / "predictions" / "val-probe-best.npz").exists()


def test_results_of_something_else_are_replaced_only_when_asked(capsys, finished):
    quiet = ["--trainer.enable_progress_bar=false"]
    other = ["--data.val_folds", "[8]", "--data.train_folds", "[1]", "--even_seen", *quiet]
    code, _, err = called(capsys, "validate", "--run", finished, *other)
    assert code == 1
    assert "add --overwrite to replace them" in err
    assert called(capsys, "validate", "--run", finished, *other, "--overwrite")[0] == 0
    assert called(capsys, "validate", "--run", finished, *quiet, "--overwrite")[0] == 0


def test_folds_that_were_trained_on_are_judged_only_when_asked_and_it_is_said(capsys, finished):
    seen = ["--data.val_folds", "[8]", "--data.train_folds", "[1]", "--trainer.enable_progress_bar=false"]
    code, _, err = called(capsys, "validate", "--run", finished, "--overwrite", *seen)
    assert code == 2
    assert "were trained on fold(s) 8 of PTB-XL, which are in data.val_folds: a score on them would flatter" in err
    code, _, err = called(capsys, "validate", "--run", finished, "--overwrite", "--even_seen", *seen)
    assert code == 0
    assert "the weights were trained on fold(s) 8 of PTB-XL: these scores flatter" in err
    assert called(capsys, "validate", "--run", finished, "--overwrite", *seen[4:])[0] == 0


def test_a_checkpoint_that_is_not_there_is_refused(capsys, finished):
    code, _, err = called(capsys, "test", "--run", finished, "--checkpoint", "none.ckpt")
    assert code == 2
    assert "--checkpoint none.ckpt does not exist: the run has finetune-best.ckpt, last.ckpt, probe-best.ckpt" in err


def test_a_run_cut_short_is_no_success_and_a_refused_resume_keeps_its_config(capsys, tiny_store, run):
    given = [*TINY, *SHORT, "--data.store", tiny_store, "--run", run, "--data.batch_size=16"]
    code, _, err = called(capsys, "fit", *given, "--trainer.max_steps=6")
    assert code == 1
    assert '"interrupted"' in (run / "state.json").read_text()
    before = (run / "config.yaml").read_text()
    code, _, err = called(capsys, "fit", "--run", run, "--resume", "auto", "--post_training.probe.epochs=2")
    assert code == 2
    assert "post_training.probe.epochs was 1, is 2 (the run has 1 epoch(s) behind it)" in err
    assert (run / "config.yaml").read_text() == before
    assert called(capsys, "fit", "--run", run, "--resume", "auto", "--trainer.max_steps=-1")[0] == 0
    assert '"complete"' in (run / "state.json").read_text()


def test_a_run_that_is_there_is_named_before_its_flags_are_missed(capsys, finished):
    code, _, err = called(capsys, "fit", "--run", str(finished))
    assert code == 1
    assert "holds a run already (complete)" in err
    assert "ecg-lightning test --run" in err


@pytest.mark.parametrize(
    "flag",
    [
        *("--data.task=rhythm", "--seed_everything=7", "--data.train_folds=[1, 2]", "--data.test_folds=[8]"),
        *("--data.batch_size=3", "--post_training.drop_path_rate=0.5", "--post_training.probe.learning_rate=1.0"),
        *("--model.backbone.depth=5", "--trainer.precision=64-true"),
    ],
)
def test_a_complete_run_is_no_success_for_who_asks_for_another(capsys, finished, flag):
    before = (finished / "config.yaml").read_bytes()
    code, _, err = called(capsys, "fit", "--run", finished, "--resume", "auto", flag)
    assert code == 2
    assert "the run is complete, so nothing would be trained by what is asked now: " in err
    assert flag.removeprefix("--").partition("=")[0] in err.replace("init_args.", "")
    assert err.rstrip().endswith("take it back, or choose another --run")
    assert (finished / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("flag", ["--trainer.max_time=00:00:10:00", "--data.num_workers=1", "--trainer.devices=1"])
def test_what_is_of_no_matter_to_a_complete_run_may_be_asked_for(capsys, finished, flag):
    assert called(capsys, "fit", "--run", finished, "--resume", "auto", flag)[0] == 0


def test_a_complete_run_of_a_version_with_fewer_settings_is_complete(capsys, finished):
    config = finished / "config.yaml"
    before = config.read_text()
    fewer = yaml.safe_load(before)
    del fewer["data"]["residency"], fewer["post_training"]["probe"]["windows"], fewer["model"]["pos_weight"]
    config.write_text(yaml.safe_dump(fewer))
    try:
        assert called(capsys, "fit", "--run", finished, "--resume", "auto")[0] == 0
        assert called(capsys, "fit", "--run", finished, "--resume", "auto", "--seed_everything=7")[0] == 2
    finally:
        config.write_text(before)


def test_a_complete_run_goes_with_its_store_by_content_and_without_it(capsys, finished, tiny_store, tmp_path):
    moved, other, gone = (tmp_path / name for name in ("moved.h5", "other.h5", "gone.h5"))
    shutil.copyfile(tiny_store, moved)
    part_of(tiny_store, other, range(0, 80, 2))
    resumed = ("fit", "--run", finished, "--resume", "auto")
    assert called(capsys, *resumed, "--data.store", moved)[0] == 0
    code, _, err = called(capsys, *resumed, "--data.store", other)
    assert code == 2
    assert "the run is complete, trained on a store of sha256 " in err
    assert str(other) in err
    code, _, err = called(capsys, *resumed, "--data.store", gone)
    assert code == 1
    assert str(gone) in err


def test_a_complete_run_takes_no_more_epochs(capsys, finished):
    code, _, err = called(
        capsys, "fit", "--run", str(finished), "--resume", "auto", "--post_training.fine_tune.epochs", "99"
    )
    assert code == 2
    assert "post_training.fine_tune.epochs is 99, the run is complete with" in err


def test_results_of_other_labels_are_not_replaced_unasked(capsys, finished):
    assert called(capsys, "validate", "--run", str(finished))[0] == 0
    code, _, err = called(capsys, "validate", "--run", str(finished), "--data.min_likelihood", "100")
    assert code == 1
    assert "holds results with another min_likelihood: add --overwrite" in err


def test_a_checkpoint_may_be_named_as_in_the_run(capsys, finished):
    assert called(capsys, "validate", "--run", str(finished), "--checkpoint", "last")[0] == 0
    assert (finished / "metrics_val-last.json").exists()


def test_a_run_is_judged_from_any_folder(capsys, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert called(capsys, "validate", "--run", str(finished))[0] == 0

"""A pre-training that was killed and resumed, or spread over two processes, is the one that was neither."""

import json

import pytest
import torch
from processes import kill_at, run_cli
from safetensors.torch import load_file
from tiny import SIZES

COMMON = [
    *("pretrain", "--config", "backbone/vit", "--config", "pretrain/masked", "--model.backbone.dropout=0.1"),
    *(f"--model.backbone.{name}={json.dumps(value)}" for name, value in SIZES.items()),
    *("--model.decoder_dim=16", "--model.decoder_depth=1", "--pretraining.epochs=4", "--pretraining.warmup_epochs=1"),
    *("--data.batch_size=15", "--pretraining.probe_every=2", "--pretraining.pictures=0", "--checkpoint_every=1"),
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"),
]


def pretrained(store, run, *more):
    return run_cli(*COMMON, "--data.stores", str(store), "--run", str(run), *more)


@pytest.fixture(scope="module")
def undisturbed(tiny_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    ended = pretrained(tiny_store, run)
    assert ended.returncode == 0, ended.stdout
    return run


@pytest.mark.slow
@pytest.mark.parametrize("kill", [kill_at(1), kill_at(2, 3)], ids=["between epochs", "inside an epoch"])
def test_killed_and_resumed_it_is_the_undisturbed_run_bit_for_bit(tiny_store, tmp_path, undisturbed, kill):
    run = tmp_path / "run"
    killed = pretrained(tiny_store, run, *kill)
    assert killed.returncode == -9, killed.stdout
    assert not (run / "encoder.safetensors").exists()
    ended = pretrained(tiny_store, run, "--resume=auto", "--trainer.callbacks=null")
    assert ended.returncode == 0, ended.stdout
    for name in ("encoder.safetensors", "metrics.csv"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_make_the_encoder_that_one_makes(tiny_store, tmp_path):
    """In float64, without dropout, whose draws are a process's own."""
    runs = []
    for processes in (1, 2):
        runs.append(tmp_path / f"run-{processes}")
        more = ["--trainer.precision=64-true", f"--trainer.devices={processes}", "--model.backbone.dropout=0"]
        more += ["--data.batch_size=21"]  # of 64 records: one is left for the last batch, none for the second process
        more += ["--trainer.strategy=ddp"] if processes > 1 else []
        ended = pretrained(tiny_store, runs[-1], *more)
        assert ended.returncode == 0, ended.stdout
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-9)
    figures = [json.loads((run / "metrics_pretraining.json").read_text()) for run in runs]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], abs=1e-6)
    assert figures[0]["probe_auroc"] == pytest.approx(figures[1]["probe_auroc"], abs=1e-6)
    assert {*load_file(runs[1] / "encoder.safetensors")} == {name for name in one if name.startswith("backbone.")}

"""Two processes are one: replicas stay equal over the phase switch, and trained weights are those of one process."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_cli

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.data.prepare import prepare

FLAGS = [
    *("--model.backbone", "vit", "--model.backbone.depth", "2", "--model.backbone.dim", "12"),
    *("--model.backbone.patch", "[12, 50]", "--data.task", "superdiagnostic", "--data.batch_size", "7"),
    *("--data.train_folds", "[1, 2, 3, 4, 5, 6]", "--data.val_folds", "[7, 8, 9]", "--data.test_folds", "[10]"),
    *("--post_training.probe.epochs", "2", "--post_training.probe.learning_rate", "0.01"),
    *("--post_training.fine_tune.epochs", "2", "--post_training.drop_path_rate", "0.5"),
    *("--post_training.fine_tune.learning_rate", "0.001", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "64-true"),
]


@pytest.fixture(scope="module")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(num_records=38), path, backbone_signal("vit"), workers=1, progress=False)
    return path


def fit(store: Path, run: Path, processes: int, *more: str) -> Path:
    strategy = ["--trainer.devices", str(processes), *(["--trainer.strategy", "ddp"] if processes > 1 else [])]
    ended = run_cli("fit", *FLAGS, "--data.store", str(store), "--run", str(run), *strategy, *more)
    assert ended.returncode == 0, ended.stdout
    return run


@pytest.fixture(scope="module")
def two(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that was not resumed; each wrote its weights at its end."""
    folder = tmp_path_factory.mktemp("two")
    write = f'[{{"class_path": "processes.WriteReplica", "init_args": {{"folder": "{folder}"}}}}]'
    return fit(store, folder / "run", 2, "--trainer.callbacks", write)


@pytest.fixture(scope="module")
def one(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(store, tmp_path_factory.mktemp("one") / "run", 1)


def weights(path: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return loaded


def test_replicas_are_bit_identical_after_the_switch(two: Path) -> None:
    first, second = (weights(two.parent / f"rank{rank}.pt") for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_two_processes_train_the_weights_of_one(one: Path, two: Path) -> None:
    """With stochastic depth on: a record's coins are the same whichever process draws them."""
    a, b = (weights(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (one, two))
    assert a["backbone.patch_embed.proj.weight"].dtype == torch.float64
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-9


def test_two_processes_validate_each_record_once(one: Path, two: Path) -> None:
    with np.load(one / "predictions" / "val.npz") as a, np.load(two / "predictions" / "val.npz") as b:
        assert len(a["record_id"]) == 11  # two processes cannot share them evenly
        np.testing.assert_array_equal(a["record_id"], b["record_id"])
        np.testing.assert_allclose(a["probabilities"], b["probabilities"], atol=1e-6)
    figures = [(run / "metrics.csv").read_text().splitlines()[-1].split(",") for run in (one, two)]
    assert [f"{float(x):.6f}" for x in figures[0] if x] == [f"{float(x):.6f}" for x in figures[1] if x]


@pytest.mark.slow
def test_without_the_rewrap_replicas_drift_apart(store: Path, tmp_path: Path) -> None:
    """What the test above guards: the switch without `rewrap` leaves the backbone's gradients unreduced."""
    write = (
        f'[{{"class_path": "processes.WriteReplica", "init_args": {{"folder": "{tmp_path}"}}}},'
        f'{{"class_path": "processes.WithoutRewrap"}}]'
    )
    fit(store, tmp_path / "run", 2, "--trainer.callbacks", write)
    first, second = (weights(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert not torch.equal(first["backbone.patch_embed.proj.weight"], second["backbone.patch_embed.proj.weight"])


def test_a_replica_that_drifted_in_the_probe_is_found_at_the_switch(store: Path, tmp_path: Path) -> None:
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks"]
    more.append('[{"class_path": "processes.Drift"}]')
    ended = run_cli("fit", *FLAGS, "--data.store", str(store), "--run", str(tmp_path / "run"), *more)
    assert ended.returncode != 0
    assert "differ between the 2 processes" in ended.stdout
    assert "head.bias" in ended.stdout


@pytest.mark.slow
def test_a_terminated_run_of_two_processes_ends_at_once_and_goes_on(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.store", str(store), "--run", str(run)]
    terminate = '[{"class_path": "processes.TerminateAt", "init_args": {"epoch": 3}}]'
    ended = run_cli("fit", *FLAGS, *more, "--trainer.callbacks", terminate, timeout=120)
    assert ended.returncode == 143, ended.stdout
    assert json.loads((run / "state.json").read_text())["state"] == "interrupted"
    resumed = run_cli("fit", *FLAGS, *more, "--resume", "auto", "--trainer.callbacks", "null")
    assert resumed.returncode == 0, resumed.stdout

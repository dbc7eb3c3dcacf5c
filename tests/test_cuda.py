"""On a GPU: the same figures as on a CPU, in every precision; skipped where there is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from processes import differences, kill_at, run_cli
from tiny import of_lightning_cli, tiny_data

from ecg_lightning.backbones import backbone_signal, create_backbone, list_backbones, meta_backbone
from ecg_lightning.chains import run_batch_chain
from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.metrics import SplitScores

pytestmark = [
    *of_lightning_cli,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand"),
]

FLAGS = [
    *("--model.backbone", "vit", "--model.backbone.depth", "2", "--model.backbone.dim", "12"),
    *("--model.backbone.patch", "[12, 50]", "--data.task", "superdiagnostic", "--data.batch_size", "7"),
    *("--data.train_folds", "[1, 2, 3, 4, 5, 6]", "--data.val_folds", "[7, 8, 9]", "--data.test_folds", "[10]"),
    *("--post_training.probe.epochs", "2", "--post_training.probe.learning_rate", "0.01"),
    *("--post_training.fine_tune.epochs", "2", "--post_training.drop_path_rate", "0.5"),
    *("--post_training.fine_tune.learning_rate", "0.001", "--trainer.enable_progress_bar", "false"),
    *("--checkpoint_every", "1", "--trainer.devices", "1"),
]


@pytest.fixture(scope="module")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(num_records=40), path, backbone_signal("vit"), workers=1, progress=False)
    return path


def fit(store: Path, run: Path, *more: str, ends_with: int = 0) -> Path:
    ended = run_cli("fit", *FLAGS, "--data.store", str(store), "--run", str(run), *more)
    assert ended.returncode == ends_with, ended.stdout
    return run


def on(device: str, *precision: str) -> list[str]:
    return ["--trainer.accelerator", device, *(["--trainer.precision", *precision] if precision else [])]


def weights(run: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    state: dict[str, torch.Tensor] = loaded["state_dict"]
    return state


def test_both_phases_on_the_gpu_end_in_the_weights_of_the_cpu(store: Path, tmp_path: Path) -> None:
    """In float64: order of records, windows, dropped branches, the switch and the rates are the same there."""
    here = weights(fit(store, tmp_path / "cpu", *on("cpu", "64-true")))
    there = weights(fit(store, tmp_path / "gpu", *on("gpu", "64-true")))
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("windows", [False, True], ids=["features once", "random windows"])
def test_a_killed_run_goes_on_to_the_same_weights_on_the_gpu(windows: bool, store: Path, tmp_path: Path) -> None:
    """Bit for bit, where torch's algorithms are deterministic."""
    flags = [*on("gpu"), "--trainer.deterministic", "true"]
    flags += ["--model.backbone.num_time_points", "500"] if windows else []
    whole = fit(store, tmp_path / "whole", *flags)
    killed = fit(store, tmp_path / "killed", *flags, *kill_at(1, 2), ends_with=-9)
    fit(store, killed, *flags, "--resume", "auto", *kill_at(2, 2), ends_with=-9)
    fit(store, killed, *flags, "--resume", "auto", "--trainer.callbacks", "null")
    assert differences(whole, killed) == []


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_half_a_precision_learns_and_judges_in_full(precision: str, store: Path, tmp_path: Path) -> None:
    run = fit(store, tmp_path / "run", *on("gpu", precision))
    predictions = Predictions.load(run / "predictions" / "val.npz")
    assert predictions.probabilities.dtype == np.float32
    assert np.isfinite(predictions.probabilities).all()
    assert len(np.unique(predictions.probabilities)) > 30  # halves would lie on a coarse grid
    assert all(tensor.dtype == torch.float32 for tensor in weights(run).values())


def test_a_run_of_the_gpu_is_tested_alike_on_a_cpu(store: Path, tmp_path: Path) -> None:
    run = fit(store, tmp_path / "run", *on("gpu"))
    probabilities = []
    for device in ("gpu", "cpu"):
        assert main(["test", "--run", str(run), "--trainer.accelerator", device, "--overwrite"]) == 0
        probabilities.append(Predictions.load(run / "predictions" / "test.npz").probabilities)
    np.testing.assert_allclose(*probabilities, atol=1e-5)


@pytest.mark.parametrize("name", list_backbones())
def test_a_backbone_computes_on_the_gpu_what_it_computes_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full size, float32, pooled features of two records; convolutions without TF32, which torch has on by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    backbone = create_backbone(name).eval()
    ecg = torch.randn(2, len(backbone.signal.leads), backbone.signal.num_time_points)
    with torch.no_grad():
        here = backbone(ecg)
        there = backbone.cuda()(ecg.cuda()).cpu()
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4 * float(here.abs().max()))


@pytest.mark.parametrize("name", list_backbones())
def test_a_batch_is_preprocessed_on_the_gpu_as_on_a_cpu(name: str) -> None:
    signal = meta_backbone(name).signal
    generator = torch.Generator().manual_seed(0)
    ecg = torch.randn(3, 1, len(signal.leads), signal.window_points, generator=generator)
    here = run_batch_chain(signal.batch_chain, ecg.clone())
    there = run_batch_chain(signal.batch_chain, ecg.cuda()).cpu()
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


def test_macro_figures_are_computed_on_the_gpu_and_equal_a_cpu_s() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(500, 7, generator=generator).round(decimals=2)
    labels = (torch.rand(500, 7, generator=generator) < 0.2).to(torch.uint8)
    labels[:, 6] = 0
    summaries = []
    for device in ("cpu", "cuda"):
        metric = SplitScores([*"ABCDEFG"]).to(device)
        metric.update(
            torch.arange(500).to(device), probabilities.to(device), labels.to(device), torch.ones(500).to(device)
        )
        summaries.append(metric.scores().summary())
    assert summaries[1] == pytest.approx(summaries[0], abs=1e-6)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_records_travel_to_the_gpu_as_they_are_stored_from_pinned_memory(
    tiny_store: Path, tmp_path: Path, num_workers: int
) -> None:
    """Half the bytes of float32, and the copy need not wait."""
    data = tiny_data(tiny_store, num_workers=num_workers)
    data.trainer = Trainer(accelerator="gpu", devices=1, logger=False, default_root_dir=tmp_path)
    batch = next(iter(data.use_signal(backbone_signal("vit")).train_dataloader()))
    assert batch["ecg"].dtype == torch.int16
    assert batch["ecg"].is_pinned()

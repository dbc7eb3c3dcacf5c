"""1, 2 and 4 processes are one: the same batches, rates, weights, predictions, each record once."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_commands
from test_strategies import DOUBLE, FLAGS
from tiny import of_lightning_cli

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.trained_run import load_run

pytestmark = [*of_lightning_cli, pytest.mark.slow, pytest.mark.timeout(600)]

COUNTS = (1, 2, 4)
# A global batch of 7 is 4 and 3 records of 2 processes, 2, 2, 2 and 1 of 4, the last one of 3 leaves one of 4 without;
# with accumulation over 2 of 4 batches.
FITS = {"double": [*DOUBLE, "--trainer.accumulate_grad_batches", "2"], "single": ["--trainer.precision", "32-true"]}

TESTED = ["--data.val_folds", "[7]", "--data.test_folds", "[8, 9]", "--data.batch_size", "5"]
"""7 records: on 4 processes one has less than the others, on 2 as well, and a batch less."""


@pytest.fixture(scope="session")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(num_records=38), path, backbone_signal("vit"), workers=1, progress=False)
    return path


@pytest.fixture(scope="session")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs / NAME / COUNT``: fits of 1, 2 and 4 processes; ``runs / "tested" / COUNT``: one run, tested by them."""
    folder = tmp_path_factory.mktemp("processes")
    for count in COUNTS:
        strategy = ["--trainer.devices", str(count), *(["--trainer.strategy", "ddp"] if count > 1 else [])]
        commands = [
            ["fit", *FLAGS, *flags, "--data.store", str(store), "--run", str(folder / name / str(count)), *strategy]
            for name, flags in FITS.items()
        ]
        tested = folder / "tested" / str(count)
        if count > 1:
            shutil.copytree(folder / "single" / "1", tested)
            commands.append(["test", "--run", str(tested), *TESTED, *strategy])
        run_commands(folder, count, commands)
    shutil.copytree(folder / "single" / "1", folder / "tested" / "1")
    assert main(["test", "--run", str(folder / "tested" / "1"), *TESTED]) == 0
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return loaded


@pytest.mark.parametrize("count", COUNTS[1:])
def test_a_global_batch_trains_the_same_weights_on_any_number_of_processes(count: int, runs: Path) -> None:
    one, many = (weights(runs / "double" / str(number)) for number in (1, count))
    assert one["backbone.patch_embed.proj.weight"].dtype == torch.float64
    assert max(float((one[name] - many[name]).abs().max()) for name in one) < 1e-9


@pytest.mark.parametrize("count", COUNTS[1:])
def test_in_single_precision_the_logits_are_the_same(count: int, runs: Path) -> None:
    """Not the weights: attention's key biases have no gradient, of which Adam makes steps."""
    ecg = torch.randn(16, 12, 1000, generator=torch.Generator().manual_seed(3))
    logits = []
    for number in (1, count):
        trained = load_run(str(runs / "single" / str(number)), checkpoint="last", device="cpu")
        with torch.no_grad():
            logits.append(trained.classifier(ecg))
    assert float((logits[0] - logits[1]).abs().max()) < 1e-5


@pytest.mark.parametrize("count", COUNTS[1:])
def test_rates_and_steps_do_not_change_with_the_number_of_processes(count: int, runs: Path) -> None:
    def rates(number: int) -> list[tuple[str, str, str]]:
        with (runs / "double" / str(number) / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["rate/head"]]
        return [(row["step"], row["rate/head"], row["rate/stem"]) for row in rows]

    assert len(rates(1)) == 8  # 2 steps in each of 4 epochs
    assert rates(count) == rates(1)


@pytest.mark.parametrize("count", COUNTS[1:])
def test_predictions_are_those_of_one_process_each_record_once(count: int, runs: Path) -> None:
    one, many = (Predictions.load(runs / "tested" / str(number) / "predictions" / "test.npz") for number in (1, count))
    assert len(one.record_id) == 7
    for name in ("record_id", "patient_id", "fold", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name), name)
    np.testing.assert_allclose(one.probabilities, many.probabilities, rtol=0, atol=1e-6)
    assert one.label_names == many.label_names
    assert one.meta == many.meta


@pytest.mark.parametrize("count", COUNTS[1:])
def test_figures_are_those_of_one_process(count: int, runs: Path) -> None:
    one, many = (json.loads((runs / "tested" / str(number) / "metrics_test.json").read_text()) for number in (1, count))
    assert one["num_records"] == many["num_records"]
    assert one["labels"] == many["labels"]
    assert one["loss"] == pytest.approx(many["loss"], abs=1e-6)

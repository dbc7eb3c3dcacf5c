"""Runs that the real commands trained on 80 made-up records: what predicts, embeds and is exported."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import NormNet
from torch import Tensor

from ecg_lightning.chains import Bandpass, Crop, DecimateAcrossLeads, Standardise, ZScore
from ecg_lightning.cli import main
from ecg_lightning.signals import SignalSpec, Windows

FOLDS = ("--data.train_folds=[1,2,3,4,5,6,7]", "--data.val_folds=[8]", "--data.test_folds=[9]")
SHORT = (
    *("--post_training.probe.epochs=1", "--post_training.fine_tune.epochs=1", "--trainer.enable_progress_bar=false"),
    *("--data.batch_size", "16", "--trainer.accelerator", "cpu", "--data.task=superdiagnostic"),
)


class FilteredNet(NormNet):
    """A filter before the crop, a step behind it, three windows of 4 s of which the largest probability counts."""

    def __init__(self) -> None:
        super().__init__(8, 400)
        chain = (Bandpass(0.5, 40, 2), Crop(), ZScore("lead"))
        self.signal = SignalSpec(100, 400, chain=chain, windows=Windows(count=3, aggregate="max"))


class PlainNet(NormNet):
    """Nothing is filtered or normalised: what goes in comes out as it is."""

    def __init__(self) -> None:
        super().__init__(8, 1000)
        self.signal = SignalSpec(100, 1000, chain=(Crop(), Standardise(0.0, 1.0)))


class StrungNet(NormNet):
    """A step behind the crop that ONNX cannot hold."""

    def __init__(self) -> None:
        super().__init__(8, 500)
        self.signal = SignalSpec(100, 500, chain=(Crop(), DecimateAcrossLeads(2), ZScore("lead")))


class BranchingNet(PlainNet):
    """What it computes depends on what it sees, which no exported graph can follow."""

    def forward(self, ecg: Tensor) -> Tensor:
        return self.tokens(ecg).mean(dim=1) if ecg.sum() > 0 else self.tokens(ecg).amax(dim=1)


def train_by_commands(ptbxl: Path, folder: Path, backbone: str, *flags: str) -> Path:
    """A run on the records of a PTB-XL folder, trained and tested; its store is ``folder / "store.h5"``."""
    store, run = folder / "store.h5", folder / "run"
    assert main(["prepare", "--source", str(ptbxl), "--output", str(store), "--backbone", backbone]) == 0
    given = ["--model.backbone", backbone, "--data.store", str(store), *SHORT, *FOLDS, *flags]
    assert main(["fit", *given, "--run", str(run)]) == 0
    assert main(["test", "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def ptbxl(make_ptbxl: Callable[..., Path]) -> Path:
    """80 made-up records at 100 Hz."""
    return make_ptbxl(num_records=80)


@pytest.fixture(scope="session")
def filtered_run(ptbxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `FilteredNet` whose store was moved away, to ``moved.h5`` beside it."""
    folder = tmp_path_factory.mktemp("filtered")
    run = train_by_commands(ptbxl, folder, "trained_runs.FilteredNet")
    (folder / "store.h5").rename(folder / "moved.h5")
    return run


@pytest.fixture(scope="session")
def plain_run(ptbxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `PlainNet` beside its store."""
    return train_by_commands(ptbxl, tmp_path_factory.mktemp("plain"), "trained_runs.PlainNet")

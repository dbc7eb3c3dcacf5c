"""The smallest things that train: a store of 80 made-up records, two networks, a trainer that prints nothing."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from ecg_lightning.backbones import Backbone, ViT
from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.prepare import prepare
from ecg_lightning.phases import FineTune, Probe
from ecg_lightning.post_training import PostTraining
from ecg_lightning.signals import SignalSpec
from ecg_lightning.stochastic_depth import StochasticDepth

# On a shared machine a deadline says nothing; the same cases each time, so that a red test can be run again.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

NUM_RECORDS = 80  # 8 in each fold: 64 train, 8 validate, 8 test
BATCH_SIZE = 16
BATCHES = 4
"""Of an epoch."""
SIZES: dict[str, Any] = {"depth": 2, "dim": 12, "heads": 3, "patch": (12, 50)}

of_lightning = [
    # Expected: the probe's backbone is in evaluation mode; an epoch has four batches.
    pytest.mark.filterwarnings("ignore:.*eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    # Of a machine that has SLURM.
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
]
"""Warnings of the trainer that `ecg_lightning.screen` hides from users as well: ``pytestmark = of_lightning``."""

of_lightning_cli = [
    *of_lightning,
    # Lightning 2.6 calls jsonargparse by names that 4.49 deprecates; we stay below 5.
    pytest.mark.filterwarnings("ignore:[\\s\\S]*(deprecated in v4|JsonargparseDeprecationWarning)"),
    # `test` and `validate` have no use for the callback that writes checkpoints.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    # A resume inside an epoch: the data module takes the position up.
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]
"""The same for tests of the command line."""


class NormNet(Backbone):
    """Two residual convolutions with batch statistics and dropout: what must rest while it is frozen."""

    def __init__(self, dim: int = 8, num_time_points: int = 1000) -> None:
        super().__init__()
        self.signal = SignalSpec(100, num_time_points)
        self.feature_dim, self.num_layers = dim, 2
        self.stem = nn.Conv1d(12, dim, 50, stride=50)
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(2))
        self.dropout = nn.Dropout(0.2)
        self.drops = nn.ModuleList(StochasticDepth(index) for index in range(2))

    def tokens(self, ecg: Tensor) -> Tensor:
        x = self.dropout(self.stem(ecg))
        for norm, conv, drop in zip(self.norms, self.convs, self.drops, strict=True):
            x = x + drop(x, nn.Sequential(norm, nn.ReLU(), conv))
        return x.transpose(1, 2)

    def forward(self, ecg: Tensor) -> Tensor:
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        return 0 if name.startswith("stem") else int(name.split(".")[1]) + 1


@pytest.fixture(autouse=True)
def fresh_screen() -> Iterator[None]:
    """Takes back what a command set up for the whole process: its handler writes to the screen of its test alone."""
    yield
    own = logging.getLogger("ecg_lightning")
    for handler in [*own.handlers]:
        own.removeHandler(handler)
    own.propagate = True
    own.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 made-up records of 10 s at 100 Hz, unfiltered; not to be changed."""
    path = tmp_path_factory.mktemp("tiny") / "store.h5"
    prepare(make_ptbxl(num_records=NUM_RECORDS), path, SignalSpec(100, 1000), workers=1, progress=False)
    return path


def tiny_vit(**sizes: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{**SIZES, **sizes})


def norm_net() -> NormNet:
    torch.manual_seed(0)
    return NormNet()


def tiny_data(store: Path | list[Path], **arguments: Any) -> PTBXLDataModule:
    named = [str(one) for one in store] if isinstance(store, list) else str(store)
    return PTBXLDataModule(named, **{"task": "superdiagnostic", "batch_size": BATCH_SIZE, **arguments})


def tiny_classifier(backbone: Backbone | None = None, num_labels: int = 5, **arguments: Any) -> ECGClassifier:
    backbone = backbone or tiny_vit()
    torch.manual_seed(1)
    names = ("CD", "HYP", "MI", "NORM", "STTC")[:num_labels]
    return ECGClassifier(backbone, names, **arguments)


def plan(probe: int, fine_tune: int, *, drop_path_rate: float = 0.0, **arguments: Any) -> PostTraining:
    """Phases of so many epochs at high constant rates; ``probe_...`` and ``fine_tune_...`` arguments go to them."""
    of_probe = {name[6:]: value for name, value in arguments.items() if name.startswith("probe_")}
    of_fine_tune = {name[10:]: value for name, value in arguments.items() if name.startswith("fine_tune_")}
    rest = {name: value for name, value in arguments.items() if not name.startswith(("probe_", "fine_tune_"))}
    return PostTraining(
        Probe(**{"epochs": probe, "learning_rate": 0.01, "weight_decay": 0.1, **of_probe}),
        FineTune(**{"epochs": fine_tune, "learning_rate": 0.001, "schedule": "constant", **of_fine_tune}),
        drop_path_rate=drop_path_rate,
        **rest,
    )


def tiny_trainer(folder: Path, *callbacks: Callback, max_epochs: int, **flags: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[*callbacks],
        max_epochs=max_epochs,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        **{**quiet, **flags},
    )


def train(
    folder: Path,
    store: Path,
    post_training: PostTraining,
    *callbacks: Callback,
    classifier: ECGClassifier | None = None,
    data: PTBXLDataModule | None = None,
    **flags: Any,
) -> tuple[Trainer, ECGClassifier]:
    """A real run of the trainer; the classifier behind it."""
    classifier = classifier or tiny_classifier()
    arguments = {"max_epochs": post_training.max_epochs, **flags}
    trainer = tiny_trainer(folder, post_training, *callbacks, **arguments)
    trainer.fit(classifier, data or tiny_data(store))
    return trainer, classifier


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    return [name for name in before if not torch.equal(before[name], after[name])]

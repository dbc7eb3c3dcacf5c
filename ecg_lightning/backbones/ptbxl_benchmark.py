"""What the convolutional networks of the PTB-XL benchmark share: signal, blocks, pooling, initial values, card.

Source: helme/ecg_ptbxl_benchmarking, code/models/{fastai_model,basic_conv1d}.py and code/utils/utils.py, commit
cdbf4e66d7e57d9b6a2657b6024716212b8d0afa (GPL-3.0: none of it is used here); Strodthoff et al. 2021 (arXiv 2004.13701).
Written anew from a description, equal to its outputs on the same weights.
Differs: the features end with the pooling. The published head behind it (norm, dropout 0.25, linear layer to 128, ReLU,
norm, dropout 0.5, linear layer) is dropped by name, as the classifier's head is one linear layer; stochastic depth
on the residual branches; a training window may start at the last possible place, too, which is never drawn there.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecg_lightning.backbones.base import Backbone, Card, Figures
from ecg_lightning.chains import Chain, Crop, Standardise
from ecg_lightning.signals import SignalSpec, Windows
from ecg_lightning.stochastic_depth import StochasticDepth

CHAIN: Chain = (Crop(), Standardise(-0.00077717, 0.23895642))
"""The scaler published beside the weights of all 71 statements; others are fitted anew for each task.

A trap: it was fitted on 17,441 x 5,000 x 12 values, which are records of 500 Hz, where all else says 100 Hz.
"""

_TASKS = ("all", "diagnostic", "subclass", "superclass", "form", "rhythm")


def benchmark_signal(num_time_points: int) -> SignalSpec:
    """100 Hz, windows half over each other in evaluation, the largest probability of each label counts."""
    windows = Windows(stride=max(1, num_time_points // 2), aggregate="max")
    return SignalSpec(100, num_time_points, chain=CHAIN, windows=windows)


def benchmark_card(name: str, summary: str, auroc: tuple[float, ...]) -> Card:
    """The card of a network of the benchmark; ``auroc`` in the order of the benchmark's six tasks."""
    return Card(
        name=name,
        summary=f"{summary}, 100 Hz, 2.5 s, from the PTB-XL benchmark (arXiv 2004.13701)",
        repository="github.com/helme/ecg_ptbxl_benchmarking",
        commit="cdbf4e66d7e57d9b6a2657b6024716212b8d0afa",
        code_licence="GPL-3.0; no code of it is used here",
        weights=f"in the repository, output/exp0/models/fastai_{name}/models/fastai_{name}.pth (all 71 statements; "
        "exp1, exp1.1, exp1.1.1, exp2, exp3: the other tasks), and in its authors' zip of the output folder",
        weights_licence="not stated separately; they come with the repository (GPL-3.0)",
        pretraining_data="none but PTB-XL: the weights are trained on the labels of its folds 1-8; fold 9 and fold 10 "
        "were not trained on",
        ptbxl_in_pretraining=True,
        published=(
            Figures(
                metric="macro AUROC",
                values=dict(zip(_TASKS, auroc, strict=True)),
                protocol="from a random start, one model per task; trained on PTB-XL folds 1-8, last epoch of 50, "
                "tested on fold 10, maximum over 7 crops of 2.5 s",
                source="the repository's readme (not measured here)",
            ),
        ),
    )


def conv_norm(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, (kernel - 1) // 2 zeros at both ends, then batch norm."""
    conv = nn.Conv1d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(out_channels))


def max_and_mean(tokens: Tensor) -> Tensor:
    """``tokens`` (batch, time step, channel) -> largest, then mean over the time steps, (batch, 2 x channel)."""
    return torch.cat([tokens.amax(dim=1), tokens.mean(dim=1)], dim=1)


class ResidualBlock(nn.Module, ABC):
    """A branch added to a shortcut, and ReLU behind the sum."""

    def __init__(self, index: int) -> None:
        """``index``: place of the block over the whole network, 0 first."""
        super().__init__()
        self.drop = StochasticDepth(index)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, channel, time) -> (batch, channel, time), of the shortcut's size."""
        return F.relu(self.shortcut(x) + self.drop(x, self.branch))

    @abstractmethod
    def shortcut(self, x: Tensor) -> Tensor:
        """What the branch is added to."""

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """What stochastic depth drops; its last norm lies inside."""


class BenchmarkNetwork(Backbone):
    """A network of the benchmark: features are the largest value and the mean of each channel over time.

    Its norms always take the statistics of the batch in training: with ``drop_path_mode: subset`` those of the kept
    records alone, which is another computation than ``mask`` and cannot be compiled without graph breaks.
    """

    published_key: ClassVar[str | None] = "model"

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> largest value and mean of each channel, (batch, feature_dim)."""
        return max_and_mean(self.tokens(ecg))

    def shortcut(self, block: int, x: Tensor) -> Tensor:
        """The block's own shortcut, behind ReLU."""
        blocks = [module for module in self.modules() if isinstance(module, ResidualBlock)]
        return F.relu(blocks[block].shortcut(x))

    def initialise(self) -> None:
        """He's normal values for convolutions; norms start with scale 1, the last one of a block as well."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)

"""The promise that every backbone keeps, and the registry of those that ship."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from ecg_lightning.signals import SignalSpec


class Backbone(nn.Module, ABC):
    """A network from ECG to features, without a task head.

    Every residual branch runs through one `ecg_lightning.stochastic_depth.StochasticDepth`. Parameters are ordered in
    layers 0 (stem) .. ``num_layers`` (the last norm, or the last block where none follows) for layer-wise decay.
    """

    signal: SignalSpec
    feature_dim: int
    num_layers: int
    no_weight_decay: ClassVar[frozenset[str]] = frozenset()
    """Last parts of parameter names (tokens, position tables) that get no weight decay, besides 1-D tensors."""

    @abstractmethod
    def tokens(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, token, dim), before pooling; a convolutional network's time steps."""

    @abstractmethod
    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> features (batch, feature_dim)."""

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Layer of the parameter ``name``: 0 (stem) .. ``num_layers``; each parameter lies in exactly one."""

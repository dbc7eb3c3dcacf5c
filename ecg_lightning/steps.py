"""What a preprocessing step is: of a whole record, of a batch of windows, or the crop that stands between them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the workers of `prepare` start five times as fast without torch
    from torch import Tensor

Signal = TypeVar("Signal", NDArray[np.float64], "Tensor")
"""Voltage in mV, (..., lead, time)."""


@dataclass(frozen=True)
class Step:
    """One step of a chain; what its numbers mean stands in its docstring, its JSON form is its name and numbers."""

    name: ClassVar[str]

    def output_rate(self, sampling_rate: float) -> float:
        """Sampling rate behind the step in Hz."""
        return sampling_rate


@dataclass(frozen=True)
class RecordStep(Step):
    """A step over a whole record, in float64; it stands before the crop."""

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV at ``sampling_rate`` Hz -> (lead, time)."""
        raise NotImplementedError


@dataclass(frozen=True)
class BatchStep(Step):
    """A step on a batch of windows behind the crop, on any device; it takes NumPy arrays and tensors alike."""

    exportable: ClassVar[bool] = True
    """Whether ONNX has what it computes with; otherwise whoever runs an exported network does the step before it."""

    def __call__(self, ecg: Signal) -> Signal:
        """``ecg`` (..., lead, time) -> the same shape, or fewer time points where the rate falls."""
        raise NotImplementedError


@dataclass(frozen=True)
class Crop(Step):
    """Cuts the window that the network sees; where from is the spec's `Windows`, how long its ``num_time_points``."""

    name: ClassVar[str] = "crop"

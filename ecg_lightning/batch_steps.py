"""The steps on a batch of windows, behind the crop, on any device; for NumPy arrays and tensors alike."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ecg_lightning.filter_products import filter_matrix, thin_product
from ecg_lightning.steps import BatchStep, Signal

if TYPE_CHECKING:  # the workers of `prepare` start five times as fast without torch
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ZScore(BatchStep):
    """Mean 0 and (population) deviation 1 over ``axes``; ``eps`` is added to the deviation."""

    name: ClassVar[str] = "z_score"
    axes: Literal["record", "lead"] = "record"
    eps: float = 1e-8

    def __call__(self, ecg: Signal) -> Signal:
        """``ecg`` (..., lead, time) -> normalised over leads and time together, or over time per lead."""
        axis = (-2, -1) if self.axes == "record" else (-1,)
        centred = ecg - ecg.mean(axis=axis, keepdims=True)  # type: ignore[call-overload]
        deviation = (centred * centred).mean(axis=axis, keepdims=True) ** 0.5
        return centred / (deviation + self.eps)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class WindowFilter(BatchStep):
    """Butterworth high-pass or low-pass over a window at ``sampling_rate`` Hz, forward and backward, odd at its ends.

    Second-order sections by `scipy.signal.sosfiltfilt`. That is linear in the window, so it runs as a product of
    matrices: the same numbers on any device, at a cost that is small beside any network's.
    Source: the transforms of ST-MEM and of ECG-JEPA's fine-tuning, which filter behind the crop.
    """

    name: ClassVar[str] = "window_filter"
    kind: Literal["highpass", "lowpass"]
    cutoff: float
    sampling_rate: float
    order: int = 5

    def __call__(self, ecg: Signal) -> Signal:
        """``ecg`` (..., lead, time) in mV -> filtered, the same shape."""
        return filtered((self,), ecg)


def filtered(steps: tuple[WindowFilter, ...], ecg: Signal) -> Signal:
    """``ecg`` (..., lead, time) behind filters that follow one another: one product, however many they are."""
    num_time_points = ecg.shape[-1]
    if isinstance(ecg, np.ndarray):
        return ecg @ filter_matrix(steps, num_time_points)
    import torch

    with torch.autocast(ecg.device.type, enabled=False):  # half a precision would leave a hundredth of the wander
        thin = None
        if ecg.dtype == torch.float32 and ecg.device.type == "cpu":
            thin = thin_product(steps, num_time_points)
        return ecg @ _filter_tensor(steps, num_time_points, ecg.dtype, ecg.device) if thin is None else thin(ecg)


@lru_cache(maxsize=8)
def _filter_tensor(
    steps: tuple[WindowFilter, ...], num_time_points: int, dtype: "torch.dtype", device: "torch.device"
) -> "Tensor":
    import torch

    return torch.from_numpy(filter_matrix(steps, num_time_points)).to(device, dtype)


@dataclass(frozen=True)
class Standardise(BatchStep):
    """One fixed mean (mV) taken away, one fixed deviation (mV) divided by."""

    name: ClassVar[str] = "standardise"
    mean: float = 0.0
    deviation: float = 1.0

    def __call__(self, ecg: Signal) -> Signal:
        """``ecg`` (..., lead, time) in mV -> the same shape, in deviations."""
        return (ecg - self.mean) / self.deviation


@dataclass(frozen=True)
class DecimateAcrossLeads(BatchStep):
    """Low-pass and every ``factor``-th time point of all leads strung together, so that neighbours run into each other.

    Source: HuBERT-ECG, code/dataset.py, which decimates the flattened ECG; lead by lead, 5 % of it would differ.
    """

    name: ClassVar[str] = "decimate_across_leads"
    exportable: ClassVar[bool] = False  # an FFT of complex numbers
    factor: int

    def output_rate(self, sampling_rate: float) -> float:
        """A ``factor``-th of what comes in."""
        return sampling_rate / self.factor

    def __call__(self, ecg: Signal) -> Signal:
        """``ecg`` (..., lead, time), time a multiple of ``factor`` -> (..., lead, time / factor).

        Raises:
            ValueError: for another number of time points.
        """
        from ecg_lightning.decimation import decimate_array, decimate_tensor

        *batch, lead, time = ecg.shape
        if time % self.factor:
            raise ValueError(f"windows of {time} time points cannot be decimated by {self.factor}: not a whole number")
        strung = ecg.reshape(*batch, lead * time)
        if isinstance(strung, np.ndarray):
            return decimate_array(strung, self.factor).reshape(*batch, lead, time // self.factor)
        return decimate_tensor(strung, self.factor).reshape(*batch, lead, time // self.factor)

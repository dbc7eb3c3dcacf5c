"""The named preprocessing steps, and the chains that networks are fed through: arrays in, arrays out.

A chain is a list of steps in the order of the published code. The steps before the crop run once, over the whole
record in float64, when a store is prepared; those behind it run per batch, on the device. `predict` runs the same two.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the workers of `prepare` start five times as fast without torch
    import torch
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
class Notch(RecordStep):
    """Takes one frequency (Hz) out, forward and backward."""

    name: ClassVar[str] = "notch"
    frequency: float
    quality: float = 30.0

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> filtered, the same shape."""
        from scipy.signal import filtfilt, iirnotch

        return np.asarray(filtfilt(*iirnotch(self.frequency, self.quality, fs=sampling_rate), ecg, axis=-1))


@dataclass(frozen=True)
class Bandpass(RecordStep):
    """Butterworth band-pass from ``low`` to ``high`` Hz, in (b, a) form, forward and backward."""

    name: ClassVar[str] = "bandpass"
    low: float
    high: float
    order: int = 4

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> filtered, the same shape."""
        from scipy.signal import butter, filtfilt

        b, a = butter(self.order, [self.low, self.high], btype="bandpass", fs=sampling_rate)
        return np.asarray(filtfilt(b, a, ecg, axis=-1))


@dataclass(frozen=True)
class FirBandpass(RecordStep):
    """Window-method FIR band-pass (Hamming) from ``low`` to ``high`` Hz, ``seconds`` long, forward and backward.

    Source: HuBERT-ECG, code/utils.py, through biosppy's filter_signal; at 100 Hz its 31 taps are too few for 0.05 Hz.
    """

    name: ClassVar[str] = "fir_bandpass"
    low: float
    high: float
    seconds: float = 0.3

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> filtered, the same shape."""
        from scipy.signal import filtfilt, firwin

        num_taps = int(self.seconds * sampling_rate)
        taps = firwin(num_taps + (num_taps % 2 == 0), [self.low, self.high], pass_zero=False, fs=sampling_rate)
        return np.asarray(filtfilt(taps, [1.0], ecg, axis=-1))


@dataclass(frozen=True)
class SubtractMedian(RecordStep):
    """Takes the running median over ``seconds`` away (an odd number of time points, zeros beyond the ends)."""

    name: ClassVar[str] = "subtract_median"
    seconds: float = 0.4

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> without its slow wander, the same shape."""
        from scipy.signal import medfilt

        width = int(self.seconds * sampling_rate) + 1
        width += width % 2 == 0
        return np.stack([lead - medfilt(lead, width) for lead in ecg])


@dataclass(frozen=True)
class Resample(RecordStep):
    """Fourier resampling to ``to`` Hz."""

    name: ClassVar[str] = "resample"
    to: float

    def output_rate(self, sampling_rate: float) -> float:
        """``to``, whatever comes in."""
        return self.to

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> (lead, time x to / sampling_rate), cut down to whole time points."""
        from scipy.signal import resample

        ratio = _ratio(self.to, sampling_rate)
        return ecg if ratio == 1 else np.asarray(resample(ecg, int(ecg.shape[-1] * ratio), axis=-1))


@dataclass(frozen=True)
class ResampleLinearly(RecordStep):
    """Straight lines between the time points, read at ``to`` Hz, with first and last point kept in place.

    Source: fairseq-signals, scripts/preprocess/ecg/preprocess.py; from 100 to 500 Hz it stretches 10 s by 8 ms.
    """

    name: ClassVar[str] = "resample_linearly"
    to: float

    def output_rate(self, sampling_rate: float) -> float:
        """``to``, whatever comes in."""
        return self.to

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> (lead, time x to / sampling_rate), cut down to whole time points."""
        if sampling_rate == self.to:
            return ecg
        before = ecg.shape[-1]
        after = int(before * _ratio(self.to, sampling_rate))
        places = np.linspace(0, after - 1, before)
        return np.stack([np.interp(np.arange(after), places, lead) for lead in ecg])


@dataclass(frozen=True)
class ScaleToRange(RecordStep):
    """Smallest and largest value of each lead over the whole record become -1 and 1; a flat lead becomes -1.

    Source: HuBERT-ECG, code/utils.py.
    """

    name: ClassVar[str] = "scale_to_range"
    eps: float = 1e-8

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> the same shape, in -1..1."""
        low, high = ecg.min(axis=-1, keepdims=True), ecg.max(axis=-1, keepdims=True)
        return np.asarray(2 * (ecg - low) / (high - low + self.eps) - 1)


@dataclass(frozen=True)
class ZScoreRecord(RecordStep):
    """Mean 0 and (population) deviation 1 of each lead over the whole record, before any crop; a flat lead becomes 0.

    Source: fairseq-signals, scripts/preprocess/ecg/preprocess.py.
    """

    name: ClassVar[str] = "z_score_record"

    def __call__(self, ecg: NDArray[np.float64], sampling_rate: float) -> NDArray[np.float64]:
        """``ecg`` (lead, time) in mV -> the same shape, in deviations."""
        centred = ecg - ecg.mean(axis=-1, keepdims=True)
        flat = np.ptp(ecg, axis=-1, keepdims=True) == 0  # whose deviation need not be exactly 0
        return np.asarray(np.where(flat, 0.0, centred / np.where(flat, 1.0, ecg.std(axis=-1, keepdims=True))))


@dataclass(frozen=True)
class Crop(Step):
    """Cuts the window that the network sees; where from is the spec's `Windows`, how long its ``num_time_points``."""

    name: ClassVar[str] = "crop"


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

    Second-order sections by `scipy.signal.sosfiltfilt`. That is linear in the window, so it runs as one product with
    a (time, time) matrix: the same numbers on any device, at a cost that is small beside any network's.
    Source: the transforms of ST-MEM and of ECG-JEPA's fine-tuning, which filter behind the crop.
    """

    name: ClassVar[str] = "window_filter"
    kind: Literal["highpass", "lowpass"]
    cutoff: float
    sampling_rate: float
    order: int = 5

    def __call__(self, ecg: Signal) -> Signal:
        """``ecg`` (..., lead, time) in mV -> filtered, the same shape."""
        return _filtered((self,), ecg)


def _filtered(steps: tuple[WindowFilter, ...], ecg: Signal) -> Signal:
    """``ecg`` (..., lead, time) behind filters that follow one another: one product, however many they are."""
    if isinstance(ecg, np.ndarray):
        return ecg @ _filter_matrix(steps, ecg.shape[-1])
    import torch

    with torch.autocast(ecg.device.type, enabled=False):  # half a precision would leave a hundredth of the wander
        return ecg @ _filter_tensor(steps, ecg.shape[-1], ecg.dtype, ecg.device)


@lru_cache(maxsize=8)
def _filter_matrix(steps: tuple[WindowFilter, ...], num_time_points: int) -> NDArray[np.float64]:
    """Row i is what the filters make of an impulse at time point i."""
    from scipy.signal import butter, sosfiltfilt

    impulses = np.eye(num_time_points)
    for step in steps:
        sections = butter(step.order, step.cutoff, btype=step.kind, fs=step.sampling_rate, output="sos")
        impulses = sosfiltfilt(sections, impulses, axis=-1)
    return np.ascontiguousarray(impulses)


@lru_cache(maxsize=8)
def _filter_tensor(
    steps: tuple[WindowFilter, ...], num_time_points: int, dtype: "torch.dtype", device: "torch.device"
) -> "Tensor":
    import torch

    return torch.from_numpy(_filter_matrix(steps, num_time_points)).to(device, dtype)


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


STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        Notch,
        Bandpass,
        FirBandpass,
        SubtractMedian,
        Resample,
        ResampleLinearly,
        ScaleToRange,
        ZScoreRecord,
        Crop,
        WindowFilter,
        ZScore,
        Standardise,
        DecimateAcrossLeads,
    )
}
Chain = tuple[Step, ...]


def chain_to_json(chain: Sequence[Step]) -> str:
    """A chain as one line of JSON: ``[{"step": "notch", "frequency": 50.0, ...}, ...]``."""
    return json.dumps([{"step": step.name, **asdict(step)} for step in chain])


def chain_from_json(text: str) -> Chain:
    """The chain that `chain_to_json` wrote.

    Raises:
        ValueError: for a step that this version does not know.
    """
    steps: list[dict[str, Any]] = json.loads(text)
    unknown = sorted({step["step"] for step in steps} - STEPS.keys())
    if unknown:
        raise ValueError(
            f"unknown preprocessing steps {unknown}, known are {sorted(STEPS)}: a newer version wrote this"
        )
    return tuple(STEPS[step["step"]](**{k: v for k, v in step.items() if k != "step"}) for step in steps)


def run_record_chain(chain: Sequence[Step], ecg: NDArray[np.float64], record_rate: float) -> NDArray[np.float64]:
    """Runs the steps before the crop over one record (lead, time) in mV, in float64."""
    rate = record_rate
    for step in chain:
        assert isinstance(step, RecordStep)
        ecg = step(ecg, rate)
        rate = step.output_rate(rate)
    return ecg


def run_batch_chain(chain: Sequence[Step], ecg: Signal) -> Signal:
    """Runs the steps behind the crop over windows (..., lead, time)."""
    for kind, steps in groupby(chain, type):
        if kind is WindowFilter:
            ecg = _filtered(tuple(step for step in steps if isinstance(step, WindowFilter)), ecg)
            continue
        for step in steps:
            assert isinstance(step, BatchStep)
            ecg = step(ecg)
    return ecg


def _ratio(to: float, sampling_rate: float) -> Fraction:
    """Of two rates, exactly, whatever floats make of them."""
    return Fraction(to).limit_denominator(1000) / Fraction(sampling_rate).limit_denominator(1000)


def rate_behind(chain: Sequence[Step], record_rate: float) -> float:
    """Sampling rate in Hz behind all steps of ``chain``."""
    for step in chain:
        record_rate = step.output_rate(record_rate)
    return record_rate

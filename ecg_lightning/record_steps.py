"""The steps over a whole record, in float64, that run once when a store is prepared."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.steps import RecordStep


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


def _ratio(to: float, sampling_rate: float) -> Fraction:
    """Of two rates, exactly, whatever floats make of them."""
    return Fraction(to).limit_denominator(1000) / Fraction(sampling_rate).limit_denominator(1000)

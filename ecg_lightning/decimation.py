"""`scipy.signal.decimate` for arrays and for tensors on any device: zero-phase low-pass, then every n-th time point.

Source: SciPy's documentation of decimate, cheby1 and sosfiltfilt; order 8, ripple 0.05 dB, edge at 0.8 of the new rate.
Differs: on tensors each of the two passes is a product of spectra, as a recursion over time would crawl on a GPU.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 27
"""Time points by which sosfiltfilt lengthens a signal of this order on each side, mirrored through its end points."""
MEMORY_PER_FACTOR = 100
"""Time points, in multiples of the factor, after which the filter has forgotten: its answer is below 1e-8."""


def decimate_array(x: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """``x`` (..., time) -> (..., time / factor), rounded up."""
    from scipy.signal import sosfiltfilt

    return np.asarray(sosfiltfilt(_filter(factor), x, axis=-1)[..., ::factor])


def decimate_tensor(x: "Tensor", factor: int) -> "Tensor":
    """As `decimate_array`, on the tensor's device and in its precision.

    Raises:
        ValueError: when ``x`` is no longer than the mirrored padding.
    """
    import torch

    if x.shape[-1] <= PADDING:
        raise ValueError(f"{x.shape[-1]} time points are too few to decimate, it takes more than {PADDING}")
    before = 2 * x[..., :1] - x[..., 1 : PADDING + 1].flip(-1)
    behind = 2 * x[..., -1:] - x[..., -PADDING - 1 : -1].flip(-1)
    forward = _pass(torch.cat([before, x, behind], dim=-1), factor)
    both = _pass(forward.flip(-1), factor).flip(-1)
    return both[..., PADDING:-PADDING:factor]


def _pass(x: "Tensor", factor: int) -> "Tensor":
    """One causal pass, as though the first value had stood there forever."""
    import torch

    length = 1 << (x.shape[-1] + MEMORY_PER_FACTOR * factor - 1).bit_length()
    held = length - x.shape[-1]  # room for the past, and for the end's answer, which the FFT wraps around into it
    lengthened = torch.cat([x[..., :1].expand(*x.shape[:-1], held), x], dim=-1)
    response = torch.from_numpy(_response(factor, length)).to(x.device)
    response = response.to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(lengthened) * response, n=length)
    return filtered[..., held:]


@lru_cache(maxsize=4)
def _filter(factor: int) -> NDArray[np.float64]:
    from scipy.signal import cheby1

    return np.asarray(cheby1(8, 0.05, 0.8 / factor, output="sos"))


@lru_cache(maxsize=4)
def _response(factor: int, length: int) -> NDArray[np.complex128]:
    """The filter's response at the frequencies of a real FFT of ``length``."""
    from scipy.signal import sosfreqz

    return np.asarray(sosfreqz(_filter(factor), worN=2 * np.pi * np.arange(length // 2 + 1) / length)[1])

"""The memory of batches, written again once nobody holds what was in it."""

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

KEPT = 3
"""Arrays that are remembered unless more are asked for: the batch in the step, one being made, one of another size."""


def _num_references(arrays: Sequence[NDArray[Any]]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


_OURS = _num_references([np.empty(0)])[0]
"""What is counted where the list alone holds an array; Python versions differ in what the counting itself adds."""


class BatchMemory:
    """Gives out arrays as `numpy.empty` does, the same memory again where it can.

    Fresh pages can cost more than a batch's copy, where the allocator gives megabytes back to the system after each
    batch, as glibc's does by the history of the process: one plain map-and-scale took 232 or 876 us so. An array is
    given out again only when no view of it and no tensor upon it is left, so what a caller keeps never changes. Threads
    may ask at the same time.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self._arrays: list[NDArray[Any]] = []
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array of ``shape`` with anything in it."""
        with self._lock:
            for array, count in zip(self._arrays, _num_references(self._arrays), strict=True):
                fits = array.dtype == dtype and array.shape[1:] == shape[1:] and len(array) >= shape[0]
                if fits and count == _OURS:
                    return array[: shape[0]]
            array = np.empty(shape, dtype)
            self._arrays = [array, *self._arrays[: self.kept - 1]]
            return array[:]

    def __reduce__(self) -> Any:
        return BatchMemory, (self.kept,)  # another process makes its own

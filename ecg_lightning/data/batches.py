"""What a batch is made of, shared by the data module and the classifier."""

from typing import NotRequired, TypedDict

from torch import Tensor


class Batch(TypedDict):
    """One process's part of a global batch."""

    index: Tensor
    """(batch,) int64: the record's place in the data set."""
    labels: Tensor
    """(batch, label) uint8: 0, 1, or 255 where unknown."""
    ecg: NotRequired[Tensor]
    """(batch, window, lead, time), one window in training; absent where the probe's features are computed already."""
    cuts: NotRequired[Tensor]
    """(batch, window, 2) int64, in place of ``ecg`` where the signals lie on the device: where to cut it there."""
    num_global: int
    """Records of the global batch, over all processes."""
    first: int
    """Place of this process's first record in the global batch."""
    counts: NotRequired[bool]
    """False where a short batch had no record for this process, which was given another's; else left out."""

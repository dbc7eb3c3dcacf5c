"""Arrays in memory as recordings: what `load_run(RUN).predict` is given."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.recording import Layout, Recording, make_recording
from ecg_lightning.data.formats.units import MILLIVOLTS
from ecg_lightning.errors import InputError


def array_recordings(ecg: NDArray[Any], layout: Layout) -> Iterator[tuple[str, Recording]]:
    """Name and recording of each ECG in ``ecg``, (lead, time) or (record, lead, time) in ``layout.unit``.

    Raises:
        InputError: for another shape, values that are no numbers, missing values.
    """
    assert layout.sampling_rate is not None
    assert layout.leads is not None
    array = np.asarray(ecg)
    if array.ndim not in (2, 3) or array.shape[-2] != len(layout.leads) or not array.size:
        raise InputError(
            f"the array has shape {array.shape}, it must be (lead, time) or (record, lead, time) with the "
            f"{len(layout.leads)} leads that `leads` names: transpose it, or name as many leads as it has"
        )
    if array.dtype.kind not in "fiu":
        raise InputError(f"the array holds {array.dtype}, it must hold numbers: convert it to floats")
    records = array[np.newaxis] if array.ndim == 2 else array
    for place, record in enumerate(records):
        name = "the array" if array.ndim == 2 else f"record {place} of the array"
        values = record.astype(np.float64) * MILLIVOLTS[layout.unit]
        yield name, make_recording(name, values, layout.sampling_rate, layout.leads, {})

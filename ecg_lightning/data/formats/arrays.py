"""NPY files, and NPZ files of one array: read by their published header, so that no code in them is ever run."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ecg_lightning.data.formats.recording import Layout, Recording, check_size, make_recording, read_bytes
from ecg_lightning.data.formats.units import MILLIVOLTS
from ecg_lightning.errors import InputError, joined

_SAVE = "save the ECG again with numpy.save, as numbers of shape (lead, time)"


def read_array(path: Path, layout: Layout) -> Recording:
    """Reads an NPY or NPZ file; rate and leads are those of ``layout``, and the leads' number tells the axes apart.

    Raises:
        InputError: for a layout without rate or leads, files that are damaged or hold anything but one array of
            numbers, a shape in which the leads are not to be found, or are in both axes.
    """
    problems = []
    if layout.sampling_rate is None:
        problems.append("the file does not say its rate: give --sampling_rate 500, or what it is")
    if layout.leads is None:
        problems.append("the file does not name its leads: give --leads I,II,III,aVR,..., in the order of the file")
    if layout.sampling_rate is None or layout.leads is None:
        raise InputError(f"{path}: {joined(problems)}")
    content = _only_member(path) if path.suffix.lower() == ".npz" else read_bytes(path)
    array = _lead_by_time(path, _parse(path, content), len(layout.leads))
    values = array.astype(np.float64) * MILLIVOLTS[layout.unit]
    return make_recording(path, values, layout.sampling_rate, layout.leads, {})


def _only_member(path: Path) -> bytes:
    """Bytes of the one array in the NPZ file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                names = ", ".join(member.filename.removesuffix(".npy") for member in members[:10])
                raise InputError(f"{path} holds {len(members)} arrays ({names}), one is read: {_SAVE}")
            check_size(path, members[0].file_size)
            return archive.read(members[0])
    except InputError:
        raise
    except Exception as error:  # of a damaged archive zipfile raises nearly every type
        raise InputError(f"{path} is no NPZ file, or it is damaged ({error}): {_SAVE}") from error


def _parse(path: Path, content: bytes) -> NDArray[Any]:
    """The array of an NPY file, as long as its header and its bytes agree."""
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, by_column, dtype = read_header(stream)
    except Exception as error:  # of a damaged header numpy raises nearly every type
        raise InputError(f"{path} is no NPY file, or its header is damaged ({error}): {_SAVE}") from error
    if dtype.kind not in "fiu":
        raise InputError(f"{path} holds {dtype}, not numbers; what may run code is never loaded: {_SAVE}")
    expected, got = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if expected != got or any(size < 0 for size in shape):
        raise InputError(f"{path} is damaged: {got} bytes of values, its header says {shape} of {dtype}: {_SAVE}")
    array: NDArray[Any] = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if by_column else "C")


def _lead_by_time(path: Path, array: NDArray[Any], num_leads: int) -> NDArray[Any]:
    """``array`` with the axis of ``num_leads`` first."""
    if array.ndim != 2:
        raise InputError(f"{path} has shape {array.shape}, it must be one ECG (lead, time): save each record alone")
    if array.shape == (num_leads, num_leads):
        raise InputError(f"{path} has shape {array.shape}, so its leads may be either axis: cut it to another length")
    if num_leads not in array.shape:
        raise InputError(
            f"{path} has shape {array.shape}, --leads names {num_leads}: name as many leads as the file has"
        )
    return array if array.shape[0] == num_leads else array.T

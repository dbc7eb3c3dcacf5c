import contextlib
import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_formats import made_up

from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.errors import InputError

WHOLE = made_up(("I", "II", "V1"))
LAYOUT = Layout(500, ("I", "II", "V1"))


def refused(path, message, layout=LAYOUT):
    with pytest.raises(InputError, match=message) as told:
        read_recording(path, layout)
    assert str(path) in str(told.value)


@pytest.mark.parametrize("turn", [lambda ecg: ecg, lambda ecg: ecg.T, lambda ecg: np.asfortranarray(ecg)])
def test_either_axis_may_be_the_leads(tmp_path, turn):
    np.save(tmp_path / "a.npy", turn(WHOLE.ecg))
    recording = read_recording(tmp_path / "a.npy", LAYOUT)
    np.testing.assert_array_equal(recording.ecg, WHOLE.ecg)
    assert (recording.leads, recording.sampling_rate) == (("I", "II", "V1"), 500)


@pytest.mark.parametrize(
    ("dtype", "unit", "scale"), [("<i2", "uV", 1000), (">i4", "uV", 1000), ("<f4", "mV", 1), (">f8", "V", 0.001)]
)
def test_numbers_of_any_kind_come_in_millivolts(tmp_path, dtype, unit, scale):
    np.save(tmp_path / "a.npy", np.rint(WHOLE.ecg * 1000).astype(dtype) * np.array(scale / 1000, dtype))
    if np.dtype(dtype).kind == "i":
        np.save(tmp_path / "a.npy", np.rint(WHOLE.ecg * 1000).astype(dtype))
    recording = read_recording(tmp_path / "a.npy", Layout(500, LAYOUT.leads, unit))
    np.testing.assert_allclose(recording.ecg, WHOLE.ecg, atol=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_of_one_array_is_read(tmp_path, save):
    save(tmp_path / "a.npz", ecg=WHOLE.ecg)
    np.testing.assert_array_equal(read_recording(tmp_path / "a.npz", LAYOUT).ecg, WHOLE.ecg)


def test_an_npz_file_of_several_arrays_is_told_with_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", ecg=WHOLE.ecg, labels=np.zeros(3))
    refused(tmp_path / "a.npz", r"a\.npz holds 2 arrays \(ecg, labels\), one is read: save the ECG again")


def test_what_the_file_cannot_say_is_told_with_both_flags(tmp_path):
    np.save(tmp_path / "a.npy", WHOLE.ecg)
    refused(
        tmp_path / "a.npy", "give --sampling_rate 500.*; the file does not name its leads: give --leads I,II", Layout()
    )


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


def test_objects_are_refused_and_their_code_is_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Bomb(), Bomb()]), allow_pickle=True)
    refused(tmp_path / "a.npy", "holds object, not numbers; what may run code is never loaded: save the ECG again")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "b.npy", "is no NPY file, or its header is damaged")


@pytest.mark.parametrize("array", [np.zeros((3, 5), complex), np.zeros((3, 5), bool), np.full((3, 5), "x")])
def test_what_is_no_voltage_is_told(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", "not numbers; .*: save the ECG again with numpy.save")


def test_structured_arrays_are_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(5, [("I", "f4"), ("II", "f4")]))
    refused(tmp_path / "a.npy", "not numbers")


@pytest.mark.parametrize("shape", [(5,), (2, 3, 50), ()])
def test_what_is_no_single_ecg_is_told(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    refused(tmp_path / "a.npy", r"has shape \(.*\), it must be one ECG \(lead, time\): save each record alone")


def test_leads_that_could_be_either_axis_are_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 3)))
    refused(tmp_path / "a.npy", r"has shape \(3, 3\), so its leads may be either axis: cut it to another length")


def test_leads_that_are_neither_axis_are_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((12, 500)))
    refused(tmp_path / "a.npy", r"has shape \(12, 500\), --leads names 3: name as many leads as the file has")


def test_missing_time_points_are_told(tmp_path):
    ecg = WHOLE.ecg.copy()
    ecg[1, 7] = np.nan
    np.save(tmp_path / "a.npy", ecg)
    refused(tmp_path / "a.npy", "missing or infinite time points in lead II, .*: fill them")


def with_shape(shape):
    """An NPY file of 24 bytes whose header claims ``shape``."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(24)


@pytest.mark.parametrize("shape", [(3, 10**12), (10**30, 3), (3, 2), (3, 0), (-1, -3), (3, -1)])
def test_a_shape_that_is_not_that_of_the_bytes_asks_for_no_memory(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(with_shape(shape))
    refused(tmp_path / "a.npy", "is damaged: 24 bytes of values, its header says")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("ecg.npy", with_shape(shape))
    refused(tmp_path / "a.npz", "is damaged: 24 bytes of values, its header says")


@pytest.mark.parametrize(("old", "new"), [(b"descr", b"d\0scr"), (b"}", b"\0"), (b"(3, ", b"((((")])
def test_a_header_that_does_not_parse_is_told(tmp_path, old, new):
    np.save(tmp_path / "a.npy", WHOLE.ecg)
    content = (tmp_path / "a.npy").read_bytes()
    assert old in content
    (tmp_path / "a.npy").write_bytes(content.replace(old, new))
    refused(tmp_path / "a.npy", "is no NPY file, or its header is damaged .*: save the ECG again")


def test_an_npz_file_with_a_damaged_name_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", ecg=WHOLE.ecg)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 9] |= 8  # the flag that says that names are UTF-8
    content[content.rindex(b"ecg.npy")] = 0xAB
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", "is no NPZ file, or it is damaged .*: save the ECG again")


def test_an_npz_file_that_would_inflate_beyond_all_ecgs_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ecg.npy", with_shape((3, 1)))
    content = (tmp_path / "a.npz").read_bytes()
    size = len(with_shape((3, 1))).to_bytes(4, "little")
    assert content.count(size) >= 2
    (tmp_path / "a.npz").write_bytes(content.replace(size, (2**32 - 2).to_bytes(4, "little")))
    refused(tmp_path / "a.npz", r"holds 4096 MiB, at most 2048 MiB are read: cut it")


@given(st.data())
def test_damage_gives_our_own_error_or_the_array(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npy") / data.draw(st.sampled_from(["a.npy", "a.npz"]))
    (np.save if path.suffix == ".npy" else np.savez_compressed)(path, WHOLE.ecg[:, :20])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        assert read_recording(path, LAYOUT).ecg.shape[0] == 3

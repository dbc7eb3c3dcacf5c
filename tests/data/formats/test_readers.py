import subprocess
import sys

import numpy as np
import pytest
from made_up_formats import aecg_text, dicom_dataset, made_up, muse_text, write_csv, write_dicom
from made_up_ptbxl import write_record

from ecg_lightning.data.formats import Layout, conform, find_recordings, read_recording
from ecg_lightning.data.formats.readers import NOT_READ, READERS
from ecg_lightning.data.record import read_record
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12


def write_wfdb(path, num_time_points=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, np.arange(12 * num_time_points).reshape(-1, 12), 100)


def test_real_records_come_the_same_from_wfdb_csv_and_npy(shared, tmp_path):
    for place, hea in enumerate(
        [*find_recordings([shared / "cinc2021"]), *find_recordings([shared / "ptbxl", shared / "ptbxl500"])[::40]]
    ):
        recording = read_recording(hea, Layout())
        rate, order = recording.sampling_rate, np.random.default_rng(place).permutation(12)
        np.testing.assert_allclose(
            recording.ecg, read_record(hea.with_suffix(""), recording.leads, rate) / 1000, atol=1e-12
        )
        write_csv(tmp_path / "a.csv", recording, delimiter=",;\t"[place % 3], time="time" if place % 2 else "")
        csv = read_recording(tmp_path / "a.csv", Layout(None if place % 2 else rate))
        turned = tuple(recording.leads[lead].lower() for lead in order)
        np.save(tmp_path / "a.npy", (recording.ecg[order] * 1000).T.astype(np.float32))
        npy = read_recording(tmp_path / "a.npy", Layout(rate, turned, "uV"))
        assert csv.leads == recording.leads
        assert csv.sampling_rate == npy.sampling_rate == rate
        np.testing.assert_allclose(csv.ecg, recording.ecg, atol=1e-6)
        np.testing.assert_allclose(conform(npy, recording.leads, rate, None)[0], recording.ecg, atol=1e-6)
        np.testing.assert_allclose(
            conform(csv, LEADS_12, 100, 1000)[0], conform(recording, LEADS_12, 100, 1000)[0], atol=2e-6
        )


def test_one_ecg_comes_the_same_from_every_format(tmp_path):
    whole = made_up(("I", "II", "V1", "V2"))
    write_record(tmp_path / "a", np.rint(whole.ecg.T * 1000), 500, sig_name=list(whole.leads))
    write_csv(tmp_path / "a.csv", whole)
    np.save(tmp_path / "a.npy", whole.ecg)
    np.savez(tmp_path / "a.npz", whole.ecg.T)
    (tmp_path / "aecg.xml").write_text(aecg_text(whole))
    (tmp_path / "muse.xml").write_text(muse_text(whole))
    write_dicom(tmp_path / "a.dcm", dicom_dataset(whole))
    write_dicom(tmp_path / "IM_0001", dicom_dataset(whole))
    for name in ("a.hea", "a.csv", "a.npy", "a.npz", "aecg.xml", "muse.xml", "a.dcm", "IM_0001"):
        layout = Layout(500, whole.leads) if name.startswith("a.n") else Layout(500 if name == "a.csv" else None)
        recording = read_recording(tmp_path / name, layout)
        ecg, _ = conform(recording, whole.leads, 500, None)
        np.testing.assert_allclose(ecg, whole.ecg, atol=0.00245 if name == "muse.xml" else 1e-9)
        assert recording.sampling_rate == 500
        assert recording.ecg.dtype == np.float64


def test_a_folder_is_searched_to_the_bottom_and_sorted(tmp_path):
    for name in ("b/2", "b/1", "a/deep/3"):
        write_wfdb(tmp_path / name)
    assert find_recordings([tmp_path]) == [tmp_path / f"{name}.hea" for name in ("a/deep/3", "b/1", "b/2")]


def test_beside_wfdb_headers_tables_are_no_records(tmp_path):
    write_wfdb(tmp_path / "records" / "1")
    for name in ("ptbxl_database.csv", "notes.npy", "README.md"):
        (tmp_path / name).write_text("x")
    assert find_recordings([tmp_path]) == [tmp_path / "records" / "1.hea"]


def test_segments_of_another_record_are_no_records(tmp_path):
    for name in ("whole_0001", "whole_0002", "other"):
        write_wfdb(tmp_path / name)
    (tmp_path / "whole.hea").write_text("# a comment\nwhole/2 12 100 100\nwhole_0001 50\nwhole_0002 50\n")
    assert find_recordings([tmp_path]) == [tmp_path / "other.hea", tmp_path / "whole.hea"]


@pytest.mark.parametrize("name", ["1", "1.dat", "1.hea"])
def test_a_wfdb_record_goes_by_any_of_its_names(tmp_path, name):
    write_wfdb(tmp_path / "1")
    assert find_recordings([tmp_path / name]) == [tmp_path / "1.hea"]
    assert read_recording(tmp_path / name, Layout()).ecg.shape == (12, 50)


def test_without_headers_all_that_is_read_is_found_and_the_rest_passed_over(tmp_path):
    for name in ("a.csv", "b.NPY", "c.xml", "d.dcm", "README.md", "e.pdf", "f.xlsx", ".hidden.csv", "._a.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "1.2.840.5").write_bytes(bytes(128) + b"DICM")
    assert [path.name for path in find_recordings([tmp_path])] == ["1.2.840.5", "a.csv", "b.NPY", "c.xml", "d.dcm"]


def test_a_record_named_twice_comes_once_in_the_order_given(tmp_path):
    for name in ("a", "b"):
        write_wfdb(tmp_path / name)
    found = find_recordings([tmp_path / "b.dat", tmp_path, tmp_path / "b"])
    assert found == [tmp_path / "b.hea", tmp_path / "a.hea"]


def test_every_path_that_is_wrong_is_named_in_one_message(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(InputError) as told:
        find_recordings([tmp_path / "none.csv", tmp_path / "empty", tmp_path / "a.pdf"])
    for part in (
        "none.csv does not exist: check the path",
        "empty holds no records (read are .hea, .csv",
        "a.pdf: it is a picture of an ECG: export the signal itself",
    ):
        assert part in str(told.value)


def test_no_paths_are_told():
    with pytest.raises(InputError, match="no paths were given: name files or folders of records"):
        find_recordings([])


@pytest.mark.parametrize("suffix", sorted(NOT_READ))
def test_a_known_format_that_is_not_read_is_told_with_what_to_do(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(InputError) as told:
        read_recording(path, Layout())
    assert str(path) in str(told.value)
    assert f"{NOT_READ[suffix]} (read are {', '.join(READERS)})" in str(told.value)


@pytest.mark.parametrize(("name", "kind"), [("a.txt", ".txt"), ("a", "without extension")])
def test_an_unknown_format_is_told_with_those_that_are_read(tmp_path, name, kind):
    (tmp_path / name).write_text("x")
    with pytest.raises(
        InputError, match=rf"files {kind} are not read: convert it to WFDB, CSV or NPY \(read are \.hea"
    ):
        read_recording(tmp_path / name, Layout())


@pytest.mark.parametrize("name", ["x.edf", "x.scp", "x.mat", "x.dat"])
def test_records_in_a_folder_that_would_be_left_out_are_told(tmp_path, name):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=rf"holds 1 records that are not read, such as .*{name}: .*name the files"):
        find_recordings([tmp_path])


def test_a_record_that_is_gone_is_told(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv does not exist: check the path"):
        read_recording(tmp_path / "gone.csv", Layout())


def test_what_is_named_by_a_loop_of_links_or_a_folder_is_told(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match=r"a\.csv cannot be read \(Is a directory\)"):
        read_recording(tmp_path / "a.csv", Layout())


def test_importing_the_readers_imports_no_library_that_is_slow():
    code = (
        "import sys, ecg_lightning.data.formats;"
        "assert not {'wfdb', 'torch', 'pandas', 'scipy', 'pydicom', 'defusedxml', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

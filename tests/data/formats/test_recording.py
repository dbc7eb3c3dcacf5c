import numpy as np
import pytest

from ecg_lightning.data.formats import Layout
from ecg_lightning.data.formats.recording import check_size, facts_of_comments, make_recording, read_bytes
from ecg_lightning.errors import InputError, UsageError


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_told_as_a_flag(rate):
    with pytest.raises(UsageError, match=r"--sampling_rate is .*, it must be a positive number of Hz"):
        Layout(rate)


def test_an_unknown_unit_is_told_with_those_known():
    with pytest.raises(UsageError, match="--unit is 'mmHg', it must be one of mV, uV, V"):
        Layout(unit="mmHg")


@pytest.mark.parametrize("leads", [(), ("I", "i"), ("I", " ")])
def test_leads_without_a_name_of_their_own_are_told(leads):
    with pytest.raises(UsageError, match="name each lead once, such as --leads I,II,V1"):
        Layout(leads=leads)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_time_points_are_told_with_their_leads(tmp_path, value):
    ecg = np.zeros((3, 10))
    ecg[[0, 2], 4] = value
    with pytest.raises(InputError, match=r"a\.csv: missing or infinite time points in lead I, V1, .*: fill them, or"):
        make_recording(tmp_path / "a.csv", ecg, 100, ("I", "II", "V1"), {})


def test_no_time_points_and_no_rate_are_told(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv holds no time points: fetch"):
        make_recording(tmp_path / "a.csv", np.zeros((2, 0)), 100, ("I", "II"), {})
    with pytest.raises(InputError, match=r"a\.csv: its sampling rate is 0 Hz, it must be positive"):
        make_recording(tmp_path / "a.csv", np.zeros((1, 9)), 0, ("I",), {})


def test_comments_become_facts_by_name():
    lines = ["# Age: 84", "#Sex: Female", "# Dx: 1,2", "# Dx: 3", "# free text", "#", "# Hx:", "# at 12:30", "more: "]
    assert facts_of_comments(lines) == {
        "Age": "84",
        "Sex": "Female",
        "Dx": "1,2; 3",
        "comments": "free text",
        "at 12": "30",
    }


def test_a_file_that_is_too_long_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(2**32)  # sparse: takes no room
    with pytest.raises(InputError, match=r"a\.csv holds 4096 MiB, at most 2048 MiB are read: cut it into records"):
        read_bytes(tmp_path / "a.csv")
    check_size(tmp_path / "a.csv", 2**31)

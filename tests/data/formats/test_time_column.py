from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_formats import made_up, write_csv

from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.data.formats.time_column import is_time, rate_of
from ecg_lightning.errors import InputError

FILE = Path("a.csv")


def times(rate, num=1000, start=0.0):
    return start + np.arange(num) / rate


@pytest.mark.parametrize(
    "name", ["time", "t", "Time (s)", "TIME [ms]", "time_ms", "seconds", "ms", "Elapsed time (sec)"]
)
def test_names_of_time_columns_are_known(name):
    assert is_time(name)


@pytest.mark.parametrize("name", ["I", "V1", "II (mV)", "", "sample", "timed", "aVR", "T1"])
def test_names_of_leads_are_none(name):
    assert not is_time(name)


def test_the_rate_of_a_file_is_that_of_its_time_column(tmp_path):
    write_csv(tmp_path / "a.csv", made_up(("I", "V1"), 250), time="Time (s)")
    recording = read_recording(tmp_path / "a.csv", Layout())
    assert recording.sampling_rate == 250
    assert recording.leads == ("I", "V1")


@given(
    rate=st.sampled_from([100, 128, 250, 257, 360, 500, 512, 1000]), start=st.floats(0, 1e5), places=st.integers(3, 6)
)
def test_times_rounded_to_milliseconds_tell_the_whole_rate(rate, start, places):
    assert rate_of(FILE, "time", np.round(times(rate, 5000, round(start, 3)), places), None) == rate


@pytest.mark.parametrize(("name", "per_second"), [("time (ms)", 1e3), ("ms", 1e3), ("t [us]", 1e6), ("time", 1)])
def test_the_unit_stands_in_the_name(name, per_second):
    assert rate_of(FILE, name, times(500) * per_second, None) == 500


def test_without_a_unit_the_given_rate_tells_it():
    assert rate_of(FILE, "time", times(500) * 1e3, 500) == 500
    with pytest.raises(InputError, match=r"column time tells 0\.5 Hz if it is in seconds: name it time \(ms\)"):
        rate_of(FILE, "time", times(500) * 1e3, None)


def test_another_rate_than_the_given_one_is_told():
    with pytest.raises(InputError, match=r"column time tells 250 Hz, --sampling_rate 500: leave the flag out"):
        rate_of(FILE, "time", times(250), 500)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: np.delete(t, 400),
        lambda t: np.concatenate([t[:400], t[399:]]),
        lambda t: t[::-1],
        lambda t: t * (1 + 0.01 * t),
        lambda t: np.zeros_like(t),
        lambda t: np.where(np.arange(t.size) == 7, 99, t),
    ],
)
def test_gaps_repeats_and_turns_are_told(change):
    with pytest.raises(InputError, match=r"a\.csv: the times in column time are not evenly .*--sampling_rate"):
        rate_of(FILE, "time", change(times(500)), None)


@pytest.mark.parametrize("bad", [[0.0], [0.0, np.nan], [np.inf, 1.0]])
def test_a_column_without_times_is_told(bad):
    with pytest.raises(InputError, match="does not hold two or more times: take it out, give --sampling_rate"):
        rate_of(FILE, "time", np.array(bad), None)

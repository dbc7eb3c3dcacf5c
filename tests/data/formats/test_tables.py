import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_formats import made_up, write_csv

from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.errors import InputError

TWO = made_up(("I", "V1"))
RATE = Layout(500)


def read(tmp_path, text, layout=RATE):
    path = tmp_path / "a.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recording(path, layout)


def refused(tmp_path, text, message, layout=RATE):
    with pytest.raises(InputError, match=message) as told:
        read(tmp_path, text, layout)
    assert str(tmp_path / "a.csv") in str(told.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_any_of_three_delimiters_is_found(tmp_path, delimiter):
    write_csv(tmp_path / "a.csv", TWO, delimiter=delimiter)
    recording = read_recording(tmp_path / "a.csv", RATE)
    np.testing.assert_allclose(recording.ecg, TWO.ecg, atol=1e-6)
    assert (recording.leads, recording.sampling_rate, recording.facts) == (("I", "V1"), 500, {})


def test_tsv_is_read_too(tmp_path):
    write_csv(tmp_path / "a.tsv", TWO, delimiter="\t")
    np.testing.assert_allclose(read_recording(tmp_path / "a.tsv", RATE).ecg, TWO.ecg, atol=1e-6)


@pytest.mark.parametrize(("unit", "scale"), [("uV", 1000), ("V", 0.001), ("mV", 1)])
def test_values_come_in_millivolts_by_the_unit_of_the_layout(tmp_path, unit, scale):
    write_csv(tmp_path / "a.csv", TWO, scale=scale)
    np.testing.assert_allclose(read_recording(tmp_path / "a.csv", Layout(500, unit=unit)).ecg, TWO.ecg, atol=1e-3)


def test_a_unit_behind_a_name_holds_for_its_column(tmp_path):
    recording = read(tmp_path, "I (uV),V1 [mV]\n1500,1\n-500,2\n")
    np.testing.assert_allclose(recording.ecg, [[1.5, -0.5], [1, 2]])
    assert recording.leads == ("I (uV)", "V1 [mV]")


def test_a_second_row_of_units_holds_for_its_columns(tmp_path):
    """As WFDB's rdsamp writes it with -v and -p."""
    recording = read(tmp_path, "'Elapsed time','I','V1'\n'seconds','uV','mV'\n0.000,1500,1\n0.002,-500,2\n", Layout())
    np.testing.assert_allclose(recording.ecg, [[1.5, -0.5], [1, 2]])
    assert recording.sampling_rate == 500


def test_a_unit_that_another_flag_contradicts_is_told(tmp_path):
    refused(tmp_path, "I (uV)\n1\n2\n", r"I \(uV\) is in uV, --unit says V: leave --unit out", Layout(500, unit="V"))


def test_a_unit_that_is_no_voltage_is_told(tmp_path):
    refused(tmp_path, "I,P (mmHg)\n1,2\n", r"unit of lead P \(mmHg\) is 'mmHg', known are mV, uV.*: convert")


def test_without_names_the_layout_gives_them(tmp_path):
    recording = read(tmp_path, "1,2\n3,4\n5,6\n", Layout(500, ("II", "V5")))
    assert recording.leads == ("II", "V5")
    np.testing.assert_array_equal(recording.ecg, [[1, 3, 5], [2, 4, 6]])


def test_names_that_mean_no_lead_are_replaced_by_the_layout(tmp_path):
    assert read(tmp_path, "ch1,ch2\n1,2\n3,4\n", Layout(500, ("II", "V5"))).leads == ("II", "V5")


def test_names_in_the_file_and_in_the_layout_may_agree_but_not_differ(tmp_path):
    assert read(tmp_path, "Lead I,v1\n1,2\n3,4\n", Layout(500, ("I", "V1"))).leads == ("I", "V1")
    refused(
        tmp_path,
        "I,V1\n1,2\n",
        "names its leads I, V1, --leads says V1, I: leave --leads out",
        Layout(500, ("V1", "I")),
    )


def test_lines_that_begin_with_a_hash_become_facts(tmp_path):
    recording = read(tmp_path, "# Age: 84\n# Sex: Female\nI,V1\n1,2\n3,4\n")
    assert recording.facts == {"Age": "84", "Sex": "Female"}


def test_columns_that_count_the_time_points_are_taken_out(tmp_path):
    assert read(tmp_path, ",I,V1\n0,1,2\n1,3,4\n").leads == ("I", "V1")
    assert read(tmp_path, "I,sample,V1\n1,7,2\n3,8,4\n").leads == ("I", "V1")
    refused(tmp_path, "I,sample,V1\n1,7,2\n3,7,4\n", "column 'sample' does not count the time points: name it, or take")


def test_quotes_carriage_returns_and_byte_order_marks_are_no_matter(tmp_path):
    recording = read(tmp_path, b'\xef\xbb\xbf"I","V1"\r\n"1","2"\r\n"3","4"\r\n\r\n')
    assert recording.leads == ("I", "V1")
    np.testing.assert_array_equal(recording.ecg, [[1, 3], [2, 4]])


def test_one_lead_needs_no_delimiter(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, "II\n1.5\n-2\n").ecg, [[1.5, -2]])


@pytest.mark.parametrize(
    "text", ["I;V1\n0,12;0,5\n0,1;0,2\n", "I\tV1\n0.1\t0,2\n", "I,V1\n0,12,0,5\n0,12,0,5\n", "II\n0,12\n0,5\n"]
)
def test_decimal_commas_are_told_with_the_line(tmp_path, text):
    refused(tmp_path, text, r"line 2 has decimal commas \('.*'\): write numbers with a decimal point, such as 0\.12")


def test_rows_that_are_leads_are_told(tmp_path):
    refused(tmp_path, "I,0.1,0.2,0.3\nV1,0.4,0.5,0.6\n", r"its rows are leads \(I with 3 values .*: transpose it")
    rows = "\n".join(",".join("123456789") for _ in range(2))
    refused(tmp_path, rows, "has 2 rows for 2 --leads: transpose it", Layout(500, ("I", "II")))


def test_a_number_of_leads_that_is_not_that_of_the_columns_is_told(tmp_path):
    refused(
        tmp_path,
        "1,2,3\n4,5,6\n7,8,9\n7,8,9\n",
        "has 3 lead columns, --leads names 2: name each",
        Layout(9, ("I", "II")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# c\nI,V1\n1,2\n3\n", "line 4 has 1 cells, the first line 2: is the file cut"),
        ("I,V1\n1,2\n3,4,5\n", "line 3 has 3 cells, the first line 2"),
        ("I,V1\n1,2\n,4\n", "line 3 has an empty cell: fill missing time points, or leave the record out"),
        ("I,V1\n1,2\n\n3,4\n", "line 3 has 1 cells"),
        ("I,V1\n1,2\nx,4\n", "line 3 holds 'x', it must be a number: export it again with a column per lead"),
        ("I,V1\n1,2\nnan,4\n", r"missing or infinite time points in lead I, .*: fill them"),
        ("I,V1\n1,2\n1,1e999\n", r"missing or infinite time points in lead V1, .*: fill them"),
        ("I,V1\n", "has a header and no rows below: export it again"),
        ("", "is empty: export it again"),
        ("# Age: 3\n", "is empty: export it again"),
        ("\n\n", "is empty: export it again"),
        ("time\n0\n0.002\n", "has no column of a lead: export it again"),
        ("time,t,I\n0,0,1\n1,1,1\n", r"several time columns \(time, t\): leave one"),
        ("I,V1\n1,2\n".encode("utf-16"), r"is not UTF-8 text \(byte 0\): save it as CSV in UTF-8"),
    ],
)
def test_a_damaged_table_is_told_with_its_line_and_the_way_out(tmp_path, text, message):
    refused(tmp_path, text, message)


def test_what_neither_file_nor_layout_says_is_told_with_the_flag(tmp_path):
    refused(tmp_path, "I,V1\n1,2\n", "has no time column, .*: give --sampling_rate 500", Layout())
    refused(tmp_path, "1,2\n3,4\n", "does not name its leads: write them in its first row, or give --leads I,II")


@given(st.data())
def test_damage_gives_our_own_error_or_an_ecg(tmp_path_factory, data):
    content = bytearray(b"# Age: 84\ntime,I,V1\n0.000,0.11,-1\n0.002,0.12,-2\n0.004,0.13,-3\n")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 5))] = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b",", b"\n", b'"', b"nan", b";", b"-", b"e999", b"\0"]))
        )
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        recording = read_recording(path, Layout(data.draw(st.sampled_from([None, 500]))))
        assert recording.ecg.shape[0] == len(recording.leads) > 0


@given(
    values=st.lists(
        st.lists(st.floats(-50, 50).map(lambda value: round(value, 4)), min_size=3, max_size=3), min_size=2, max_size=40
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
    header=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    exponents=st.booleans(),
)
def test_any_table_of_numbers_comes_back(tmp_path_factory, values, delimiter, header, newline, exponents):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    form = "{:.6e}" if exponents else "{:.4f}"
    rows = [delimiter.join(map(form.format, row)) for row in values]
    path.write_text(newline.join([delimiter.join(("I", "II", "V1"))] * header + rows), newline="")
    recording = read_recording(path, Layout(500, None if header else ("I", "II", "V1")))
    np.testing.assert_allclose(recording.ecg, np.array(values).T, atol=1e-4)

import subprocess
import sys

import numpy as np
import pytest
from made_up_ptbxl import LEADS, wfdb, write_record

from ecg_lightning.data.ptbxl import read_table
from ecg_lightning.data.record import flat_leads, header_length, read_record
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

DIGITAL = np.random.default_rng(1).integers(-3000, 3000, (1000, 12)).astype(np.int16)


@pytest.fixture
def record(tmp_path):
    write_record(tmp_path / "00017_lr", DIGITAL, 100)
    return tmp_path / "00017_lr"


def read(record, leads=LEADS_12, sampling_rate=100, num_time_points=1000):
    return read_record(record, leads, sampling_rate, num_time_points)


def change_header(record, old, new):
    file = record.with_name(record.name + ".hea")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(("folder", "column"), [("ptbxl", "filename_lr"), ("ptbxl500", "filename_hr")])
def test_every_real_record_equals_what_wfdb_reads(shared, folder, column, monkeypatch):
    monkeypatch.setattr("ecg_lightning.data.record._read_with_wfdb", None)  # the fast path alone
    rate = {"filename_lr": 100, "filename_hr": 500}[column]
    for name in read_table(shared / folder).filenames[column]:
        ours = read(shared / folder / name, sampling_rate=rate, num_time_points=10 * rate)
        theirs = wfdb.rdrecord(str(shared / folder / name))
        assert np.array_equal(ours / 1000, theirs.p_signal.T)


def test_whole_microvolts_come_as_int16_lead_by_time(record):
    ecg = read(record)
    assert ecg.dtype == np.int16
    assert ecg.flags.c_contiguous
    assert np.array_equal(ecg, DIGITAL.T)


def test_leads_come_by_name_in_the_order_asked_for(record):
    assert np.array_equal(read(record, leads=("V6", "avr")), DIGITAL.T[[11, 3]])


def test_leads_in_another_order_in_the_file_are_put_right(tmp_path):
    write_record(tmp_path / "turned", DIGITAL[:, ::-1], 100, sig_name=LEADS[::-1])
    assert np.array_equal(read(tmp_path / "turned"), DIGITAL.T)


def test_without_a_length_any_length_will_do(record):
    assert read(record, num_time_points=None).shape == (12, 1000)
    assert header_length(record) == 1000


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("format 32", {"fmt": ["32"] * 12}),
        ("baseline", {"baseline": [7] * 12, "d_signal": DIGITAL.astype(np.int64) + 7}),
        ("gain 200", {"adc_gain": [200.0] * 12, "d_signal": DIGITAL.astype(np.int64) // 5}),
        ("units", {"units": ["uV"] * 12, "adc_gain": [1.0] * 12}),
        ("comments", {"comments": ["Age: 63"]}),
    ],
)
def test_other_kinds_of_records_give_the_same_as_wfdb(tmp_path, kind, changes):
    write_record(tmp_path / "other", DIGITAL, 100, **changes)
    expected = wfdb.rdrecord(str(tmp_path / "other")).p_signal.T * (0.001 if kind == "units" else 1)
    ecg = read(tmp_path / "other")
    assert ecg.dtype == np.int16
    np.testing.assert_allclose(ecg / 1000, expected, atol=1e-9)
    assert header_length(tmp_path / "other") == 1000


def test_values_finer_than_a_microvolt_come_as_float64_in_millivolts(tmp_path):
    write_record(tmp_path / "fine", DIGITAL, 100, adc_gain=[3000.0] * 12)
    ecg = read(tmp_path / "fine")
    assert ecg.dtype == np.float64
    np.testing.assert_allclose(ecg, DIGITAL.T / 3000)


def test_matlab_files_with_a_byte_offset_are_read(shared):
    path = shared / "cinc2021" / "E07500"
    ecg = read(path, sampling_rate=500, num_time_points=5000)
    assert np.array_equal(ecg / 1000, wfdb.rdrecord(str(path)).p_signal.T)


def test_a_missing_header_is_told(record):
    record.with_name("00017_lr.hea").unlink()
    with pytest.raises(
        InputError,
        match=r"00017_lr\.hea does not exist: fetch the file again from its source .*download --output DIR --verify",
    ):
        read(record)
    assert header_length(record) is None


def test_a_missing_signal_file_is_told(record):
    record.with_name("00017_lr.dat").unlink()
    with pytest.raises(InputError, match=r"00017_lr\.dat does not exist, its header does: fetch"):
        read(record)


@pytest.mark.parametrize(("num_bytes", "message"), [(23998, "is cut"), (0, "is cut"), (24002, "is too long")])
def test_a_signal_file_of_another_length_is_told(record, num_bytes, message):
    file = record.with_name("00017_lr.dat")
    file.write_bytes((file.read_bytes() + b"\0\0")[:num_bytes])
    with pytest.raises(InputError, match=rf"00017_lr\.dat {message}: {num_bytes} bytes, its header says 24000: fetch"):
        read(record)


def test_a_flipped_bit_breaks_the_checksum_of_its_lead(record):
    file = record.with_name("00017_lr.dat")
    content = bytearray(file.read_bytes())
    content[24 * 500 + 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"00017_lr: the checksum of lead II is not that of its header: fetch"):
        read(record)


def test_the_checksum_is_kept_for_other_formats_too(tmp_path):
    write_record(tmp_path / "other", DIGITAL, 100, fmt=["32"] * 12)
    file = tmp_path / "other.dat"
    content = bytearray(file.read_bytes())
    content[48 * 500] ^= 4
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"other: the checksum of lead I is not that of its header"):
        read(tmp_path / "other")


def test_missing_time_points_are_told_with_their_leads(tmp_path):
    gap = DIGITAL.copy()
    gap[10, 4] = -32768
    write_record(tmp_path / "gap", gap, 100)
    with pytest.raises(InputError, match=r"gap: missing time points \(NaN\) in lead AVL, .*leave the record out"):
        read(tmp_path / "gap")


def test_another_rate_is_told_with_the_way_out(record):
    with pytest.raises(InputError, match=r"it has 100 Hz, 500 Hz are asked for: resample .*--backbone for 100 Hz"):
        read(record, sampling_rate=500, num_time_points=5000)


def test_another_length_is_told(record):
    with pytest.raises(InputError, match=r"it has 1000 time points, the other records 900, .*--on_error skip"):
        read(record, num_time_points=900)


def test_a_lead_of_another_name_is_told_with_those_found(record):
    change_header(record, "AVF", "aV-F")
    with pytest.raises(InputError, match=r"leads missing: aVF \(found I, II, .*name the leads I, II"):
        read(record)


def test_rate_and_leads_are_told_together(record):
    change_header(record, "AVF", "aV-F")
    with pytest.raises(InputError, match=r"100 Hz, 250 Hz .*; leads missing: aVF"):
        read(record, sampling_rate=250)


@pytest.mark.parametrize("text", ["", "nonsense", "00017_lr 12 100 1000\n00017_lr.dat 16 1000\n", "\x00\xff" * 20])
def test_a_header_that_does_not_parse_is_told(record, text):
    record.with_name("00017_lr.hea").write_text(text)
    with pytest.raises(InputError, match="00017_lr"):
        read(record)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("00017_lr.dat", "."),
        ("00017_lr.dat", ".."),
        (" 100 1000", f" 100 {'9' * 5000}"),
        (" 12 100", f" {'9' * 5000} 100"),
        ("dat 16 ", f"dat 16+{'9' * 5000} "),
        (" 0 I\n", f"{'9' * 5000} 0 I\n"),
    ],
)
def test_what_no_header_says_is_refused(record, old, new):
    file = record.with_name("00017_lr.hea")
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError, match="00017_lr"):
        read(record)
    assert header_length(record) is None or old != " 100 1000"


def test_a_file_longer_than_its_header_says_is_refused_without_being_read(record):
    with record.with_name("00017_lr.dat").open("ab") as file:
        file.truncate(1 << 40)  # a hole: nothing of it is on the disk
    with pytest.raises(InputError, match=r"is too long: 1099511627776 bytes"):
        read(record)


def test_a_record_without_time_points_is_told(record):
    change_header(record, "00017_lr 12 100 1000", "00017_lr 12 100 0")
    with pytest.raises(InputError, match="00017_lr"):
        read(record, num_time_points=None)


def test_units_that_are_no_voltage_are_told(tmp_path):
    write_record(tmp_path / "pressure", DIGITAL, 100, units=["mmHg"] * 12)
    with pytest.raises(InputError, match=r"units \['mmHg'\], known are mV, uV.*convert the record to mV"):
        read(tmp_path / "pressure")


def test_flat_leads_are_found():
    ecg = DIGITAL.T.copy()
    ecg[[0, 6]] = 5
    assert flat_leads(ecg, LEADS) == ["I", "V1"]


def test_reading_a_plain_record_imports_neither_wfdb_nor_torch(record):
    code = (
        "import sys; from ecg_lightning.data.record import read_record; import ecg_lightning.data.conversion;"
        f"read_record({str(record)!r}, ('I',), 100);"
        "assert not {'wfdb', 'torch', 'pandas', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

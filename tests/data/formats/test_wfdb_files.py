import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_ptbxl import LEADS, wfdb, write_record

from ecg_lightning.data.formats import Layout, read_recording
from ecg_lightning.data.record import read_whole_record
from ecg_lightning.errors import InputError

DIGITAL = np.random.default_rng(1).integers(-3000, 3000, (1000, 12)).astype(np.int16)


def change_header(path, old, new):
    file = path.with_name(path.name + ".hea")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def read(path):
    return read_recording(path.with_name(f"{path.name}.hea"), Layout())


def test_challenge_records_come_with_their_comments_as_facts(shared):
    recording = read(shared / "cinc2021" / "JS20000")
    assert recording.facts == {
        "Age": "84",
        "Sex": "Female",
        "Dx": "284470004,427084000,698252002,55930002",
        "Rx": "Unknown",
        "Hx": "Unknown",
        "Sx": "Unknown",
    }
    assert recording.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert recording.sampling_rate == 500


def test_challenge_records_come_as_wfdb_reads_them_without_importing_it(shared, monkeypatch):
    paths = [path.with_suffix("") for path in shared.glob("cinc2021/*.hea")]
    expected = {path.name: wfdb.rdrecord(str(path)).p_signal.T for path in paths}
    monkeypatch.setattr("ecg_lightning.data.record._wfdb", lambda: pytest.fail("the slow path"))
    assert len(expected) == 18
    for name, ecg in expected.items():
        np.testing.assert_array_equal(read(shared / "cinc2021" / name).ecg, ecg)


def test_the_offset_of_a_matlab_file_counts_for_its_length(shared, tmp_path):
    for suffix in (".hea", ".mat"):
        content = (shared / "cinc2021" / f"E07500{suffix}").read_bytes()
        (tmp_path / f"E07500{suffix}").write_bytes(content[: -2 if suffix == ".mat" else None])
    with pytest.raises(InputError, match=r"E07500\.mat is cut: 120022 bytes, its header says 120024: fetch"):
        read(tmp_path / "E07500")


def test_start_of_the_record_is_a_fact(tmp_path):
    write_record(tmp_path / "a", DIGITAL, 100)
    change_header(tmp_path / "a", "a 12 100 1000", "a 12 100 1000 12:30:00 01/02/1999")
    assert read(tmp_path / "a").facts == {"Time": "12:30:00", "Date": "01/02/1999"}


@pytest.mark.parametrize(
    "changes",
    [
        {"fmt": ["212"] * 12, "d_signal": DIGITAL // 4},
        {"fmt": ["24"] * 12},
        {"fmt": ["32"] * 12},
        {"fmt": ["80"] * 12, "d_signal": DIGITAL // 50},
        {"adc_gain": [200.0] * 12, "baseline": [13] * 12},
        {"adc_gain": [0.2] * 12, "units": ["uV"] * 12},
        {"units": ["V", *["mV"] * 11], "adc_gain": [1e6, *[1000.0] * 11]},
    ],
)
def test_other_formats_gains_and_units_come_in_millivolts(tmp_path, changes):
    write_record(tmp_path / "a", DIGITAL, 100, **changes)
    expected = wfdb.rdrecord(str(tmp_path / "a"))
    factors = [{"uV": 0.001, "mV": 1, "V": 1000}[unit] for unit in expected.units]
    np.testing.assert_allclose(read(tmp_path / "a").ecg, (expected.p_signal * factors).T, atol=1e-12)


def segments(tmp_path, *shapes, names=LEADS):
    for place, num_time_points in enumerate(shapes):
        write_record(tmp_path / f"w_{place}", DIGITAL[:num_time_points], 100, sig_name=names)
    rows = "".join(f"w_{place} {length}\n" for place, length in enumerate(shapes))
    (tmp_path / "w.hea").write_text(f"w/{len(shapes)} 12 100 {sum(shapes)}\n{rows}# Age: 63\n")


def test_the_segments_of_a_record_come_as_one(tmp_path):
    segments(tmp_path, 400, 300)
    recording = read(tmp_path / "w")
    np.testing.assert_allclose(recording.ecg, np.concatenate([DIGITAL[:400], DIGITAL[:300]]).T / 1000, atol=1e-12)
    assert recording.facts == {"Age": "63"}


def test_a_flipped_bit_in_a_segment_is_told(tmp_path):
    segments(tmp_path, 400, 300)
    content = bytearray((tmp_path / "w_1.dat").read_bytes())
    content[24 * 100] ^= 4
    (tmp_path / "w_1.dat").write_bytes(content)
    with pytest.raises(InputError, match=r"w_1: the checksum of lead I is not that of its header: fetch"):
        read(tmp_path / "w")


def test_a_gap_between_segments_is_told(tmp_path):
    segments(tmp_path, 400, 300)
    (tmp_path / "w.hea").write_text("w/3 12 100 1000000000700\nw_0 400\n~ 1000000000000\nw_1 300\n")
    with pytest.raises(InputError, match=r"w\.hea: missing time points \(segment '~'\): leave the record out"):
        read(tmp_path / "w")


@pytest.mark.parametrize("fmt", ["32", "212", "16"])
@pytest.mark.parametrize("claim", ["1000000000000", "100000000"])
def test_a_length_beyond_the_files_is_refused_before_memory_is_asked_for(tmp_path, fmt, claim):
    write_record(tmp_path / "a", DIGITAL // 4, 100, fmt=[fmt] * 12, adc_gain=[200.0] * 12)
    change_header(tmp_path / "a", "a 12 100 1000", f"a 12 100 {claim}")
    with pytest.raises(
        InputError, match=rf"a\.hea says {claim} time points of 12 leads, its files have \d+ bytes .*fetch"
    ):
        read(tmp_path / "a")


def test_a_skew_beyond_the_record_is_told(tmp_path):
    write_record(tmp_path / "a", DIGITAL, 100, fmt=["32"] * 12)
    change_header(tmp_path / "a", "a.dat 32 ", "a.dat 32:1000000000000 ")
    with pytest.raises(InputError, match=r"a\.hea: a skew beyond the record's end: fetch"):
        read(tmp_path / "a")


def test_leads_of_several_rates_are_told_not_averaged(tmp_path):
    write_record(tmp_path / "a", DIGITAL, 100, fmt=["32"] * 12)
    change_header(tmp_path / "a", "a.dat 32 ", "a.dat 32x4 ")
    with pytest.raises(InputError, match=r"a\.hea: 4 values per time point .*wfdb would average .*WFDB's xform"):
        read(tmp_path / "a")


def test_a_record_that_is_its_own_segment_is_told(tmp_path):
    (tmp_path / "w.hea").write_text("w/1 12 100 700\nw 700\n")
    with pytest.raises(InputError, match=r"w: wfdb cannot read it"):
        read(tmp_path / "w")


def test_segments_of_a_variable_layout_come_as_one(tmp_path):
    segments(tmp_path, 400, 300)
    layout = "".join(f"~ 0 1000(0)/mV 16 0 0 0 0 {lead}\n" for lead in LEADS)
    (tmp_path / "w_layout.hea").write_text(f"w_layout 12 100 0\n{layout}")
    (tmp_path / "w.hea").write_text("w/3 12 100 700\nw_layout 0\nw_0 400\nw_1 300\n")
    expected = np.concatenate([DIGITAL[:400], DIGITAL[:300]]).T / 1000
    np.testing.assert_allclose(read(tmp_path / "w").ecg, expected, atol=1e-12)


@pytest.fixture(scope="module", params=["16", "32"])
def small(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_record(folder / "a", DIGITAL[:20], 100, fmt=[request.param] * 12)
    return folder / "a", (folder / "a.hea").read_text()


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damage_to_a_header_gives_our_own_error_or_an_ecg(small, data):
    path, text = small
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        put = data.draw(st.text(max_size=3) | st.sampled_from(["9999999999", "/", "-", "0", " ", "\n", "~", "x"]))
        text = text[:place] + put + text[place + data.draw(st.integers(0, 5)) :]
    path.with_name("a.hea").write_text(text)
    with contextlib.suppress(InputError):
        recording = read(path)
        assert recording.ecg.shape[0] == len(recording.leads) > 0


def test_a_record_without_leads_is_told(tmp_path):
    (tmp_path / "a.hea").write_text("a 0 100 0\n")
    with pytest.raises(InputError, match="a"):
        read_whole_record(tmp_path / "a")

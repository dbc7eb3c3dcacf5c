import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up_ptbxl import read_rows, wfdb, write_record, write_table

from ecg_lightning.chains import Bandpass, Crop, Resample, SubtractMedian, ZScore, run_record_chain
from ecg_lightning.data import prepare as prepare_module
from ecg_lightning.data.journal import Journal
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.signals import SignalSpec

SPEC = SignalSpec(100, 1000)
FILTERED = SignalSpec(100, 500, chain=(Bandpass(0.5, 40.0), SubtractMedian(), Resample(50.0), Crop(), ZScore()))
SLOW_RUN = """
import sys
from ecg_lightning.data.prepare import prepare
from ecg_lightning.chains import Bandpass, Crop, Resample, SubtractMedian, ZScore
from ecg_lightning.signals import SignalSpec
if __name__ == "__main__":
    chain = (Bandpass(0.5, 40.0), SubtractMedian(), Resample(50.0), Crop(), ZScore())
    spec = SignalSpec(100, 500, chain=chain)
    prepare(sys.argv[1], sys.argv[2], spec, workers=int(sys.argv[3]), progress=False)
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "store.h5"


def run(source, output, spec=SPEC, **arguments):
    return prepare(source, output, spec, **{"workers": 1, "progress": False, **arguments})


def record(source, ecg_id):
    return source / f"records100/00000/{ecg_id:05d}_lr"


def damage(source, *ecg_ids):
    for ecg_id in ecg_ids:
        file = record(source, ecg_id).with_suffix(".dat")
        file.write_bytes(file.read_bytes()[:-2])


def many_rows(source, num_rows):
    """More rows over the same files, which cost nothing to write."""
    rows = read_rows(source)
    more = [{**rows[i % 40], "ecg_id": str(i + 1)} for i in range(num_rows)]
    write_table(source, more)


def left_over(output):
    return sorted(path.name for path in output.parent.glob("*"))


def test_an_unfiltered_store_is_a_lossless_copy(tiny_ptbxl, output):
    report = run(tiny_ptbxl, output, command="ecg-lightning prepare ...")
    store = Store(output)
    assert report.num_records == store.num_records == 40
    assert (store.dtype, store.millivolts_per_unit, store.stored.chain) == (np.int16, 0.001, ())
    for row, ecg in enumerate(store.signals()):
        assert np.array_equal(ecg / 1000, wfdb.rdrecord(str(record(tiny_ptbxl, row + 1))).p_signal.T)
    assert store.attributes["command"] == "ecg-lightning prepare ..."
    assert store.attributes["source_version"].startswith("unknown")
    assert store.verify() == []
    assert left_over(output) == ["store.h5"]


def test_a_filtered_store_holds_the_steps_before_the_crop_in_float32(tiny_ptbxl, output):
    run(tiny_ptbxl, output, FILTERED)
    store = Store(output)
    ecg = wfdb.rdrecord(str(record(tiny_ptbxl, 7))).p_signal.T
    expected = run_record_chain(FILTERED.stored_chain, ecg, 100).astype(np.float32)
    assert (store.dtype, store.millivolts_per_unit) == (np.float32, 1.0)
    assert store.stored.chain == FILTERED.stored_chain
    assert FILTERED.misfits(store.stored) == []
    np.testing.assert_array_equal(store.signals()[6], expected)


def test_the_leads_of_the_spec_are_stored_in_its_order(tiny_ptbxl, output):
    run(tiny_ptbxl, output, SignalSpec(100, 1000, leads=("V6", "I")))
    assert np.array_equal(
        Store(output).signals()[0] / 1000, wfdb.rdrecord(str(record(tiny_ptbxl, 1))).p_signal.T[[11, 0]]
    )


@pytest.mark.parametrize("spec", [SPEC, FILTERED])
def test_two_workers_write_the_same_bytes_as_one(tiny_ptbxl, tmp_path, spec):
    run(tiny_ptbxl, tmp_path / "one.h5", spec, workers=1)
    run(tiny_ptbxl, tmp_path / "two.h5", spec, workers=2)
    run(tiny_ptbxl, tmp_path / "auto.h5", spec, workers=None)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "auto.h5").read_bytes()


def test_an_existing_store_is_kept_unless_told(tiny_ptbxl, output):
    output.parent.mkdir()
    output.write_text("precious")
    with pytest.raises(InputError, match=r"store\.h5 exists already: .*--overwrite"):
        run(tiny_ptbxl, output)
    assert output.read_text() == "precious"
    run(tiny_ptbxl, output, overwrite=True)
    assert Store(output).num_records == 40


def test_a_failed_overwrite_keeps_the_old_store(tiny_ptbxl, output):
    run(tiny_ptbxl, output)
    before = output.read_bytes()
    damage(tiny_ptbxl, 5)
    with pytest.raises(InputError, match="ecg_id 5"):
        run(tiny_ptbxl, output, FILTERED, overwrite=True)
    assert output.read_bytes() == before


def test_an_output_that_is_a_folder_is_refused(tiny_ptbxl, tmp_path):
    with pytest.raises(InputError, match=r"is a folder, a store is a file: --output"):
        run(tiny_ptbxl, tmp_path)


@pytest.mark.parametrize("arguments", [{"on_error": "ignore"}, {"workers": 0}])
def test_wrong_flags_are_usage_errors(tiny_ptbxl, output, arguments):
    with pytest.raises(UsageError, match="--on_error is stop or skip, --workers 1 or more"):
        run(tiny_ptbxl, output, **arguments)


def test_damaged_records_stop_with_all_of_them_named(tiny_ptbxl, output):
    damage(tiny_ptbxl, 5, 33)
    with pytest.raises(InputError) as told:
        run(tiny_ptbxl, output)
    for part in ("ecg_id 5: ", "00005_lr.dat is cut", "ecg_id 33: ", "--on_error skip", "38 records are finished"):
        assert part in str(told.value)
    assert not output.exists()


def test_a_mended_record_lets_the_same_command_go_on(tiny_ptbxl, output, tmp_path):
    run(tiny_ptbxl, tmp_path / "undisturbed.h5")
    whole = record(tiny_ptbxl, 5).with_suffix(".dat").read_bytes()
    damage(tiny_ptbxl, 5)
    with pytest.raises(InputError, match="ecg_id 5"):
        run(tiny_ptbxl, output)
    record(tiny_ptbxl, 5).with_suffix(".dat").write_bytes(whole)
    assert run(tiny_ptbxl, output).num_resumed == 39
    assert output.read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()


def test_skipped_records_are_taken_out_named_and_printed(tiny_ptbxl, output, capsys):
    damage(tiny_ptbxl, 1, 33)
    report = run(tiny_ptbxl, output, on_error="skip")
    store = Store(output)
    assert [ecg_id for ecg_id, _ in report.skipped] == [1, 33]
    assert "00001_lr.dat is cut" in report.skipped[0][1]
    assert store.records["ecg_id"].tolist() == [i for i in range(1, 41) if i not in (1, 33)]
    assert store.verify() == []
    assert np.array_equal(store.signals()[31] / 1000, wfdb.rdrecord(str(record(tiny_ptbxl, 34))).p_signal.T)
    assert "Skipped records: 2" in capsys.readouterr().out
    assert left_over(output) == ["store.h5"]


def test_problems_in_the_table_stop_even_when_records_are_skipped(tiny_ptbxl, output):
    rows = read_rows(tiny_ptbxl)
    rows[3]["strat_fold"] = "12"
    write_table(tiny_ptbxl, rows)
    with pytest.raises(InputError, match="strat_fold is '12'"):
        run(tiny_ptbxl, output, on_error="skip")


def test_when_no_record_can_be_read_nothing_is_left(tiny_ptbxl, output):
    damage(tiny_ptbxl, *range(1, 41))
    with pytest.raises(InputError, match=r"no record could be read: ecg_id 1: .*and 6 more"):
        run(tiny_ptbxl, output)
    assert left_over(output) == []


def test_flat_leads_are_kept_counted_and_reported(tiny_ptbxl, output, capsys):
    flat = np.random.default_rng(0).integers(-100, 100, (1000, 12)).astype(np.int16)
    flat[:, [0, 8]] = 3
    write_record(record(tiny_ptbxl, 9), flat, 100)
    assert run(tiny_ptbxl, output, progress=True).flat_leads == ((9, "I, V3"),)
    assert Store(output).records["num_flat_leads"].tolist() == [2 if i == 8 else 0 for i in range(40)]
    assert "I, V3" in capsys.readouterr().out


def test_a_record_of_another_length_is_told_even_when_it_comes_first(tiny_ptbxl, output):
    write_record(record(tiny_ptbxl, 1), np.ones((900, 12), np.int16), 100)
    with pytest.raises(InputError, match=r"ecg_id 1: .*00001_lr\.hea: it has 900 time points, the other records 1000"):
        run(tiny_ptbxl, output)


def test_values_finer_than_the_store_are_refused_unless_a_chain_makes_floats(tiny_ptbxl, output):
    digital = np.random.default_rng(0).integers(-100, 100, (1000, 12)).astype(np.int16)
    write_record(record(tiny_ptbxl, 9), digital, 100, adc_gain=[3000.0] * 12)
    with pytest.raises(InputError, match=r"ecg_id 9: .*not whole multiples of 0\.001 mV .*gain of 1000 per mV"):
        run(tiny_ptbxl, output)
    run(tiny_ptbxl, output, FILTERED)
    expected = run_record_chain(FILTERED.stored_chain, digital.T / 3000, 100)
    np.testing.assert_allclose(Store(output).signals()[8], expected, atol=1e-6)


def test_records_of_the_other_rate_are_not_there(tiny_ptbxl, output):
    with pytest.raises(
        InputError, match=r"records500 does not exist, the records of 500 Hz .*download --output .* --rate 500"
    ):
        run(tiny_ptbxl, output, SignalSpec(500, 5000))
    assert left_over(output) == [] or not output.parent.exists()


def test_records_too_short_for_the_backbone_are_refused(tiny_ptbxl, output):
    with pytest.raises(InputError, match=r"the records give 1000 time points at 100 Hz, the backbone takes 1500"):
        run(tiny_ptbxl, output, SignalSpec(100, 1500))


def test_a_full_disk_is_told_before_anything_is_written(tiny_ptbxl, output, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(InputError, match=r"has 0 MiB free, the store takes 1 MiB: make room, or name an --output"):
        run(tiny_ptbxl, output)
    assert left_over(output) == []


def test_a_disk_that_fills_up_is_told(tiny_ptbxl, output, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(
        InputError, match=r"store\.h5 cannot be written \(\[Errno 28\] No space left on device\): make room"
    ):
        run(tiny_ptbxl, output)


def test_an_output_below_a_file_is_told(tiny_ptbxl, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/store\.h5 cannot be written .*name another --output"):
        run(tiny_ptbxl, tmp_path / "file" / "store.h5")


def test_a_run_killed_while_it_took_skipped_records_out_leaves_nothing_behind(tiny_ptbxl, output):
    output.parent.mkdir()
    Journal(output).kept.write_text("half")
    run(tiny_ptbxl, output)
    assert left_over(output) == ["store.h5"]


def test_a_table_as_long_as_the_whole_of_ptbxl_must_have_its_labels(tiny_ptbxl, output):
    many_rows(tiny_ptbxl, 21799)
    with pytest.raises(
        InputError, match=r"the labels are not those of PTB-XL 1\.0\.3: patients is 20, in 1\.0\.3 18869"
    ):
        run(tiny_ptbxl, output)


def test_a_second_writer_is_refused_and_does_no_harm(tiny_ptbxl, output):
    output.parent.mkdir()
    with Journal(output):
        with pytest.raises(InputError, match=r"another process is writing .*store\.h5, one writer at a time: wait"):
            run(tiny_ptbxl, output)
        assert left_over(output) == ["store.h5.partial.journal"]
    assert run(tiny_ptbxl, output).num_records == 40


def start(tmp_path, source, output, workers, **streams):
    """Starts a run in a process of its own and waits until some records, but not all, are finished."""
    script = tmp_path / "slow_run.py"
    script.write_text(SLOW_RUN)
    process = subprocess.Popen([sys.executable, str(script), str(source), str(output), str(workers)], **streams)
    journal = Journal(output).path
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_text().count("\n") < 20:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(tiny_ptbxl, output, tmp_path, workers):
    many_rows(tiny_ptbxl, 160)
    process = start(tmp_path, tiny_ptbxl, output, workers)
    workers_left = children(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left_over(output) == ["store.h5.partial", "store.h5.partial.journal"]
    report = run(tiny_ptbxl, output, FILTERED)
    assert 0 < report.num_resumed < 160
    run(tiny_ptbxl, tmp_path / "undisturbed.h5", FILTERED)
    assert output.read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()
    assert left_over(output) == ["store.h5"]
    assert not any(alive(pid) for pid in workers_left)


def test_a_second_process_is_refused_while_the_first_finishes_its_work(tiny_ptbxl, output, tmp_path):
    many_rows(tiny_ptbxl, 160)
    process = start(tmp_path, tiny_ptbxl, output, 1)
    with pytest.raises(InputError, match="another process is writing"):
        run(tiny_ptbxl, output, FILTERED)
    assert process.wait() == 0
    store = Store(output)
    assert (store.num_records, store.verify()) == (160, [])


def interrupted(source, output, monkeypatch, spec=SPEC):
    """A run that ends before its tables are sealed."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_complete", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(source, output, spec)


def test_an_interrupted_run_is_taken_up(tiny_ptbxl, output, monkeypatch):
    interrupted(tiny_ptbxl, output, monkeypatch)
    assert run(tiny_ptbxl, output).num_resumed == 40


@pytest.mark.parametrize("change", ["table", "spec"])
def test_another_table_or_spec_starts_over_and_says_so(tiny_ptbxl, output, monkeypatch, capsys, change):
    interrupted(tiny_ptbxl, output, monkeypatch)
    if change == "table":
        many_rows(tiny_ptbxl, 39)
    report = run(tiny_ptbxl, output, FILTERED if change == "spec" else SPEC, progress=True)
    assert report.num_resumed == 0
    assert "of another source, table or signal" in report.started_over
    assert "Started over" in capsys.readouterr().out
    assert Store(output).verify() == []


def test_rows_that_never_reached_the_disk_are_done_again(tiny_ptbxl, output, monkeypatch, tmp_path):
    interrupted(tiny_ptbxl, output, monkeypatch)
    journal = Journal(output)
    with journal.partial.open("r+b") as file:
        file.seek(2048 + 24000 * 3)
        file.write(bytes(24000))
    with journal.path.open("a") as file:
        file.write("[39, 12")  # a line cut by the kill
    assert run(tiny_ptbxl, output).num_resumed == 39
    run(tiny_ptbxl, tmp_path / "undisturbed.h5")
    assert output.read_bytes() == (tmp_path / "undisturbed.h5").read_bytes()


def test_a_journal_that_cannot_be_read_starts_over(tiny_ptbxl, output, monkeypatch):
    interrupted(tiny_ptbxl, output, monkeypatch)
    with Journal(output).path.open("a") as file:
        file.write("\0\0\0\0\n")
    report = run(tiny_ptbxl, output)
    assert (report.num_records, report.num_resumed) == (40, 0)
    assert "its journal cannot be read" in report.started_over


def test_a_worker_that_dies_is_told_with_the_way_on(tiny_ptbxl, output, tmp_path):
    many_rows(tiny_ptbxl, 160)
    process = start(tmp_path, tiny_ptbxl, output, 2, stderr=subprocess.PIPE, text=True)
    for pid in children(process):
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "a worker process died" in errors
    assert "`prepare` and `synthesize` go on from here" in errors
    assert left_over(output) == ["store.h5.partial", "store.h5.partial.journal"]

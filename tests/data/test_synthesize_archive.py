import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from made_up_ptbxl import read_rows, wfdb

from ecg_lightning.cli import main
from ecg_lightning.data import record as record_module
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.ptbxl import read_table
from ecg_lightning.data.record import read_record
from ecg_lightning.data.store import Store
from ecg_lightning.data.synthesize import archive
from ecg_lightning.data.synthesize.archive import synthesize
from ecg_lightning.data.synthesize.patients import BLOCK, patient_of
from ecg_lightning.data.synthesize.record import LEADS
from ecg_lightning.data.synthesize.table import COLUMNS, record_path
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.signals import SignalSpec

REFERENCES = Path(__file__).parents[1] / "references"
RUN = """
import sys
from ecg_lightning.data.synthesize.archive import synthesize
if __name__ == "__main__":
    synthesize(sys.argv[1], int(sys.argv[2]), seed=5, workers=int(sys.argv[3]), progress=False)
"""


def write(output, num_records=12, **arguments):
    return synthesize(output, num_records, **{"seed": 5, "workers": 1, "progress": False, **arguments})


def content(folder):
    """Hash of each file below ``folder``, but for what says how many records there are."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("synthesis.json", "README.md"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def left_over(output):
    return sorted(path.name for path in output.parent.iterdir())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """70 records: more than one block of patients."""
    output = tmp_path_factory.mktemp("archive") / "tree"
    write(output, 70)
    return output


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "tree"


def test_the_tree_is_laid_out_as_ptbxl(tree):
    assert sorted(path.name for path in tree.iterdir()) == [
        "README.md", "ptbxl_database.csv", "records100", "records500", "scp_statements.csv", "synthesis.json",
    ]  # fmt: skip
    assert (tree / "scp_statements.csv").read_bytes() == (REFERENCES / "scp_statements.csv").read_bytes()
    with (tree / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert len(COLUMNS) == 28
    header = (tree / "records100/00000/00001_lr.hea").read_text().splitlines()
    assert header[0] == "00001_lr 12 100 1000"
    assert header[1].startswith("00001_lr.dat 16 1000.0(0)/mV 16 0 ")
    assert [line.split()[-1] for line in header[1:]] == list(LEADS)
    assert (tree / "records500/00000/00070_hr.dat").stat().st_size == 120_000


def test_columns_are_those_of_the_real_table(shared):
    with (shared / "ptbxl" / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


def test_ids_above_999_lie_in_the_next_folder():
    assert record_path(999, 100) == "records100/00000/00999_lr"
    assert record_path(1000, 500) == "records500/01000/01000_hr"


def test_wfdb_and_the_fast_path_read_the_same_and_checksums_hold(tree, monkeypatch):
    monkeypatch.setattr(record_module, "_wfdb", lambda: pytest.fail("the fast path was left"))
    for row in read_rows(tree)[:6]:
        for column, rate in (("filename_lr", 100), ("filename_hr", 500)):
            path = tree / row[column]
            digital = read_record(path, LEADS, rate, 10 * rate)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                theirs = wfdb.rdrecord(str(path), physical=False)
            assert np.array_equal(theirs.d_signal.T, digital)
            sums = digital.sum(axis=1, dtype=np.int64) % 65536
            assert sums.tolist() == [int(stated) % 65536 for stated in theirs.checksum]
            assert theirs.init_value == digital[:, 0].tolist()
            assert (theirs.fs, theirs.units) == (rate, ["mV"] * 12)


def test_prepare_reads_the_tree_and_the_store_says_that_it_is_simulated(tree, tmp_path):
    for rate in (100, 500):
        report = prepare(tree, tmp_path / f"{rate}.h5", SignalSpec(rate, 10 * rate), workers=1, progress=False)
        assert (report.num_records, report.flat_leads) == (70, ())
    store = Store(tmp_path / "100.h5")
    assert store.attributes["source_version"].startswith("simulated: seed 5, prevalence natural")
    assert store.verify() == []


def test_as_many_records_as_ptbxl_has_are_not_held_against_it(tree, tmp_path, monkeypatch):
    counts = {"records": 70, "csv_sha256": ""}
    monkeypatch.setattr("ecg_lightning.data.labels.ptbxl_103_counts", lambda: counts | {"patients": -1})
    prepare(tree, tmp_path / "a.h5", SignalSpec(100, 1000), workers=1, progress=False)
    shutil.copytree(tree, tmp_path / "not_ours")
    (tmp_path / "not_ours" / "synthesis.json").unlink()
    with pytest.raises(InputError, match="the labels are not those of PTB-XL"):
        prepare(tmp_path / "not_ours", tmp_path / "b.h5", SignalSpec(100, 1000), workers=1, progress=False)


def test_a_patient_is_in_one_fold_and_has_several_records(tree):
    folds, records = defaultdict(set), defaultdict(int)
    for row in read_rows(tree):
        folds[row["patient_id"]].add(row["strat_fold"])
        records[row["patient_id"]] += 1
    assert all(len(found) == 1 for found in folds.values())
    assert max(records.values()) > 1
    assert len(records) < 70
    numbers = range(20 * BLOCK)
    patients = [patient_of(0, number, "natural")[0] for number in numbers]
    per_fold = np.bincount([patient.fold for patient in patients], minlength=11)[1:]
    assert per_fold.min() > 0.7 * len(numbers) / 10
    assert len({(patient.number, patient.fold, patient.age) for patient in patients}) == len(
        {patient.number for patient in patients}
    )


def test_records_of_a_patient_share_sex_and_what_is_chronic_and_follow_in_time(tree):
    rows = defaultdict(list)
    for row in read_rows(tree):
        rows[row["patient_id"]].append(row)
    for mine in rows.values():
        assert len({row["sex"] for row in mine}) == 1
        assert [row["recording_date"] for row in mine] == sorted(row["recording_date"] for row in mine)


def test_quality_columns_name_the_leads_that_strong_noise_reaches(output):
    write(output, 200, rates=(100,))
    rows = read_rows(output)
    noted = [row for row in rows if row["baseline_drift"]]
    assert 5 < len(noted) < 40
    table = read_table(output)
    assert (table.records["static_noise"] != "").any()

    def wander(row):
        ecg = read_record(output / row["filename_lr"], LEADS, 100, 1000) / 1000
        return np.abs(np.fft.rfft(ecg - ecg.mean(axis=1, keepdims=True), axis=1)[:, 1:6]).sum(axis=1).max()

    quiet = [row for row in rows if not row["baseline_drift"] and not row["electrodes_problems"]]
    assert np.median([wander(row) for row in noted]) > 3 * np.median([wander(row) for row in quiet[:40]])


def test_likelihoods_are_0_for_rhythm_and_whole_for_diagnoses(tree):
    table = read_table(tree)
    rhythm = table.likelihood[:, table.statements.columns["rhythm"]]
    assert set(np.unique(rhythm)) <= {0, 100, 255}
    place = table.statements.codes.index("SR")
    assert set(np.unique(table.likelihood[:, place])) == {0, 255}
    diagnoses = table.likelihood[:, table.statements.columns["diagnostic"]]
    assert set(np.unique(diagnoses)) <= {15, 35, 50, 80, 100, 255}


def test_the_same_seed_gives_the_same_bytes_on_one_and_two_workers_and_first_records_for_any_number(tree, output):
    write(output, 70, workers=2)
    assert content(output) == content(tree)
    fewer = output.with_name("fewer")
    write(fewer, 9)
    assert {name: sha for name, sha in content(fewer).items() if name.startswith("records")} == {
        name: content(tree)[name] for name in content(fewer) if name.startswith("records")
    }
    assert read_rows(fewer) == read_rows(tree)[:9]


def test_another_seed_gives_other_bytes(tree, output):
    write(output, 5, seed=6)
    ours, theirs = content(output), content(tree)
    assert not [name for name in ours if name.endswith(".dat") and ours[name] == theirs[name]]


def test_one_rate_alone_gives_the_same_records(tree, output):
    write(output, 4, rates=(100,))
    assert not (output / "records500").exists()
    assert content(output)["records100/00000/00003_lr.dat"] == content(tree)["records100/00000/00003_lr.dat"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_and_equals_one_that_was_not(output, tree, workers):
    output.parent.mkdir()
    script = output.parent / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(output), "70", str(workers)]
    process = subprocess.Popen(command, start_new_session=True)
    partial_folder = output.with_name("tree.partial")
    while len(list(partial_folder.rglob("*.hea"))) < 12:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    cut = next(iter(sorted(partial_folder.rglob("*_lr.dat"))))
    cut.write_bytes(cut.read_bytes()[:-2] + b"\x01\x02")
    report = write(output, 70)
    assert 3 <= report.num_resumed < 70
    assert content(output) == content(tree)
    assert left_over(output) == ["run.py", "tree"]


def test_an_unfinished_archive_of_other_settings_is_refused_and_can_be_overwritten(output, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(archive, "table_text", lambda rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(output, 3)
    with pytest.raises(InputError, match=r"tree\.partial holds an unfinished archive with another seed:.*--overwrite"):
        write(output, 3, seed=6)
    assert write(output, 3, seed=6, overwrite=True).num_resumed == 0
    assert left_over(output) == ["tree"]


def test_an_unfinished_archive_without_settings_is_begun_anew_unless_it_holds_something_else(output):
    partial_folder = output.with_name("tree.partial")
    partial_folder.mkdir(parents=True)
    write(output, 2)
    shutil.rmtree(output)
    partial_folder.mkdir()
    (partial_folder / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"tree\.partial is in the way and no unfinished archive"):
        write(output, 2, overwrite=True)
    assert (partial_folder / "thesis.txt").read_text() == "mine"


def test_an_output_that_exists_is_refused_and_only_archives_are_overwritten(output):
    write(output, 2)
    before = content(output)
    with pytest.raises(InputError, match=r"tree exists already:.*--overwrite"):
        write(output, 2)
    write(output, 2, seed=6, overwrite=True)
    assert content(output) != before
    assert left_over(output) == ["tree"]
    (output / "synthesis.json").unlink()
    with pytest.raises(InputError, match=r"tree is no simulated archive .*--overwrite replaces nothing else"):
        write(output, 2, overwrite=True)
    assert (output / "ptbxl_database.csv").is_file()


def test_a_second_writer_is_refused(output):
    output.parent.mkdir()
    with archive._alone(output), pytest.raises(InputError, match="another process is writing"):
        write(output, 2)


def test_a_full_disk_is_told_before_anything_is_written(output, monkeypatch):
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InputError, match=r"0 MiB free, 3 records take 0 MiB: make room.*one --rate"):
        write(output, 3)
    assert not output.with_name("tree.partial").exists()


def test_a_disk_that_fills_up_is_told_with_the_way_on(output, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "write_record", full)
        with pytest.raises(InputError, match=r"cannot be written .*No space left.*the same command goes on"):
            write(output, 3)
    assert not output.exists()
    write(output, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "0"], r"records is 0: --records 1 or more"),
        (["--records", "3", "--seed", "-1"], r"seed is -1: --seed 0 or more"),
        (["--records", "3", "--workers", "0"], r"workers is 0"),
        (["--records", "3", "--rate", "250"], r"rate"),
        (["--records", "3", "--prevalence", "rare"], r"prevalence"),
    ],
)
def test_settings_that_make_no_archive_end_with_2(arguments, message, output, capsys):
    assert main(["synthesize", "--output", str(output), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not output.parent.exists()


def test_all_wrong_settings_are_told_at_once(output):
    with pytest.raises(UsageError, match=r"records is 0.*seed is -2.*rates are \(250,\)"):
        synthesize(output, 0, seed=-2, rates=(250,))


def test_the_command_writes_an_archive_and_says_what_comes_next(output, capsys):
    assert main(["synthesize", "--output", str(output), "--records", "2", "--seed", "5", "--rate", "100"]) == 0
    out = capsys.readouterr().out
    assert f"{output}: 2 simulated records" in out
    assert f"prepare --source {output}" in out
    assert json.loads((output / "synthesis.json").read_text())["seed"] == 5
    assert "No patient is behind any record" in (output / "README.md").read_text()

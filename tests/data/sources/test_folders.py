import csv
import math
import shutil
from importlib.resources import files

import numpy as np
import pytest
from made_up_ptbxl import wfdb

from ecg_lightning.chains import Bandpass, Crop, ZScore
from ecg_lightning.data.formats import Layout
from ecg_lightning.data.labels import class_names, label_counts, task_labels
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.sources import SourceOptions, read_source
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.inspection import inspect_store
from ecg_lightning.signals import SignalSpec

HEADERS = {  # Age, Sex and Dx as text, in one of the spellings that are out there
    "a/E1": "# Age: 77\n# Sex: Female\n# Dx: 253352002,427084000\n",
    "a/E2": "#Age: NaN\n#Sex: Unknown\n#Dx: 426783006\n",
    "b/E3": "# Age: -1\n# Sex: M\n# Dx: 164889003, 999999\n",
    "b/E4": "# Age: 30\n# Sex: Male\n# Dx: Unknown\n",
}


@pytest.fixture
def folder(tmp_path):
    """Headers alone: nothing else of a record is read before the conversion."""
    for name, comments in HEADERS.items():
        path = tmp_path / "cinc" / f"{name}.hea"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.stem} 1 500 5000\n{path.stem}.mat 16 1000/mV 16 0 0 0 0 I\n{comments}")
    return tmp_path / "cinc"


def read(path, **options):
    return read_source(path, SourceOptions(**{"fold": 10, **options}), 500)


def test_age_sex_and_codes_are_read_from_the_headers(folder):
    source = read(folder)
    assert (source.kind, source.paths) == ("wfdb", ("a/E1.hea", "a/E2.hea", "b/E3.hea", "b/E4.hea"))
    ages = source.records["age"].tolist()
    assert (ages[0], ages[3]) == (77, 30)
    assert math.isnan(ages[1])
    assert math.isnan(ages[2])
    assert source.records["sex"].tolist() == [1, -1, 0, 0]
    assert source.records["name"].tolist() == ["a/E1", "a/E2", "b/E3", "b/E4"]
    labels = task_labels(source.likelihood, source.statements, "cinc2021")
    assert labels[:, class_names(source.statements, "cinc2021").index("AF")].tolist() == [0, 0, 1, 255]


def test_what_was_not_understood_is_told(folder):
    notes = " ".join(read(folder).notes)
    assert "1 records have an age that is none, taken as unknown: -1" in notes
    assert "codes without a row in the table, in no task: 999999 (1 records)" in notes
    assert "1 of 4 records have no codes (Dx)" in notes


def test_a_change_in_any_header_changes_the_hash(folder):
    before = read(folder).attributes["source_sha256"]
    assert read(folder).attributes["source_sha256"] == before
    header = folder / "a/E1.hea"
    header.write_text(header.read_text().replace("427084000", "427084001"))
    assert read(folder).attributes["source_sha256"] != before


def test_headers_without_codes_give_a_source_without_tasks(folder):
    for header in folder.rglob("*.hea"):
        header.write_text(header.read_text().split("#")[0])
    source = read(folder)
    assert (dict(source.statements.tasks), source.likelihood.shape) == ({}, (4, 0))
    assert any("no header has codes (Dx)" in note for note in source.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("a",), "task": "x"}, "--labels, --task say nothing about a folder of WFDB records"),
        ({"layout": Layout(sampling_rate=500)}, "--sampling_rate, --leads, --unit say nothing about a folder of WFDB"),
        ({"kind": "ptbxl", "fold": None, "seconds": 5.0}, "--seconds say nothing about PTB-XL"),
        ({"kind": "files", "codes": "t.csv"}, "--codes say nothing about a folder of files"),
    ],
)
def test_flags_that_say_nothing_about_the_kind_are_refused(folder, options, message):
    with pytest.raises(UsageError, match=message):
        read(folder, **options)


def test_a_kind_that_the_path_is_not_is_refused(folder):
    with pytest.raises(InputError, match=r"is a folder, --kind manifest is a manifest: name the csv itself"):
        read(folder, kind="manifest")
    with pytest.raises(InputError, match=r"E1\.hea is a file, --kind wfdb is a folder .*name the folder"):
        read(folder / "a/E1.hea", kind="wfdb")


@pytest.mark.parametrize("part", ["records100", "records100/00000"])
def test_a_part_of_ptbxl_is_refused_with_the_folder_that_was_meant(tiny_ptbxl, part):
    """Its records would be patients of their own, spread over all folds."""
    inside = tiny_ptbxl / part
    assert inside.is_dir()
    with pytest.raises(InputError, match=r"is a part of .*ptbxl_database\.csv says .*: --source ") as raised:
        read_source(inside, SourceOptions(), 100)
    assert f"--source {tiny_ptbxl.resolve()}; its files alone, each a patient: --kind wfdb" in str(raised.value)
    assert len(read_source(inside, SourceOptions(kind="wfdb"), 100).paths) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "edf"}, "--kind is 'edf', it must be one of ptbxl, wfdb, files, manifest"),
        ({"seconds": 0.0}, "--seconds is 0, it must be a positive number"),
        ({"folds": 1}, "--folds is 1, it must lie from 2 to 100"),
        ({"fold": 0}, "--fold is 0, it must lie from 1 to 100"),
        ({"folds": 5, "fold": 5}, "--folds 5 makes folds, --fold 5 puts all records into one: choose either"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SourceOptions(**options)


@pytest.fixture
def arrays(tmp_path):
    """12 files of 11 s at 250 Hz and 8 leads, in uV."""
    random = np.random.default_rng(0)
    (tmp_path / "arrays").mkdir()
    for index in range(12):
        time = np.arange(2750) / 250
        wave = 500 * np.sin(2 * np.pi * 3 * time + np.arange(8)[:, None]) + random.normal(0, 20, (8, 2750))
        np.save(tmp_path / "arrays" / f"{index:02d}.npy", wave.astype(np.float32))
    return tmp_path / "arrays"


LAYOUT = Layout(250, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), "uV")


def test_plain_files_give_a_store_without_labels_for_pre_training(arrays, tmp_path, capsys):
    options = SourceOptions(layout=LAYOUT)
    report = prepare(
        arrays, tmp_path / "s.h5", SignalSpec(100, 1000), workers=1, progress=False, options=options, command="c"
    )
    store = Store(tmp_path / "s.h5")
    assert (report.num_records, store.dtype, store.signals().shape) == (12, np.float32, (12, 12, 1000))
    assert (dict(store.statements.tasks), store.likelihood.shape) == ({}, (12, 0))
    with pytest.raises(InputError, match="no task 'all': the store has no labels, so nothing can be fitted"):
        class_names(store.statements, "all")
    assert sorted(set(store.records["strat_fold"].tolist())) == [*range(1, 11)]
    assert store.records["source_sampling_rate"].tolist() == [250] * 12
    assert store.records["source_num_time_points"].tolist() == [2750] * 12
    out = capsys.readouterr().out
    for said in (
        "resampled from 250 to 100 Hz (polyphase, anti-aliased): 12 records",
        "cut to its first 1000 of 1100 time points: 12 records",
        "III, aVR, aVL, aVF derived from I and II (Einthoven, Goldberger): 12 records",
    ):
        assert said in out.replace("\n", " ")
    assert "the first 10 s of longer records" in store.attributes["conforming"]
    inspect_store(tmp_path / "s.h5", verify=True)
    assert "12 of 250 Hz" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_the_signal_of_a_plain_file_is_what_scipy_makes_of_it(arrays, tmp_path):
    from scipy.signal import resample_poly

    prepare(
        arrays, tmp_path / "s.h5", SignalSpec(100, 1000, leads=("V1", "II")), workers=1, progress=False,
        options=SourceOptions(layout=LAYOUT),
    )  # fmt: skip
    stored = Store(tmp_path / "s.h5").signals()[3]
    values = np.load(arrays / "03.npy")[[2, 1]].astype(np.float64) / 1000
    expected = resample_poly(values, 2, 5, axis=1, padtype="line")[:, :1000]
    np.testing.assert_allclose(stored, expected, atol=1e-6)


def test_seconds_keep_longer_records_and_shorter_than_needed_is_refused(arrays, tmp_path):
    def run(seconds):
        options = SourceOptions(layout=LAYOUT, seconds=seconds)
        prepare(arrays, tmp_path / "s.h5", SignalSpec(250, 2000), workers=1, progress=False, options=options)
        return Store(tmp_path / "s.h5").stored.num_time_points

    with pytest.raises(UsageError, match=r"--seconds is 7, the backbone takes 8 s: leave it out, or make it longer"):
        run(7)
    with pytest.raises(
        InputError, match=r"00\.npy: it lasts 11 s \(2750 .*, the network takes 11\.5 s .*leave this one out"
    ):
        run(11.5)
    assert run(10.5) == 2625


def test_the_chain_runs_behind_the_resampling(arrays, tmp_path):
    chain = (Bandpass(0.5, 40.0), Crop(), ZScore())
    prepare(
        arrays, tmp_path / "s.h5", SignalSpec(100, 1000, chain=chain), workers=1, progress=False,
        options=SourceOptions(layout=LAYOUT),
    )  # fmt: skip
    store = Store(tmp_path / "s.h5")
    assert (store.stored.chain, store.dtype) == (chain[:1], np.float32)


def test_files_without_a_layout_say_which_flags_they_need(arrays, tmp_path):
    with pytest.raises(InputError, match=r"give --sampling_rate 500.*give --leads I,II"):
        prepare(arrays, tmp_path / "s.h5", SignalSpec(100, 1000), workers=1, progress=False)


CINC_BY_HAND = {  # Dx of three headers, looked up by hand in dx_mapping_scored.csv and dx_mapping_unscored.csv
    "E07503": ({"STach"}, {"STACH"}, {"LAO/LAE"}, {"HYP"}),  # 253352002 left atrial abnormality, 427084000
    "JS20007": ({"PAC|SVPB", "SB", "TInv", "TAb"}, {"SBRAD"}, set(), set()),  # 284470004 426177001 59931005 164934002
    "JS20001": ({"PAC|SVPB", "STach", "NSIVCB"}, {"STACH"}, {"IVCD"}, {"CD"}),  # 284470004 427084000 698252002
}


@pytest.mark.parametrize(("rate", "dtype"), [(100, np.float32), (500, np.int16)])
def test_real_records_of_the_challenge_become_a_store(shared, tmp_path, rate, dtype):
    report = prepare(
        shared / "cinc2021", tmp_path / "cinc.h5", SignalSpec(rate, 10 * rate), workers=1, progress=False,
        options=SourceOptions(fold=10),
    )  # fmt: skip
    store = Store(tmp_path / "cinc.h5")
    assert (store.num_records, store.dtype, store.stored.num_time_points) == (18, dtype, 10 * rate)
    assert store.verify() == []
    assert [ecg_id for ecg_id, _ in report.doubts] == [14, 18]
    names = store.records["name"].tolist()
    for name, expected in CINC_BY_HAND.items():
        row = names.index(name)
        for task, labels in zip(("cinc2021", "rhythm", "diagnostic", "superdiagnostic"), expected, strict=True):
            got = task_labels(store.likelihood, store.statements, task)[row]
            assert {
                label for label, value in zip(class_names(store.statements, task), got, strict=True) if value == 1
            } == labels
    assert store.records["age"][names.index("E07503")] == 77
    assert store.records["sex"][names.index("E07503")] == 1
    if rate == 500:
        for row, name in enumerate(names):
            ecg = wfdb.rdrecord(str(shared / "cinc2021" / name)).p_signal.T
            np.testing.assert_array_equal(store.signals()[row] / 1000, ecg)


def test_label_counts_of_the_real_headers_are_those_of_plain_python(shared):
    source = read(shared / "cinc2021")
    with files("ecg_lightning.data").joinpath("snomed.csv").open(newline="") as file:
        label_of = {row["snomed_code"]: row["cinc2021"] for row in csv.DictReader(file)}
    expected: dict[str, int] = {}
    for header in sorted((shared / "cinc2021").glob("*.hea")):
        dx = next(line for line in header.read_text().splitlines() if line.startswith("# Dx"))
        for label in {label_of[code] for code in dx.split(": ")[1].split(",")} - {""}:
            expected[label] = expected.get(label, 0) + 1
    counts = label_counts(
        source.likelihood, source.statements, source.records["strat_fold"], source.records["patient_id"]
    )
    got = counts["tasks"]["cinc2021"]["positives_per_class"]
    assert {label: number for label, number in got.items() if number} == expected


def test_a_stopped_conversion_of_real_records_goes_on_and_gives_the_same_bytes(shared, tmp_path):
    folder = tmp_path / "cinc"
    shutil.copytree(shared / "cinc2021", folder)
    whole = prepare(folder, tmp_path / "whole.h5", SignalSpec(500, 5000), workers=1, progress=False)
    cut = folder / "JS20005.mat"
    content = cut.read_bytes()
    cut.chmod(0o644)
    cut.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"ecg_id 15: .*JS20005\.mat is cut.*17 records are finished"):
        prepare(folder, tmp_path / "s.h5", SignalSpec(500, 5000), workers=1, progress=False)
    cut.write_bytes(content)
    report = prepare(folder, tmp_path / "s.h5", SignalSpec(500, 5000), workers=1, progress=False)
    assert (report.num_resumed, report.doubts, report.notes) == (17, whole.doubts, whole.notes)
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()

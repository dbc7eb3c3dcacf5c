import base64
import copy
import io
import json

import numpy as np
import pytest
from made_up_ptbxl import read_rows, signal, write_record, write_table
from page_reader import read_page
from PIL import Image

from ecg_lightning.chains import Bandpass, Crop, ZScore
from ecg_lightning.data.labels import UNKNOWN, Statements, Task, label_counts
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError
from ecg_lightning.report import quality
from ecg_lightning.report.store_page import drawn_records, store_page, write_store_page
from ecg_lightning.signals import SignalSpec

ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def source(make_ptbxl):
    """Of 40 records: one above 89, one without age, one without sex, one with a note, one with a dead lead V2."""
    folder = make_ptbxl()
    rows = read_rows(folder)
    rows[0]["age"] = "300.0"
    rows[4]["sex"] = ""
    rows[7]["baseline_drift"] = ATTACK
    write_table(folder, rows)
    digital = signal(2, 100, 1000, np.random.default_rng(0))
    digital[:, 7] = 0
    write_record(folder / rows[2]["filename_lr"], digital, 100)
    return folder


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "some.h5"
    prepare(source, path, SignalSpec(100, 1000), workers=1, progress=False)
    return Store(path)


@pytest.fixture(scope="module")
def found(store):
    """The whole page, read; drawn once, since twenty ECGs take their time."""
    return read_page(store_page(store))


@pytest.fixture
def two_ecgs(monkeypatch):
    """Pages of two ECGs, not twenty."""
    monkeypatch.setattr("ecg_lightning.report.store_page.NUM_ECGS", 2)


def counts_of(store):
    return label_counts(store.likelihood, store.statements, store.records["strat_fold"], store.records["patient_id"])


def numbers(cells):
    return [int(cell.replace(",", "")) for cell in cells]


# --- the page as such ---


def test_the_page_is_whole_and_needs_nothing_from_outside(found):
    assert found.external == []
    assert "script" not in found.tags
    assert found.tags.count("img") == 20
    for anchor in ("folds", "tasks", "statements", "people", "quality", "ecgs"):
        assert anchor in found.ids


def test_the_page_is_small(store, found):
    # What grows with the store is the list of records with faults, which ends at 500.
    assert sum(len(place) for _, place in found.references) < 4e6


def test_no_more_than_500_records_are_listed(store, two_ecgs, monkeypatch):
    monkeypatch.setattr("ecg_lightning.report.quality_section.NUM_LISTED", 10)
    few = read_page(store_page(store))
    assert len(few.table_of("record")) == 1 + 10
    assert "30 more are not listed" in few.text


def test_the_page_says_what_the_store_is(store, found):
    rows = {row[0]: row[1] for row in found.tables[0]}
    assert rows["records"] == f"40 of {len(np.unique(store.records['patient_id']))} patients"
    assert rows["signal"] == "12 leads, 10 s at 100 Hz, int16: I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
    assert rows["chain"] == "none: an unfiltered copy of the source"
    assert store.attributes["sha256"] in rows["sha256 of the tables"]
    assert "Research software: not a medical device" in found.text


def test_filtered_signals_are_said_to_be_filtered(source, tmp_path, two_ecgs):
    spec = SignalSpec(100, 1000, chain=(Bandpass(0.67, 40.0), Crop(), ZScore()))
    prepare(source, tmp_path / "filtered.h5", spec, workers=1, progress=False)
    text = read_page(store_page(Store(tmp_path / "filtered.h5"))).text
    assert "Filtered signals, not as recorded: bandpass (low 0.67, high 40, order 4)." in text
    assert "Not measured: the store's signals are filtered" in text


def test_the_same_store_and_seed_give_the_same_page(store, two_ecgs):
    assert store_page(store, seed=3) == store_page(store, seed=3) != store_page(store, seed=4)


# --- counts ---


def test_the_counts_of_statements_tasks_and_folds_are_those_of_the_labels(store, found):
    counts = counts_of(store)
    folds = found.table_of("fold")
    assert numbers(row[2] for row in folds.values() if row[2].isdigit()) == [*counts["records_per_fold"].values(), 40]
    task = counts["tasks"]["all"]
    rows = found.table_of("code")
    assert rows.keys() - {"code"} == set(task["classes"])
    for code, total in task["positives_per_class"].items():
        assert numbers([rows[code][0], *rows[code][4:]]) == [
            total,
            *task["positives_per_class_per_fold"][code].values(),
        ]
        assert rows[code][1] == f"{100 * total / 40:.1f} %"
    assert rows["AFIB"][2:4] == ["atrial fibrillation", "rhythm"]
    assert rows["NDT"][2:4] == ["non-diagnostic T abnormalities", "diagnostic (STTC), form"]
    for name, task in counts["tasks"].items():
        labelled = [task["labelled_records"], task["unlabelled_records"], *task["labelled_records_per_split"].values()]
        assert numbers(found.table_of("task")[name])[2:] == labelled
    for name in ("subdiagnostic", "superdiagnostic"):
        rows = found.table_of(name)
        for label, total in counts["tasks"][name]["positives_per_class"].items():
            per_fold = counts["tasks"][name]["positives_per_class_per_fold"][label]
            assert numbers(rows[label]) == [total, *per_fold.values()]


def test_counts_of_the_real_excerpt_equal_the_reference(shared, tmp_path, two_ecgs):
    prepare(shared / "ptbxl", tmp_path / "real.h5", SignalSpec(100, 1000), progress=False)
    found = read_page(store_page(Store(tmp_path / "real.h5")))
    reference = json.loads((shared / "references" / "ptbxl_sample_label_counts.json").read_text())
    rows = found.table_of("code")
    for code, total in reference["tasks"]["all"]["positives_per_class"].items():
        assert numbers(rows[code][:1]) == [total]


def test_ages_above_89_are_never_300_and_unknown_ones_are_unknown(store, found):
    rows = found.table_of("age in years")
    assert rows["age in years"] == ["female", "", "", "male", "sex unknown"]
    age, sex = store.records["age"], store.records["sex"]
    for name, of_age in {
        "above 89": age == 300,
        "unknown": np.isnan(age),
        "20 to 29": (age >= 20) & (age < 30),
    }.items():
        expected = [int((of_age & (sex == code)).sum()) for code in (1, 0, -1)]
        assert numbers([rows[name][0], *rows[name][3:]]) == expected
    assert numbers([rows["all"][0], *rows["all"][3:]]) == [int((sex == code).sum()) for code in (1, 0, -1)]
    assert not any("300" in name for name in rows)


def test_faults_are_counted_by_lead_and_listed_by_record(found):
    by_lead = found.table_of("lead")
    assert by_lead["lead"][:4] == ["flat", "clipped", "noisy", "wander"]
    assert (by_lead["V2"][0], by_lead["V1"][0], by_lead["any lead"][0]) == ("1", "0", "1")
    listed = found.table_of("record")
    assert listed["3"][0] == "V2"
    assert [row[0] for name, row in listed.items() if name not in ("3", "record")] == [""] * 39


def test_listed_records_link_to_the_pictures_that_are_there(store, found):
    drawn = {f"#ecg-{store.records['ecg_id'][row]}" for row in drawn_records(40, 0)}
    links = [place for tag, place in found.references if place.startswith("#ecg-")]
    assert set(links) == drawn


def test_ptbxl_notes_are_counted_beside_our_measures(found):
    rows = found.table_of("measured here")
    assert rows["noisy"] == ["static_noise or burst_noise", "40", "1", "1"]
    assert rows["flat"] == ["electrodes_problems", "1", "0", "0"]


def test_a_large_store_is_said_to_be_looked_at_in_part(store, monkeypatch, two_ecgs):
    monkeypatch.setattr(quality, "NUM_LOOKED_AT", 15)
    text = read_page(store_page(store, seed=5)).text
    assert "Looked at: 15 of 40 records, drawn with seed 5; --all_records looks at all." in text
    assert "Looked at: all 40 records." in read_page(store_page(store, all_records=True)).text


# --- the twenty ---


def test_the_pictures_are_of_the_drawn_records_with_their_head(store, found):
    rows = drawn_records(40, 0)
    assert len(set(rows)) == 20
    for row in rows:
        assert (
            f"Record {store.records['ecg_id'][row]} · patient {store.records['patient_id'][row]} · fold" in found.text
        )
    data = [place for tag, place in found.references if tag == "img"]
    for place in data[:2]:
        image = Image.open(io.BytesIO(base64.b64decode(place.removeprefix("data:image/png;base64,"))))
        assert image.width == int(265 / 25.4 * 120)


def test_a_store_of_few_records_shows_them_all():
    assert drawn_records(3, 0) == [0, 1, 2]


# --- other sources, unsafe text ---


def other(store, **changes):
    """``store`` as another source would have made it."""
    made = copy.copy(store)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_text_from_csv_files_is_never_markup(store, two_ecgs):
    columns = store.statements.to_columns()
    columns["codes"] = np.array([ATTACK if code == "NORM" else code for code in columns["codes"]])
    columns["subclass"] = np.array([f"{name}<b>" if name == "NORM" else name for name in columns["subclass"]])
    drawn = drawn_records(40, 0)[0]
    records = {name: store.records[name] for name in store.records}
    records["static_noise"] = np.array([ATTACK] * 40)
    attributes = {**store.attributes, "source": ATTACK, "command": ATTACK}
    made = other(store, statements=Statements.from_columns(columns), records=records, attributes=attributes)
    text = store_page(made)
    found = read_page(text)
    assert "<script" not in text
    assert {"script", "b"}.isdisjoint(found.tags)
    assert ATTACK in found.table_of("code")
    assert f"noted by PTB-XL: static noise: {ATTACK}" in found.text
    assert f"Record {store.records['ecg_id'][drawn]}" in found.text


def test_a_source_with_tasks_and_folds_of_its_own_has_a_page(store, two_ecgs):
    likelihood = np.full((40, 3), 255, np.uint8)
    likelihood[:7, 0], likelihood[5:9, 1], likelihood[9, 1] = 100, 100, UNKNOWN
    records = {name: store.records[name] for name in store.records}
    records["strat_fold"] = np.array([0, 77] * 20, np.int8)
    tasks = {"outcome": Task(("dead", "dead", ""), complete=True), "site": Task(("", "", "north"), complete=False)}
    statements = Statements(("x1", "x2", "n"), tasks)
    found = read_page(store_page(other(store, statements=statements, likelihood=likelihood, records=records)))
    assert found.table_of("code")["x1"] == ["7", "17.5 %", "", "outcome", "4", "3"]
    assert found.table_of("task")["outcome"][:4] == ["1", "0", "39", "1"]
    assert found.table_of("outcome")["dead"] == ["9", "5", "4"]
    assert found.table_of("fold").keys() == {"fold", "0", "77", "all"}
    assert "In 1 cases it is not known whether a record carries one." in found.text
    assert "PTB-XL, Wagner" not in found.text


def test_a_source_without_statements_ages_or_notes_has_a_page(store, two_ecgs):
    records = {name: store.records[name] for name in ("ecg_id", "patient_id", "strat_fold")}
    records["name"] = np.array([f"E{row:05}" for row in range(40)])
    found = read_page(
        store_page(other(store, statements=Statements((), {}), likelihood=np.zeros((40, 0), np.uint8), records=records))
    )
    assert "The store holds no labels" in found.text
    assert "The source gives no statements." in found.text
    assert "The source gives no ages, or no sexes." in found.text
    drawn = np.random.default_rng(0).choice(40, 2, replace=False).min()
    assert f"Record E{drawn:05} · patient" in found.text
    assert "Beside PTB-XL" not in found.text


# --- the file ---


def test_the_page_is_written_beside_nothing_else(store, tmp_path, monkeypatch, two_ecgs):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert [str(write_store_page(store))] == ["some.html"] == [path.name for path in folder.iterdir()]
    with pytest.raises(
        InputError, match=r"some\.html: there already; name another file, or replace it with --overwrite"
    ):
        write_store_page(store)
    write_store_page(store, overwrite=True)


def test_nothing_is_left_of_a_page_that_could_not_be_made(store, tmp_path, monkeypatch, two_ecgs):
    folder = tmp_path / "here"
    folder.mkdir()

    def fails(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", fails)
    with pytest.raises(OSError, match="no space"):
        write_store_page(store, folder / "page.html")
    assert list(folder.iterdir()) == []

import json

import pytest

from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError
from ecg_lightning.inspection import inspect_store
from ecg_lightning.signals import SignalSpec


@pytest.fixture
def store(tiny_ptbxl, tmp_path):
    prepare(tiny_ptbxl, tmp_path / "store.h5", SignalSpec(100, 1000), workers=1, progress=False, command="prepare me")
    return tmp_path / "store.h5"


def test_the_tables_name_signal_versions_and_counts(store, capsys):
    inspect_store(store, verify=True)
    printed = capsys.readouterr().out
    for part in ("1000 time points at 100 Hz, int16", "prepare me", "all as written", "superdiagnostic: 5 classes"):
        assert part in printed


def test_json_is_valid_and_equals_what_is_returned(store, capsys):
    summary = inspect_store(store, json=True)
    assert json.loads(capsys.readouterr().out) == summary
    assert summary["tasks"]["superdiagnostic"]["classes"] == ["CD", "HYP", "MI", "NORM", "STTC"]
    assert summary["damaged_records"] is None
    assert summary["records"] == 40


def test_json_counts_of_the_real_excerpt_equal_the_reference(shared, tmp_path, capsys):
    prepare(shared / "ptbxl", tmp_path / "real.h5", SignalSpec(100, 1000), progress=False)
    inspect_store(tmp_path / "real.h5", json=True)
    reference = json.loads((shared / "references" / "ptbxl_sample_label_counts.json").read_text())
    printed = json.loads(capsys.readouterr().out)
    for key in ("records", "patients", "splits", "records_per_fold", "records_per_split", "tasks"):
        assert printed[key] == reference[key]
    assert printed["csv_sha256"] == reference["ptbxl_database_csv"]["sha256"]


def test_damaged_signals_are_an_error_that_names_them(store, capsys):
    offset = Store(store).signals().offset
    content = bytearray(store.read_bytes())
    content[offset] ^= 1
    store.write_bytes(content)
    inspect_store(store)
    with pytest.raises(InputError, match=r"1 of 40 signals are not what was written: ecg_id 1; make it again"):
        inspect_store(store, verify=True)
    assert "1 differ" in capsys.readouterr().out


# --- pictures and pages, from the command line ---


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("ecg_lightning.report.store_page.NUM_ECGS", 1)
    return folder


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("STORE", "--plot", "17", "18"),
        ("--plot", "17", "18", "STORE"),
        ("STORE", "--plot", "17,18"),
        ("STORE", "--plot=17,18"),
        ("--target", "STORE", "--plot", "17", "18", "--overwrite"),
    ],
)
def test_ecgs_are_drawn_however_their_ids_are_given(store, here, capsys, arguments):
    assert main(["inspect", *(str(store) if part == "STORE" else part for part in arguments)]) == 0
    assert capsys.readouterr().out.split() == ["ecg_17.png", "ecg_18.png"] == files(here)


def test_the_output_is_named_by_a_flag_and_kept_unless_told_otherwise(store, here, capsys):
    command = ["inspect", str(store), "--plot", "17", "18", "--output", "both.pdf"]
    assert main(command) == 0
    assert files(here) == ["both.pdf"]
    assert main(command) == 1
    assert "both.pdf: there already; name another file, or replace it with --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_the_page_has_a_name_of_its_own_or_the_stores(store, here, capsys):
    assert main(["inspect", str(store), "--html"]) == 0
    assert main(["inspect", str(store), "--html", "page.html", "--seed", "3", "--all_records"]) == 0
    assert main(["inspect", "--html=third.html", "--overwrite", str(store)]) == 0
    assert files(here) == ["page.html", "store.html", "third.html"]
    assert capsys.readouterr().out.split() == ["store.html", "page.html", "third.html"]


def test_a_page_and_pictures_are_made_together_or_neither(store, here, capsys):
    assert main(["inspect", str(store), "--html", "--plot", "17"]) == 0
    assert files(here) == ["ecg_17.png", "store.html"]
    (here / "ecg_17.png").unlink()
    assert main(["inspect", str(store), "--html", "--plot", "17"]) == 1
    assert files(here) == ["store.html"]
    assert "store.html: there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["STORE", "--plot", "99"], 1, "has no record 99: it has 40, among them 1, 5, 9"),
        (["STORE", "--plot"], 2, "--plot lacks the ids of the records: --plot ECG_ID"),
        (["STORE", "--plot", "17", "--output", "a.gif"], 2, "drawn as .png, .pdf or .svg: --output a.pdf"),
        (["STORE", "--plot", "1", "2", "--output", "a.png"], 2, "one picture for 2 records: name a PDF"),
        (["STORE", "--output", "a.png"], 2, "--output names the picture of --plot ECG_ID"),
        (["STORE", "--html", "--output", "a.html"], 2, "the page is named so: --html a.html"),
        (["STORE", "--plot", "17", "--json"], 2, "--json and --verify belong to the tables"),
        (["--backbone", "vit", "--plot", "17"], 2, "--plot and --html look at a store: ecg-lightning inspect STORE"),
        (["--plot", "17"], 2, "inspect takes one thing to look at: STORE"),
        (["--html", "STORE"], 2, "inspect takes one thing to look at: STORE, RUN or --backbone NAME (before --plot"),
        (["nowhere.h5", "--html"], 1, "nowhere.h5 does not exist"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_with_the_way_out(store, here, capsys, arguments, code, message):
    assert main(["inspect", *(str(store) if part == "STORE" else part for part in arguments)]) == code
    assert message in capsys.readouterr().err
    assert files(here) == []

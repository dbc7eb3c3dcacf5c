import json

import pytest

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

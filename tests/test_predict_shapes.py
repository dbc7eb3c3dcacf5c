"""The same ECG with leads in another order, in another unit, at another rate or length: what `predict` makes of it."""

import json

import numpy as np
import pytest
from asked_to_predict import millivolts, predict, record_of, write_table
from made_up_ptbxl import LEADS
from tiny import of_lightning_cli

pytestmark = of_lightning_cli


@pytest.fixture
def usual(ptbxl, plain_run, tmp_path):
    """Probabilities of record 1 as it is."""
    return predict(plain_run, tmp_path / "usual.csv", "--records", record_of(ptbxl)).iloc[0, :5].to_numpy(float)


def close_to(usual, table, atol):
    np.testing.assert_allclose(table.iloc[0, :5].to_numpy(float), usual, atol=atol)


def test_the_order_and_the_names_of_leads_do_not_matter(ptbxl, plain_run, usual, tmp_path):
    path = write_table(tmp_path / "r.csv", millivolts(ptbxl)[::-1], [f"Lead {lead}" for lead in LEADS[::-1]])
    close_to(usual, predict(plain_run, tmp_path / "p.csv", "--records", path, "--sampling_rate", 100), 1e-6)


@pytest.mark.parametrize(("unit", "flags"), [(" (uV)", ()), ("", ("--unit", "uV"))])
def test_microvolts_are_taken_as_such(ptbxl, plain_run, usual, tmp_path, unit, flags):
    path = write_table(tmp_path / "r.csv", 1000 * millivolts(ptbxl), unit=unit)
    close_to(usual, predict(plain_run, tmp_path / "p.csv", "--records", path, "--sampling_rate", 100, *flags), 1e-6)


def test_microvolts_that_nobody_tells_of_are_doubted_by_name(ptbxl, plain_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # a long path leaves the reason too few for one line
    path = write_table(tmp_path / "r.csv", 1000 * millivolts(ptbxl))
    predict(plain_run, tmp_path / "p.csv", "--records", path, "--sampling_rate", 100)
    assert "it looks like uV: --unit uV" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    doubts = json.loads((tmp_path / "p.csv.json").read_text())["doubts"]
    assert "--unit uV" in doubts[str(path)][0]


def test_limb_leads_that_break_einthovens_law_are_doubted_by_name(ptbxl, plain_run, tmp_path, capsys):
    ecg = millivolts(ptbxl)
    ecg[2] = ecg[1] - ecg[0]
    ecg[3:6] = [-(ecg[0] + ecg[1]) / 2, ecg[0] - ecg[1] / 2, ecg[1] - ecg[0] / 2]
    whole = write_table(tmp_path / "whole.csv", ecg)
    swapped = write_table(tmp_path / "swapped.csv", ecg[[1, 0, *range(2, 12)]])
    predict(plain_run, tmp_path / "p.csv", "--records", whole, swapped, "--sampling_rate", 100)
    doubts = json.loads((tmp_path / "p.csv.json").read_text())["doubts"]
    assert [*doubts] == [str(swapped)]
    assert "Einthoven" in doubts[str(swapped)][0]
    assert "Doubtful records (predicted): 1" in capsys.readouterr().out


def test_leads_that_i_and_ii_settle_are_derived_and_said(ptbxl, plain_run, tmp_path, capsys):
    ecg = millivolts(ptbxl)
    ecg[2], ecg[3] = ecg[1] - ecg[0], -(ecg[0] + ecg[1]) / 2
    whole = write_table(tmp_path / "whole.csv", ecg)
    less = write_table(tmp_path / "less.csv", np.delete(ecg, [2, 3], axis=0), [*LEADS[:2], *LEADS[4:]])
    table = predict(plain_run, tmp_path / "p.csv", "--records", whole, less, "--sampling_rate", 100)
    np.testing.assert_allclose(*table.iloc[:, :5].to_numpy(float), atol=1e-6)
    assert "- III, aVR derived from I and II (Einthoven, Goldberger): 1 record\n" in capsys.readouterr().out


def test_another_rate_is_resampled_and_said(plain_run, tmp_path, capsys):
    time = np.arange(5000) / 500
    slow = np.stack([np.sin(2 * np.pi * (1 + lead / 4) * time) for lead in range(12)])
    fast, own = write_table(tmp_path / "500.csv", slow), write_table(tmp_path / "100.csv", slow[:, ::5])
    tables = [
        predict(plain_run, tmp_path / f"{rate}-p.csv", "--records", path, "--sampling_rate", rate)
        for path, rate in ((fast, 500), (own, 100))
    ]
    np.testing.assert_allclose(*(table.iloc[0, :5].to_numpy(float) for table in tables), atol=2e-3)
    assert "- resampled from 500 to 100 Hz (polyphase, anti-aliased): 1 record" in capsys.readouterr().out


def test_a_longer_record_is_cut_as_prepare_cuts_it_unless_more_is_asked_for(ptbxl, plain_run, tmp_path, capsys):
    parts = [millivolts(ptbxl, number) for number in (1, 2, 3)]
    path = write_table(tmp_path / "r.csv", np.concatenate(parts, axis=1))
    files = [record_of(ptbxl, number) for number in (1, 2, 3)]
    each = predict(plain_run, tmp_path / "each.csv", "--records", *files).iloc[:, :5].to_numpy(float)
    long = ["--records", path, "--sampling_rate", 100]
    close_to(each[0], predict(plain_run, tmp_path / "first.csv", *long), 1e-6)
    assert "- cut to its first 1000 of 3000 time points: 1 record" in capsys.readouterr().out
    all_of_it = predict(plain_run, tmp_path / "all.csv", *long, "--seconds", 30, "--windows", 3)
    close_to(each.mean(axis=0), all_of_it, 1e-6)
    middle = predict(plain_run, tmp_path / "middle.csv", *long, "--seconds", 30)
    close_to(each[1], middle, 1e-6)

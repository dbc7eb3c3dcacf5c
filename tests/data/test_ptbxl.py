import numpy as np
import pytest
from made_up_ptbxl import read_rows, write_table

from ecg_lightning.data.labels import ABSENT
from ecg_lightning.data.ptbxl import read_table
from ecg_lightning.errors import InputError


def change(source, row, **values):
    rows = read_rows(source)
    rows[row] |= values
    write_table(source, rows)


def test_the_table_is_read_in_file_order(tiny_ptbxl):
    table = read_table(tiny_ptbxl)
    rows = read_rows(tiny_ptbxl)
    assert table.records["ecg_id"].tolist() == [int(row["ecg_id"]) for row in rows]
    assert table.records["patient_id"].tolist() == [int(float(row["patient_id"])) for row in rows]
    assert table.records["static_noise"].tolist() == [row["static_noise"] for row in rows]
    assert np.isnan(table.records["age"][3])
    assert table.filenames["filename_lr"][0] == "records100/00000/00001_lr"
    assert table.likelihood[0, table.statements.codes.index("NORM")] == 100
    assert (table.likelihood[0] != ABSENT).sum() == rows[0]["scp_codes"].count(":")


def test_a_missing_table_says_what_to_name(tmp_path):
    with pytest.raises(InputError, match=r"ptbxl_database.csv does not exist: name the folder .* --source"):
        read_table(tmp_path)


def test_missing_columns_are_named_at_once(tiny_ptbxl):
    rows = [{k: v for k, v in row.items() if k not in ("pacemaker", "strat_fold")} for row in read_rows(tiny_ptbxl)]
    write_table(tiny_ptbxl, rows)
    with pytest.raises(InputError, match=r"ptbxl_database.csv lacks the columns strat_fold, pacemaker: mend it"):
        read_table(tiny_ptbxl)


def test_a_table_without_rows_is_refused(tiny_ptbxl):
    table = tiny_ptbxl / "ptbxl_database.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="it has no rows"):
        read_table(tiny_ptbxl)


def test_a_table_in_another_encoding_is_refused(tiny_ptbxl):
    table = tiny_ptbxl / "ptbxl_database.csv"
    table.write_bytes(table.read_text().encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_table(tiny_ptbxl)


@pytest.mark.parametrize("place", ["header", "row"])
def test_a_cell_longer_than_any_names_the_line(tiny_ptbxl, place):
    table = tiny_ptbxl / "ptbxl_database.csv"
    lines = table.read_text().split("\n")
    lines[place == "row"] += "x" * 200_000
    table.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"line \d does not parse as csv \(field larger than field limit"):
        read_table(tiny_ptbxl)


def test_a_table_cut_in_a_row_names_the_row(tiny_ptbxl):
    table = tiny_ptbxl / "ptbxl_database.csv"
    table.write_text(table.read_text()[:-60])
    with pytest.raises(InputError, match=r"line 41 \(ecg_id 40\): it is cut"):
        read_table(tiny_ptbxl)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scp_codes": "{'NORM': 100.0"}, "scp_codes is \"{'NORM': 100.0\", it must be a dict"),
        ({"scp_codes": "['NORM']"}, "scp_codes is \"['NORM']\", it must be a dict"),
        ({"scp_codes": "{'NRM': 100.0}"}, "code 'NRM' is not in scp_statements.csv"),
        ({"scp_codes": "{'NORM': 101.0}"}, "likelihood of NORM is 101.0, it must be a whole number from 0 to 100"),
        ({"scp_codes": "{'NORM': -1.0}"}, "likelihood of NORM is -1.0"),
        ({"scp_codes": "{'NORM': 33.5}"}, "likelihood of NORM is 33.5"),
        ({"scp_codes": "{'NORM': 'yes'}"}, "likelihood of NORM is 'yes'"),
        ({"strat_fold": "11"}, "strat_fold is '11', it must be a fold from 1 to 10"),
        ({"strat_fold": "0"}, "strat_fold is '0', it must be a fold from 1 to 10"),
        ({"patient_id": ""}, "patient_id is '', it must be a whole number"),
        ({"patient_id": "12.5"}, "patient_id is '12.5', it must be a whole number"),
        ({"patient_id": "1e300"}, "patient_id is '1e300', it must be a whole number"),
        ({"age": "old"}, "age is 'old', it must be years from 0 to 300"),
        ({"sex": "2"}, "sex is '2', it must be 0, 1 or empty"),
        ({"validated_by_human": "1"}, "validated_by_human is '1', it must be True or False"),
        ({"filename_lr": "../../secret"}, "filename_lr is '../../secret', it must be a path below the source"),
    ],
)
def test_a_damaged_cell_is_named_with_line_rule_and_fix(tiny_ptbxl, values, message):
    change(tiny_ptbxl, 4, **values)
    with pytest.raises(InputError) as told:
        read_table(tiny_ptbxl)
    assert f"line 6 (ecg_id 5): {message}" in str(told.value)
    assert "physionet.org/content/ptb-xl" in str(told.value)


def test_an_ecg_id_given_twice_names_both_lines(tiny_ptbxl):
    change(tiny_ptbxl, 4, ecg_id="1")
    with pytest.raises(InputError, match=r"line 6 \(ecg_id 1\): ecg_id 1 stands already in line 2 \(ecg_id 1\)"):
        read_table(tiny_ptbxl)


def test_a_patient_in_two_folds_is_refused(tiny_ptbxl):
    change(tiny_ptbxl, 4, strat_fold="9")
    with pytest.raises(InputError, match="patient 1004 is in the folds 5, 9, one patient belongs to one strat_fold"):
        read_table(tiny_ptbxl)


def test_all_problems_are_told_at_once(tiny_ptbxl):
    change(tiny_ptbxl, 4, strat_fold="11")
    change(tiny_ptbxl, 7, scp_codes="{'NRM': 100.0}")
    with pytest.raises(InputError, match=r"ecg_id 5\): strat_fold .*ecg_id 8\): code 'NRM'"):
        read_table(tiny_ptbxl)

import csv
import hashlib
import math

import numpy as np
import pytest

from ecg_lightning.data.labels import UNKNOWN_LABEL, class_names, labelled, task_labels
from ecg_lightning.data.sources import SourceOptions, read_source
from ecg_lightning.errors import InputError, UsageError


def manifest(folder, rows, name="mine.csv", delimiter=","):
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def rows(num_records=12, **columns):
    """``path``, ``patient``, two labels; ``columns`` are given as functions of the row's number."""
    basic = {"path": lambda i: f"ecg/{i:02d}.csv", "patient": lambda i: f"p{i // 2}", "male": lambda i: i % 2}
    every = {**basic, "afib": lambda i: ["1", "0", ""][i % 3], **columns}
    return [{name: of(i) for name, of in every.items() if of is not None} for i in range(num_records)]


def read(path, **options):
    return read_source(path, SourceOptions(**{"fold": 1, **options}), 100)


def refused(path, **options):
    with pytest.raises(InputError) as told:
        read(path, **options)
    return str(told.value)


def labels_of(source, task="mine"):
    labels = task_labels(source.likelihood, source.statements, task)
    return class_names(source.statements, task), labels, labelled(labels, source.statements, task)


def test_every_other_column_is_a_label_of_one_complete_task_named_after_the_file(tmp_path):
    source = read(manifest(tmp_path, rows()))
    names, labels, judged = labels_of(source)
    assert (source.kind, [*source.statements.tasks], names) == ("manifest", ["mine"], ("afib", "male"))
    assert labels[:, 1].tolist() == [0, 1] * 6
    assert labels[:, 0].tolist() == [1, 0, UNKNOWN_LABEL] * 4
    assert judged.all()
    assert source.paths[:2] == ("ecg/00.csv", "ecg/01.csv")
    assert source.root == tmp_path
    assert source.attributes["csv_sha256"] == hashlib.sha256((tmp_path / "mine.csv").read_bytes()).hexdigest()


def test_records_are_numbered_by_line_and_patients_by_first_appearance(tmp_path):
    named = rows(6, patient=lambda i: "xyx  z"[i] if i not in (3, 4) else "y", age=lambda i: ["", 30, "61.5"][i % 3])
    records = read(manifest(tmp_path, named)).records
    assert records["ecg_id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert records["patient_id"].tolist() == [1, 2, 1, 2, 2, 3]
    assert records["patient"].tolist() == ["x", "y", "x", "y", "y", "z"]
    assert records["name"].tolist()[0] == "ecg/00"
    assert math.isnan(records["age"][0])
    assert records["age"].tolist()[1:3] == [30, 61.5]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["0", "1", ""], [0, 1, -1]), (["male", "Female", "F"], [0, 1, 1]), (["M", "f", "0.0"], [0, 1, 0])],
)
def test_sex_is_stored_as_ptbxl_has_it(tmp_path, cells, expected):
    source = read(manifest(tmp_path, rows(3, sex=lambda i: cells[i])))
    assert source.records["sex"].tolist() == expected
    assert "sex" not in source.statements.codes


@pytest.mark.parametrize(("cell", "label"), [("TRUE", 1), ("false", 0), ("1.0", 1), (" 0 ", 0), ("", 255), ("  ", 255)])
def test_labels_may_be_spelled_as_programs_write_them(tmp_path, cell, label):
    _, labels, _ = labels_of(read(manifest(tmp_path, rows(1, male=lambda i: cell, afib=None))))
    assert labels.tolist() == [[label]]


def test_labels_and_task_can_be_named_and_the_other_columns_are_told(tmp_path):
    source = read(manifest(tmp_path, rows(ward=lambda i: "intensive")), labels=("male",), task="sex")
    assert labels_of(source, "sex")[0] == ("male",)
    assert any("columns that are no labels: afib, ward" in note for note in source.notes)


def test_how_often_a_label_is_not_known_is_told(tmp_path):
    notes = read(manifest(tmp_path, rows())).notes
    assert any("label afib is not known for 4 of 12 records" in note for note in notes)
    assert not any("label male" in note for note in notes)


def test_a_record_without_any_known_label_was_not_judged(tmp_path):
    cells = rows(3, male=lambda i: ["", "0", "1"][i], afib=lambda i: "")
    assert labels_of(read(manifest(tmp_path, cells)))[2].tolist() == [False, True, True]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_semicolons_and_tabs_divide_columns_as_well(tmp_path, delimiter):
    source = read(manifest(tmp_path, rows(), delimiter=delimiter))
    assert labels_of(source)[0] == ("afib", "male")


def test_a_manifest_without_labels_has_no_task_and_says_so(tmp_path):
    source = read(manifest(tmp_path, rows(male=None, afib=None)))
    assert (dict(source.statements.tasks), source.likelihood.shape) == ({}, (12, 0))
    assert "no column is a label: the store has no task, `fit` cannot train on it" in source.notes


def test_folds_are_those_of_the_column(tmp_path):
    source = read(manifest(tmp_path, rows(fold=lambda i: i // 2 % 5 + 1)), fold=None)
    assert source.records["strat_fold"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1, 1]


def test_made_folds_do_not_depend_on_the_order_of_the_rows(tmp_path):
    some = rows(40)
    one = read(manifest(tmp_path, some), fold=None, seed=3)
    other = read(manifest(tmp_path, some[::-1], "other.csv"), fold=None, seed=3)
    assert one.records["strat_fold"].tolist() == other.records["strat_fold"].tolist()[::-1]
    assert len(set(zip(one.records["patient"], one.records["strat_fold"], strict=True))) == 20


def test_without_patients_each_record_is_one_and_it_is_said(tmp_path):
    source = read(manifest(tmp_path, rows(patient=None)))
    assert source.records["patient_id"].tolist() == [*range(1, 13)]
    assert set(source.records["patient"].tolist()) == {""}
    assert "no patients are named: each record counts as one" in source.notes


def test_all_problems_are_told_at_once_with_their_lines(tmp_path):
    wrong = rows(
        4,
        path=lambda i: ["a", "b", "a", ""][i],
        male=lambda i: ["1", "yes", "0", "1"][i],
        age=lambda i: ["9", "10", "11", "-3"][i],
        record=lambda i: ["r1", "r2", "r1", "r4"][i],
    )
    told = refused(manifest(tmp_path, wrong))
    for problem in (
        "line 3: male is 'yes', it must be 0, 1, true, false, or empty where it is not known",
        "line 4: path a stands already in line 2",
        "line 4: record r1 stands already in line 2",
        "line 5: path is ''",
        "line 5: age is '-3', it must be years from 0 to 300",
    ):
        assert problem in told


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": None}, "has the columns patient, male, afib: one must be called path"),
        ({"fold": lambda i: "" if i == 3 else 1}, "line 5: fold is '', it must be a fold from 1 to 100, in every row"),
        ({"fold": lambda i: i + 1}, "patient p0 is in the folds 1, 2, one patient belongs to one fold"),
        ({"patient": lambda i: "x" if i else ""}, "line 2: patient is empty, other rows name theirs: fill it"),
        ({"male": lambda i: 2}, "line 2: male is '2'"),
        ({"sex": lambda i: "w"}, "line 2: sex is 'w', it must be 0, male, 1, female or empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, columns, message):
    assert message in refused(manifest(tmp_path, rows(**columns)), fold=None, folds=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,a,a\nx,1,1\n", "columns a stand twice: name each once"),
        ("path,\nx,1\n", "has the columns path, : give each a name"),
        ("path,a\nx,1,0\n", "line 2 has 3 cells, the first line has 2"),
        ("path,a\n", "it has no rows; mend the table"),
        ("", "has the columns (none): one must be called path"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    assert message in refused(tmp_path / "mine.csv")


def test_a_table_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_bytes("path,männlich\n".encode("latin-1"))
    assert "is not UTF-8 text (byte 6): save it as UTF-8" in refused(tmp_path / "mine.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("male", "vt")}, r"--labels names vt, .*mine\.csv has male, afib"),
        ({"fold": None, "folds": 5}, r"has a column fold: leave --folds and --fold out"),
        ({"codes": "codes.csv"}, r"--codes say nothing about a manifest"),
    ],
)
def test_flags_that_do_not_fit_the_manifest_are_refused(tmp_path, options, message):
    path = manifest(tmp_path, rows(fold=lambda i: 1))
    with pytest.raises(UsageError, match=message):
        read(path, **{"fold": None, **options})


def test_likelihoods_are_one_row_per_record_however_few_labels(tmp_path):
    assert read(manifest(tmp_path, rows(5, afib=None))).likelihood.shape == (5, 1)
    assert read(manifest(tmp_path, rows(5))).likelihood.dtype == np.uint8

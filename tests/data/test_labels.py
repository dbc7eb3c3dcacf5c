import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_lightning.data.labels import (
    ABSENT,
    TASKS,
    UNKNOWN,
    UNKNOWN_LABEL,
    Statements,
    Task,
    check_whole_ptbxl,
    class_names,
    label_counts,
    labelled,
    ptbxl_103_counts,
    read_statements,
    task_labels,
)
from ecg_lightning.data.ptbxl import read_table
from ecg_lightning.errors import InputError

REFERENCES = Path(__file__).parents[1] / "references"
ROWS = json.loads((REFERENCES / "small_label_table.json").read_text())["records"]
STATEMENTS = read_statements(REFERENCES / "scp_statements.csv")


def likelihood_of(codes: dict[str, float]) -> np.ndarray:
    likelihood = np.full((1, len(STATEMENTS.codes)), ABSENT, np.uint8)
    for code, value in codes.items():
        likelihood[0, STATEMENTS.codes.index(code)] = value
    return likelihood


def labels_of(codes: dict[str, float], task: str, min_likelihood: float = 0.0) -> list[str]:
    row = task_labels(likelihood_of(codes), STATEMENTS, task, min_likelihood)[0]
    return [name for name, has in zip(class_names(STATEMENTS, task), row, strict=True) if has]


def labels_by_hand(codes: dict[str, int], task: str, min_likelihood: float) -> set[str]:
    """The rule in plain Python, from the csv itself."""
    with (REFERENCES / "scp_statements.csv").open(newline="") as file:
        meaning = {row[""]: row for row in csv.DictReader(file)}
    carried = [meaning[code] for code, value in codes.items() if value >= min_likelihood]
    if task == "all":
        return {row[""] for row in carried}
    if task in ("diagnostic", "form", "rhythm"):
        return {row[""] for row in carried if row[task] == "1.0"}
    column = {"subdiagnostic": "diagnostic_subclass", "superdiagnostic": "diagnostic_class"}[task]
    return {row[column] for row in carried if row["diagnostic"] == "1.0"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_the_hand_made_table_is_reproduced(row, task):
    assert labels_of(row["scp_codes"], task) == row[task]


@settings(max_examples=60, deadline=None)
@given(
    codes=st.dictionaries(st.sampled_from(STATEMENTS.codes), st.integers(0, 100), max_size=8),
    task=st.sampled_from(TASKS),
    min_likelihood=st.sampled_from([0, 1, 50, 100]),
)
def test_vectorised_labels_equal_plain_python(codes, task, min_likelihood):
    assert set(labels_of(codes, task, min_likelihood)) == labels_by_hand(codes, task, min_likelihood)


@pytest.mark.parametrize(
    ("task", "number", "first", "last"),
    [
        ("all", 71, "1AVB", "WPW"),
        ("diagnostic", 44, "1AVB", "WPW"),
        ("subdiagnostic", 23, "AMI", "_AVB"),
        ("superdiagnostic", 5, "CD", "STTC"),
        ("form", 19, "ABQRS", "VCLVH"),
        ("rhythm", 12, "AFIB", "TRIGU"),
    ],
)
def test_classes_come_from_the_statements_in_string_order(task, number, first, last):
    names = class_names(STATEMENTS, task)
    assert (len(names), names[0], names[-1]) == (number, first, last)
    assert names == tuple(ptbxl_103_counts()["tasks"][task]["classes"])


def test_a_code_at_likelihood_0_counts_unless_a_minimum_is_asked_for():
    assert labels_of({"ASMI": 50, "NST_": 0}, "superdiagnostic") == ["MI", "STTC"]
    assert labels_of({"ASMI": 50, "NST_": 0}, "superdiagnostic", 50) == ["MI"]
    assert labels_of({"ASMI": 50, "NST_": 0}, "superdiagnostic", 50.5) == []


def test_an_unknown_task_lists_the_known():
    with pytest.raises(InputError, match="unknown task 'superclass', known are all, diagnostic, subdiagnostic"):
        class_names(STATEMENTS, "superclass")


def test_a_minimum_likelihood_outside_0_to_100_is_refused_with_the_flag():
    with pytest.raises(InputError, match=r"min_likelihood is 101, it lies from 0 to 100: --data\.min_likelihood"):
        labels_of({}, "all", 101)


def test_statements_survive_the_way_into_columns_and_back():
    back = Statements.from_columns(STATEMENTS.to_columns())
    assert (back.codes, back.tasks) == (STATEMENTS.codes, STATEMENTS.tasks)
    assert back.of_ptbxl
    for name, column in STATEMENTS.columns.items():
        assert np.array_equal(back.columns[name], column)


def test_a_source_without_labels_survives_as_well_and_its_tasks_are_refused_with_the_reason():
    back = Statements.from_columns(Statements((), {}).to_columns())
    assert (back.codes, back.tasks, back.of_ptbxl) == ((), {}, False)
    with pytest.raises(InputError, match=r"no task 'all': the store has no labels.*prepare --source MANIFEST\.csv"):
        class_names(back, "all")


OWN = Statements(
    ("a", "a2", "b"), {"mine": Task(("A", "A", "B"), complete=True), "judged": Task(("A", "A", ""), complete=False)}
)


@given(cells=st.lists(st.tuples(*[st.sampled_from([ABSENT, UNKNOWN, 0, 30, 100])] * 3), min_size=1, max_size=6))
def test_a_label_is_positive_by_any_statement_unknown_by_any_unknown_and_negative_otherwise(cells):
    labels = task_labels(np.array(cells, np.uint8), OWN, "mine", 30)
    for (a, a2, b), row in zip(cells, labels.tolist(), strict=True):
        for label, values in zip(row, ((a, a2), (b,)), strict=True):
            present = any(30 <= value <= 100 for value in values)
            assert label == (1 if present else UNKNOWN_LABEL if UNKNOWN in values else 0)


def test_a_complete_task_keeps_known_negatives_an_incomplete_one_leaves_them_out():
    likelihood = np.array([[255, 255, 255], [254, 255, 254], [254, 254, 254], [255, 100, 254], [254, 0, 254]], np.uint8)
    kept = {task: labelled(task_labels(likelihood, OWN, task), OWN, task).tolist() for task in OWN.tasks}
    assert kept == {"mine": [True, False, False, True, True], "judged": [False, False, False, True, True]}


def test_an_unknown_task_lists_those_of_the_store():
    with pytest.raises(InputError, match=r"unknown task 'all', known are mine, judged: --data\.task mine"):
        task_labels(np.zeros((1, 3), np.uint8), OWN, "all")


def test_counts_are_over_the_folds_that_occur_and_tell_the_unknown():
    likelihood = np.array([[255, 255, 100], [254, 255, 254], [254, 254, 254]], np.uint8)
    counts = label_counts(likelihood, OWN, np.array([0, 12, 12], np.int8), np.array([1, 2, 2]))
    assert counts["records_per_fold"] == {"0": 1, "12": 2}
    mine = counts["tasks"]["mine"]
    assert mine["positives_per_class_per_fold"] == {"A": {"0": 0, "12": 0}, "B": {"0": 1, "12": 0}}
    assert mine["unknown_per_class"] == {"A": 2, "B": 2}
    assert (mine["labelled_records"], mine["label_assignments"]) == (1, 1)


@pytest.mark.parametrize(("folder", "part"), [("ptbxl", None), ("ptbxl500", "excerpt_500hz")])
def test_counts_of_the_real_excerpts_equal_the_reference(shared, folder, part):
    reference = json.loads((shared / "references" / "ptbxl_sample_label_counts.json").read_text())
    table = read_table(shared / folder)
    records = table.records
    counts = label_counts(table.likelihood, table.statements, records["strat_fold"], records["patient_id"])
    for key in ("records", "patients", "records_per_fold", "records_per_split", "tasks"):
        assert counts[key] == (reference[part] if part else reference)[key]
    assert counts["splits"] == reference["splits"]


def test_shipped_counts_of_103_are_those_of_the_facts():
    counts = ptbxl_103_counts()
    assert (counts["records"], counts["patients"]) == (21799, 18869)
    superclasses = counts["tasks"]["superdiagnostic"]["positives_per_class"]
    assert superclasses == {"NORM": 9514, "MI": 5469, "STTC": 5235, "CD": 4898, "HYP": 2649}
    assert list(counts["records_per_split"].values()) == [17418, 2183, 2198]


def whole_counts() -> dict:
    counts = {name: value for name, value in ptbxl_103_counts().items() if name != "csv_sha256"}
    return json.loads(json.dumps(counts))


def test_the_whole_of_103_is_recognised():
    assert check_whole_ptbxl(whole_counts(), "another csv")


def test_an_excerpt_is_not_compared_with_the_whole():
    assert not check_whole_ptbxl(whole_counts() | {"records": 422}, "another csv")


def test_a_label_that_differs_from_103_is_told_with_both_sides():
    counts = whole_counts()
    counts["tasks"]["rhythm"]["positives_per_class"]["AFIB"] += 1
    with pytest.raises(
        InputError, match=r"rhythm/positives_per_class/AFIB is 1515, in 1\.0\.3 1514; fetch .*physionet.org/content"
    ):
        check_whole_ptbxl(counts, "another csv")


def test_the_csv_of_103_with_other_labels_is_refused():
    with pytest.raises(InputError, match=r"records is 422, in 1\.0\.3 21799"):
        check_whole_ptbxl(whole_counts() | {"records": 422}, ptbxl_103_counts()["csv_sha256"])


def test_missing_statements_say_where_they_come_from(tmp_path):
    with pytest.raises(InputError, match=r"scp_statements.csv does not exist, .*physionet.org/content/ptb-xl"):
        read_statements(tmp_path / "scp_statements.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",diagnostic,form,rhythm\nNORM,1.0,,\n", "lacks the columns diagnostic_class, diagnostic_subclass"),
        (",diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n" + "SR,,,1.0,,\n" * 2, "SR stands twice"),
        (",diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\nSR,,,yes,,\n", "column rhythm holds 'yes'"),
        (",diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n", "it has no rows"),
        (",diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\nSR,,,1.0,\n", "missing at the end of SR"),
        (
            ",a,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass,\nSR,,,,1.0,,\n",
            "missing at the end of None",
        ),
        (f"{'x' * 200_000},form\n", "is not a csv in UTF-8 .*field larger"),
        ("\udcff", "is not a csv in UTF-8 .*invalid start byte"),
    ],
)
def test_damaged_statements_are_named(tmp_path, text, message):
    (tmp_path / "scp_statements.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=message) as told:
        read_statements(tmp_path / "scp_statements.csv")
    assert "take the file that ships with PTB-XL" in str(told.value)

import csv
from importlib.resources import files

import numpy as np
import pytest

from ecg_lightning.data.labels import ABSENT, TASKS, UNKNOWN, class_names, read_statements, task_labels
from ecg_lightning.data.sources.snomed import label_codes, read_code_table, scp_statements
from ecg_lightning.errors import InputError

TABLE = read_code_table()


def labels_of(codes, task):
    """The labels of one record that carries ``codes``, by name."""
    likelihood, statements, _ = label_codes([codes], TABLE)
    return dict(zip(class_names(statements, task), task_labels(likelihood, statements, task)[0].tolist(), strict=True))


def carried(codes, task):
    return {name for name, label in labels_of(codes, task).items() if label == 1}


def unknown(codes, task):
    return {name for name, label in labels_of(codes, task).items() if label == 255}


def test_the_table_has_the_133_codes_and_26_scored_classes_of_the_challenge():
    labels = {code.labels["cinc2021"] for code in TABLE.codes.values()} - {""}
    scored = [code for code in TABLE.codes.values() if code.labels["cinc2021"]]
    assert (len(TABLE.codes), len(scored), len(labels)) == (133, 30, 26)
    assert {name for name in labels if "|" in name} == {"CLBBB|LBBB", "CRBBB|RBBB", "PAC|SVPB", "PVC|VPB"}


@pytest.mark.parametrize(
    ("one", "other", "label"),
    [
        ("733534002", "164909002", "CLBBB|LBBB"),
        ("713427006", "59118001", "CRBBB|RBBB"),
        ("284470004", "63593006", "PAC|SVPB"),
        ("427172004", "17338001", "PVC|VPB"),
    ],
)
def test_pairs_that_the_challenge_scores_as_one_are_one_class(one, other, label):
    assert carried([one], "cinc2021") == carried([other], "cinc2021") == {label}


def test_statements_of_ptbxl_in_the_package_are_those_of_its_file():
    theirs = read_statements(files("ecg_lightning.data").joinpath("scp_statements.csv"))
    assert theirs.tasks == scp_statements().tasks
    assert len(theirs.codes) == 71


def test_label_lists_of_ptbxl_tasks_are_ptbxls_own():
    _, statements, _ = label_codes([["426783006"]], TABLE)
    assert [*statements.tasks] == ["cinc2021", *TASKS]
    for task in TASKS:
        assert class_names(statements, task) == class_names(scp_statements(), task)


def test_a_code_gives_the_statement_that_means_the_same_in_every_task():
    assert carried(["270492004", "164889003"], "all") == {"1AVB", "AFIB"}
    assert carried(["270492004"], "subdiagnostic") == {"_AVB"}
    assert carried(["270492004"], "superdiagnostic") == {"CD"}
    assert carried(["164889003"], "rhythm") == {"AFIB"}


def test_what_no_code_can_express_is_unknown_and_not_negative():
    assert unknown(["426783006"], "superdiagnostic") == {"NORM", "STTC"}
    assert unknown(["426783006"], "rhythm") == {"SVARR"}
    assert {"NORM", "DIG", "EL", "ANEUR"} == unknown(["426783006"], "diagnostic")


def test_a_code_that_means_one_of_several_leaves_these_unknown_and_gives_what_they_share():
    infarction = ["164865005"]
    assert carried(infarction, "superdiagnostic") == {"MI"}
    assert "MI" not in carried([], "superdiagnostic") | unknown([], "superdiagnostic")
    assert {"AMI", "IMI", "LMI", "PMI"} <= unknown(infarction, "subdiagnostic")
    assert carried(infarction, "subdiagnostic") == set()


def test_a_precise_code_wins_over_one_that_leaves_it_open():
    both = ["164865005", "54329005"]
    assert carried(both, "diagnostic") == {"AMI"}
    assert "ASMI" in unknown(both, "diagnostic")


def test_an_ischaemia_may_be_an_infarction_of_ptbxl_so_it_says_nothing_of_either():
    assert {"MI", "STTC"} <= unknown(["164861001"], "superdiagnostic")


def test_a_record_without_codes_is_unknown_throughout_and_counted():
    likelihood, statements, notes = label_codes([None, ["426783006"]], TABLE)
    assert (likelihood[0] == UNKNOWN).all()
    assert set(task_labels(likelihood, statements, "cinc2021")[1].tolist()) == {0, 1}
    assert notes == ["1 of 2 records have no codes (Dx): their labels are unknown"]


def test_codes_without_a_row_are_named_counted_and_kept():
    likelihood, statements, notes = label_codes([["999", "426783006"], ["999"], ["888"]], TABLE)
    assert "no task: 888 (1 records), 999 (2 records); give them one with --codes TABLE.csv" in notes[0]
    assert likelihood[:, statements.codes.index("999")].tolist() == [100, 100, ABSENT]


def own_table(folder, text):
    (folder / "codes.csv").write_text(text)
    return folder / "codes.csv"


def test_a_table_of_ones_own_brings_its_own_tasks(tmp_path):
    table = read_code_table(own_table(tmp_path, "snomed_code,scp_code,emergency\n1,AFIB,urgent\n2,,urgent\n3,SR,\n"))
    likelihood, statements, _ = label_codes([["1"], ["2"], ["3"]], table)
    assert [*statements.tasks] == ["emergency", *TASKS]
    assert task_labels(likelihood, statements, "emergency").tolist() == [[1], [1], [0]]


def test_a_table_without_ptbxl_statements_has_no_ptbxl_tasks(tmp_path):
    table = read_code_table(own_table(tmp_path, "snomed_code,emergency\n1,urgent\n"))
    assert [*label_codes([["1"]], table)[1].tasks] == ["emergency"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code,scp_code\n1,AFIB\n", "has the columns code, scp_code, one must be snomed_code: --codes TABLE.csv"),
        ("snomed_code,scp_code\n1,AF\n", "line 2: PTB-XL has no statement AF; mend the table of --codes"),
        ("snomed_code,scp_one_of\n1,AFIB|X|AFLT\n", "line 2: PTB-XL has no statement X"),
        ("snomed_code,scp_code\n1,AFIB\n1,AFLT\n", "line 3: snomed_code '1' stands twice"),
        ("snomed_code,scp_code\nAF,AFIB\n", "line 2: snomed_code 'AF' is no number"),
        ("snomed_code,rhythm\n1,x\n", "column rhythm bears the name of a PTB-XL task: call it otherwise"),
        ("snomed_code,mine\n", "it has no rows"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as told:
        read_code_table(own_table(tmp_path, text))
    assert message in str(told.value)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv cannot be read as a table of codes .*--codes TABLE\.csv in UTF-8"):
        read_code_table(tmp_path / "none.csv")


def test_the_challenges_conversion_of_ptbxl_has_ptbxls_counts():
    """Its column PTB_XL for some codes against PTB-XL 1.0.3; the challenge took 1.0.1, with 38 records more."""
    from ecg_lightning.data.labels import ptbxl_103_counts

    theirs = {
        "164889003": 1514,
        "713427006": 542,
        "164909002": 536,
        "270492004": 797,
        "164917005": 548,
        "59931005": 294,
    }
    ours = ptbxl_103_counts()["tasks"]["all"]["positives_per_class"]
    for code, number in theirs.items():
        assert ours[TABLE.codes[code].scp_code] == pytest.approx(number, abs=4)


def test_the_csv_is_sorted_out_as_it_says():
    with files("ecg_lightning.data").joinpath("snomed.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert len(set(names)) == len(names)
    assert np.all([name == name.strip() for name in names])

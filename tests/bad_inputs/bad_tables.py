"""Tables that `prepare` cannot use: PTB-XL's, a manifest of one's own, a table of codes."""

from collections.abc import Callable

from bad_row import Here, Make, Row, file
from made_up_ptbxl import read_rows, write_table

TABLE = "ptbxl_database.csv"
PREPARE = "prepare --source ptbxl --output new.h5"
MANIFEST = "prepare --source clinic.csv --output new.h5"


def cell(column: str, text: str, row: int = 4) -> Make:
    """Another text in one cell."""

    def change(rows: list[dict[str, str]]) -> None:
        rows[row][column] = text

    return changed(change)


def changed(change: Callable[[list[dict[str, str]]], object]) -> Make:
    def make(here: Here) -> None:
        rows = read_rows(here.ptbxl())
        change(rows)
        write_table(here.path / "ptbxl", rows)

    return make


def without(column: str) -> Make:
    return changed(lambda rows: [row.pop(column) for row in rows])


def same_id(rows: list[dict[str, str]]) -> None:
    rows[7]["ecg_id"] = rows[3]["ecg_id"]


def patient_in_two_folds(rows: list[dict[str, str]]) -> None:
    rows[7]["patient_id"] = rows[3]["patient_id"]


def content(text: str | bytes, name: str = TABLE) -> Make:
    """Another content of a whole file."""

    def make(here: Here) -> None:
        here.ptbxl()
        here.write(f"ptbxl/{name}", text)

    return make


def removed(name: str) -> Make:
    return lambda here: (here.ptbxl() / name).unlink()


def manifest(*rows: str, head: str = "path,patient,fold,afib") -> Make:
    """A manifest of records in PTB-XL's folder."""

    def make(here: Here) -> None:
        records = here.good_ptbxl / "records100/00000"
        text = "\n".join([head, *rows]).replace("REC", str(records))
        here.write("clinic.csv", text + "\n")

    return make


def codes(text: str) -> Make:
    return file("codes.csv", text)


def long_cell(here: Here) -> None:
    rows = read_rows(here.ptbxl())
    rows[2]["report"] = "a" * 200_000
    write_table(here.path / "ptbxl", rows)


def head_alone(here: Here) -> None:
    path = here.ptbxl() / TABLE
    path.write_text(path.read_text().splitlines()[0] + "\n")


def quoted_to_the_end(here: Here) -> None:
    path = here.ptbxl() / TABLE
    text = path.read_text().splitlines()
    text[3] = '"' + text[3]
    path.write_text("\n".join(text) * 40)


AT_LINE_6 = (TABLE, "line 6 (ecg_id 5)", "download --output DIR")

ROWS = (
    *(
        Row(f"no column {name}", PREPARE, (TABLE, f"lacks the columns {name}", "download --output DIR"), without(name))
        for name in ("ecg_id", "patient_id", "strat_fold", "scp_codes", "filename_lr")
    ),
    Row("codes that do not parse", PREPARE, (*AT_LINE_6, "scp_codes is '{NORM", "a dict such as"), cell("scp_codes", "{NORM: 100"), process=True),
    Row("codes that are a call", PREPARE, (*AT_LINE_6, "scp_codes is", "a dict such as"), cell("scp_codes", "__import__('os').system('touch ran_code')")),
    Row("codes nested 10,000 deep", PREPARE, (*AT_LINE_6, "scp_codes is", "a dict such as"), cell("scp_codes", "[" * 10_000)),
    Row("an unknown code", PREPARE, (*AT_LINE_6, "code 'NONE' is not in scp_statements.csv"), cell("scp_codes", "{'NONE': 100.0}")),
    Row("a likelihood above 100", PREPARE, (*AT_LINE_6, "likelihood of NORM is 150", "0 to 100"), cell("scp_codes", "{'NORM': 150}")),
    Row("a code that is no text", PREPARE, (*AT_LINE_6, "code 5"), cell("scp_codes", "{5: 100.0}")),
    Row("a likelihood without end", PREPARE, (*AT_LINE_6, "likelihood of NORM is inf", "0 to 100"), cell("scp_codes", "{'NORM': 1e999}")),
    Row("an id twice", PREPARE, (TABLE, "line 9 (ecg_id 4)", "stands already in line 5"), changed(same_id), process=True),
    Row("a patient in two folds", PREPARE, (TABLE, "is in the folds 4, 8", "one patient belongs to one strat_fold"), changed(patient_in_two_folds)),
    Row("an id that is text", PREPARE, (TABLE, "line 6 (ecg_id five)", "a whole number"), cell("ecg_id", "five")),
    Row("an id beyond 64 bits", PREPARE, (TABLE, "line 6", "ecg_id is '1e30'", "a whole number"), cell("ecg_id", "1e30")),
    Row("a fold 11", PREPARE, (*AT_LINE_6, "strat_fold is '11'", "1 to 10"), cell("strat_fold", "11")),
    Row("an age of NaN", PREPARE, (*AT_LINE_6, "age is 'nan'", "0 to 300"), cell("age", "nan")),
    Row("a path out of the folder", PREPARE, (*AT_LINE_6, "filename_lr is '../secret'", "a path below the source"), cell("filename_lr", "../secret")),
    Row("a path with a zero byte", PREPARE, (*AT_LINE_6, "filename_lr is", "a path below the source"), cell("filename_lr", "a\0b")),
    Row("an empty table", PREPARE, (TABLE, "lacks the columns", "download --output DIR"), content("")),
    Row("a table of a head alone", PREPARE, (TABLE, "it has no rows", "download --output DIR"), head_alone),
    Row("a table that is not UTF-8", PREPARE, (TABLE, "not UTF-8", "download --output DIR"), content(b"ecg_id\xff\xfe\n")),
    Row("a cell of 200,000 letters", PREPARE, (TABLE, "line 4", "131072", "download --output DIR"), long_cell),
    Row("a quote that never ends", PREPARE, (TABLE, "line", "download --output DIR"), quoted_to_the_end),
    Row("no statements", PREPARE, ("scp_statements.csv", "does not exist", "download --output DIR"), removed("scp_statements.csv")),
    Row("statements without columns", PREPARE, ("scp_statements.csv", "lacks the columns", "take the file that ships with PTB-XL"), content("a,b\n1,2\n", "scp_statements.csv")),
    Row("no records", PREPARE, ("00001_lr", "does not exist"), removed("records100/00000/00001_lr.hea"), leaves=("new.h5.partial", "new.h5.partial.journal")),
    Row("a source that is not there", "prepare --source none --output new.h5", ("none", "does not exist", "--source"), process=True),
    Row("an empty source", "prepare --source empty --output new.h5", ("empty holds no records", "check the path"), lambda here: (here.path / "empty").mkdir()),
    Row("an output that is a folder", "prepare --source PTBXL --output there", ("there", "is a folder", "--output"), lambda here: (here.path / "there").mkdir()),
    Row("an output that is there", "prepare --source PTBXL --output store.h5", ("store.h5", "--overwrite"), lambda here: here.store()),
    Row("an output below a file", "prepare --source PTBXL --output file/new.h5", ("file/new.h5", "--output"), file("file", "text")),
    Row("a manifest without paths", MANIFEST, ("clinic.csv", "path"), manifest("a,1,1,0", head="file,patient,fold,afib")),
    Row("a manifest that is empty", MANIFEST, ("clinic.csv",), file("clinic.csv", "")),
    Row("a label of maybe", MANIFEST, ("clinic.csv", "line 2", "afib", "maybe", "0, 1"), manifest("REC/00001_lr,1,1,maybe")),
    Row("a manifest's record twice", MANIFEST, ("clinic.csv", "line 3", "00001_lr"), manifest("REC/00001_lr,1,1,0", "REC/00001_lr,1,1,0")),
    Row("a manifest's patient in two folds", MANIFEST, ("clinic.csv", "fold"), manifest("REC/00001_lr,1,1,0", "REC/00002_lr,1,2,0")),
    Row("a manifest's record that is not there", MANIFEST, ("none_lr does not exist", "check the path"), manifest("none_lr,1,1,0")),
    Row("a manifest's fold one", MANIFEST, ("clinic.csv", "line 2", "fold", "one"), manifest("REC/00001_lr,1,one,0")),
    Row("a label that the manifest has not", f"{MANIFEST} --labels mi", ("--labels", "mi", "afib"), manifest("REC/00001_lr,1,1,0"), code=2),
    Row("a table of codes without columns", "prepare --source PTBXL/records100 --kind wfdb --codes codes.csv --output new.h5", ("codes.csv",), codes("a,b\n1,2\n")),
    Row("a table of codes that is not there", "prepare --source PTBXL/records100 --kind wfdb --codes codes.csv --output new.h5", ("codes.csv", "cannot be read as a table of codes", "--codes TABLE.csv")),
    Row("folds of none", f"{MANIFEST} --folds 0", ("--folds", "0"), manifest("REC/00001_lr,1,1,0"), code=2),
    Row("no worker", "prepare --source PTBXL --output new.h5 --workers 0", ("--workers", "0", "1 or more"), code=2),
    Row("an unknown backbone", "prepare --source PTBXL --output new.h5 --backbone vitt", ("'vitt'", "known are", "vit")),
    Row("sizes that the backbone has not", "prepare --source PTBXL --output new.h5 --sizes '{\"colour\": 1}'", ("colour", "its arguments are")),
    Row("a size below zero", "prepare --source PTBXL --output new.h5 --sizes '{\"num_time_points\": -5}'", ("num_time_points", "-5")),
)  # fmt: skip

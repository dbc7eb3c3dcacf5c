"""Records that cannot be read: WFDB headers, tables, arrays and documents, for `prepare` and `predict`."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
from bad_row import Here, Make, Row, file
from made_up_ptbxl import LEADS

PREPARE = "prepare --source ptbxl --output new.h5"
FIRST = "ptbxl/records100/00000/00001_lr"


def header(change: Callable[[str], str]) -> Make:
    """Another text of the first record's header."""

    def make(here: Here) -> None:
        here.ptbxl()
        path = here.path / f"{FIRST}.hea"
        text = path.read_text()
        assert change(text) != text
        path.write_text(change(text))

    return make


def replaced(old: str, new: str) -> Make:
    return header(lambda text: text.replace(old, new))


def first_line(line: str) -> Make:
    return header(lambda text: "\n".join([line, *text.splitlines()[1:]]) + "\n")


def signal(change: Callable[[bytes], bytes]) -> Make:
    def make(here: Here) -> None:
        here.ptbxl()
        path = here.path / f"{FIRST}.dat"
        path.write_bytes(change(path.read_bytes()))

    return make


def flip(content: bytes) -> bytes:
    return content[:99] + bytes([content[99] ^ 1]) + content[100:]


def header_as_folder(here: Here) -> None:
    here.ptbxl()
    path = here.path / f"{FIRST}.hea"
    path.unlink()
    path.mkdir()


def array(name: str, values: object, **saved: bool) -> Make:
    def make(here: Here) -> None:
        np.save(here.path / name, values, **saved)  # type: ignore[arg-type]

    return make


class RunsCode:
    """An object whose pickle leaves a file when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("ran_code",)


def archive(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return packed.getvalue()


def lying_array(here: Here) -> None:
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (12, 99999999999), }"
    here.write("a.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)


def predict(name: str, flags: str = "") -> str:
    return f"predict --run RUN --records {name} --output out.csv {flags}".strip()


PARTIAL = ("new.h5.partial", "new.h5.partial.journal")
"""With the records that are finished: the same command goes on from there."""
FAILED = ("out.csv.failed.csv",)
KNOWN = f"--sampling_rate 100 --leads {','.join(LEADS)}"
ENTITIES = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><AnnotatedECG>&x;</AnnotatedECG>'
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 999
    + '"><!ENTITY c "'
    + "&b;" * 999
    + '">]><RestingECG>&c;</RestingECG>'
)
TABLE = ",".join(LEADS) + "\n" + (",".join(["0.1"] * 12) + "\n") * 1000

ROWS = (
    Row("a format that wfdb has not", PREPARE, ("00001_lr", "wfdb cannot read it", "download --output DIR"), replaced(" 16 ", " 999 "), leaves=PARTIAL),
    Row("a format of other bytes", PREPARE, ("00001_lr", "missing time points", "leave the record out"), replaced(" 16 ", " 212 "), leaves=PARTIAL),
    Row("a gain without end", PREPARE, ("00001_lr",), replaced("1000.0(0)/mV", "inf(0)/mV"), leaves=PARTIAL),
    Row("a gain of NaN", PREPARE, ("00001_lr",), replaced("1000.0(0)/mV", "nan(0)/mV"), leaves=PARTIAL),
    Row("a unit that is no voltage", PREPARE, ("00001_lr", "mmHg", "convert the record to mV"), replaced("/mV", "/mmHg"), leaves=PARTIAL),
    Row("another rate", PREPARE, ("00001_lr.hea", "500 Hz", "--backbone"), first_line("00001_lr 12 500 1000"), process=True, leaves=PARTIAL),
    Row("no leads", PREPARE, ("00001_lr", "download --output DIR"), first_line("00001_lr 0 100 1000"), leaves=PARTIAL),
    Row("fewer leads than lines", PREPARE, ("00001_lr", "download --output DIR"), first_line("00001_lr 3 100 1000"), leaves=PARTIAL),
    Row("more leads than lines", PREPARE, ("00001_lr", "download --output DIR"), first_line("00001_lr 15 100 1000"), leaves=PARTIAL),
    Row("a lead of another name", PREPARE, ("00001_lr.hea", "V6", "name the leads"), replaced(" V6", " X6"), leaves=PARTIAL),
    Row("100 billion leads", PREPARE, ("00001_lr", "download --output DIR"), first_line("00001_lr 99999999999 100 1000"), bounded=True, leaves=PARTIAL),
    Row("a billion billion time points", PREPARE, ("00001_lr.hea", f"says {10**18} time points", "--on_error skip"), first_line(f"00001_lr 12 100 {10**18}"), bounded=True, process=True, leaves=PARTIAL),
    Row("the same in another format", PREPARE, ("00001_lr", "download --output DIR"), header(lambda text: text.replace(" 16 ", " 212 ").replace(" 1000", f" {10**18}", 1)), bounded=True, leaves=PARTIAL),
    Row("no time points", PREPARE, ("00001_lr", "no time points"), first_line("00001_lr 12 100 0"), leaves=PARTIAL),
    Row("a header of text", PREPARE, ("00001_lr", "download --output DIR"), header(lambda text: "dear colleague\n"), leaves=PARTIAL),
    Row("an empty header", PREPARE, ("00001_lr", "download --output DIR"), header(lambda text: ""), leaves=PARTIAL),
    Row("a header of bytes", PREPARE, ("00001_lr", "download --output DIR"), header(lambda text: "\0\x01" * 500), leaves=PARTIAL),
    Row("a header that is a folder", PREPARE, ("00001_lr.hea", "download --output DIR"), header_as_folder, leaves=PARTIAL),
    Row("a signal that is cut", PREPARE, ("00001_lr.dat is cut", "download --output DIR"), signal(lambda content: content[:-7]), process=True, leaves=PARTIAL),
    Row("a signal that is too long", PREPARE, ("00001_lr.dat is too long", "download --output DIR"), signal(lambda content: content + b"12"), leaves=PARTIAL),
    Row("a flipped bit", PREPARE, ("00001_lr", "the checksum of lead", "download --output DIR"), signal(flip), leaves=PARTIAL),
    Row("no signal", PREPARE, ("00001_lr.dat does not exist", "download --output DIR"), lambda here: (here.ptbxl() / "records100/00000/00001_lr.dat").unlink(), leaves=PARTIAL),
    Row("a path that is not there", predict("none.csv"), ("none.csv", "does not exist")),
    Row("a folder without records", predict("empty"), ("empty",), lambda here: (here.path / "empty").mkdir()),
    Row("a table without a rate", predict("a.csv"), ("a.csv", "--sampling_rate"), file("a.csv", TABLE), leaves=FAILED),
    Row("a table of text", predict("a.csv", KNOWN), ("a.csv", "line"), file("a.csv", TABLE.replace("0.1", "much", 1)), leaves=FAILED, process=True),
    Row("an empty table", predict("a.csv", KNOWN), ("a.csv", "empty"), file("a.csv", ""), leaves=FAILED),
    Row("a record of a second", predict("a.csv", KNOWN), ("a.csv", "is the file cut?"), file("a.csv", TABLE[: len(TABLE) // 10]), leaves=FAILED),
    Row("a record of half a second", predict("a.csv", KNOWN), ("a.csv", "10 s"), file("a.csv", "\n".join(TABLE.split("\n")[:50])), leaves=FAILED),
    Row("a table with a hole", predict("a.csv", KNOWN), ("a.csv", "missing or infinite time points"), file("a.csv", TABLE.replace("0.1", "nan", 1)), leaves=FAILED),
    Row("an array of objects", predict("a.npy", KNOWN), ("a.npy", "what may run code is never loaded"), array("a.npy", np.array([RunsCode()], object), allow_pickle=True), leaves=FAILED),
    Row("an array that lies about its size", predict("a.npy", KNOWN), ("a.npy",), lying_array, leaves=FAILED, bounded=True),
    Row("an array of text", predict("a.npy", KNOWN), ("a.npy",), array("a.npy", np.array(["a", "b"])), leaves=FAILED),
    Row("an array of four axes", predict("a.npy", KNOWN), ("a.npy",), array("a.npy", np.zeros((2, 2, 12, 10))), leaves=FAILED),
    Row("an archive of something else", predict("a.npz", KNOWN), ("a.npz",), file("a.npz", archive({"letter.txt": b"dear"})), leaves=FAILED),
    Row("an archive of objects", predict("a.npz", KNOWN), ("a.npz",), lambda here: np.savez(here.path / "a.npz", signal=np.array([RunsCode()], object)), leaves=FAILED),
    Row("a pickle", predict("a.pkl"), ("a.pkl", "never loaded", "NPY"), file("a.pkl", pickle.dumps(RunsCode()))),
    Row("no DICOM", predict("a.dcm"), ("a.dcm",), file("a.dcm", "text"), leaves=FAILED),
    Row("an entity that names a file", predict("a.xml"), ("a.xml", "entit"), file("a.xml", ENTITIES), leaves=FAILED),
    Row("a billion laughs", predict("a.xml"), ("a.xml", "entit"), file("a.xml", LAUGHS), leaves=FAILED, bounded=True),
    Row("no rate at all", predict("a.csv", KNOWN.replace("100", "0", 1)), ("--sampling_rate", "0"), file("a.csv", TABLE), code=2),
    Row("leads that are none", predict("a.csv", "--sampling_rate 100 --leads ,,"), ("--leads",), file("a.csv", TABLE), code=2),
    Row("a batch of none", predict("a.csv", "--batch_size 0"), ("--batch_size is 0", "1 or more"), file("a.csv", TABLE), code=2),
    Row("a device that is none", predict("a.csv", "--device teapot"), ("--device teapot", "give cpu"), file("a.csv", TABLE), code=2),
    Row("an output of another kind", predict("a.csv").replace("out.csv", "out.xlsx"), ("out.xlsx", ".csv", ".npz"), file("a.csv", TABLE), code=2),
    Row("an output below a file", predict("a.csv", KNOWN).replace("out.csv", "a.csv/out.csv"), ("a.csv/out.csv", "--output", "it would have to be a folder"), file("a.csv", TABLE)),
)  # fmt: skip

"""Files of predictions, and folders without any, for `evaluate` and `report`."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from bad_records import RunsCode, archive
from bad_row import Here, Make, Row, both, file
from predicted import NAMES, predicted, write_csv

EVALUATE = "evaluate p.npz --output out.json"


def arrays(change: Callable[[dict[str, Any]], object]) -> Make:
    """A good file of 60 records but for what ``change`` does to its arrays."""

    def make(here: Here) -> None:
        predicted(60).save(here.path / "good.npz")
        with np.load(here.path / "good.npz") as opened:
            content = {name: opened[name] for name in opened.files}
        (here.path / "good.npz").unlink()
        change(content)
        np.savez(here.path / "p.npz", **content)

    return make


def put(**values: object) -> Make:
    return arrays(lambda content: content.update(values))


def cell(name: str, value: object) -> Make:
    """One value in an array, at the third record."""

    def change(content: dict[str, Any]) -> None:
        content[name] = content[name].copy()
        content[name][2] = value

    return arrays(change)


def good(name: str = "p.npz", **arguments: Any) -> Make:
    return lambda here: predicted(60, **arguments).save(here.path / name)


def cut(here: Here) -> None:
    predicted(60).save(here.path / "p.npz")
    path = here.path / "p.npz"
    path.write_bytes(path.read_bytes()[:700])


def bomb(here: Here) -> None:
    """A megabyte that says it is an array of a terabyte."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (50000000000, 5), }"
    lie = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + b"\0" * 2**20
    here.write("p.npz", archive({"record_id.npy": lie}))


def damaged(here: Here) -> None:
    predicted(60).save(here.path / "p.npz")
    content = bytearray((here.path / "p.npz").read_bytes())
    start = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
    content[start] = 0b111  # a kind of block that DEFLATE has not
    (here.path / "p.npz").write_bytes(content)


def encrypted(here: Here) -> None:
    """The bit that says so, in every member's heads."""
    predicted(60).save(here.path / "p.npz")
    content = bytearray((here.path / "p.npz").read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + place] |= 1
    (here.path / "p.npz").write_bytes(content)


def csv(change: Callable[[str], str]) -> Make:
    def make(here: Here) -> None:
        path = write_csv(predicted(60), here.path / "p.csv")
        path.write_text(change(path.read_text()))

    return make


NO_FILE = ("p.npz", "is not a predictions file", "it must be an npz with")
UNUSABLE = ("p.npz cannot be used",)
CSV = "evaluate p.csv --output out.json"

ROWS = (
    Row("not there", "evaluate none.npz", ("none.npz", "does not exist", "ecg-lightning test --run RUN")),
    Row("empty", EVALUATE, NO_FILE, file("p.npz", b""), process=True),
    Row("text", EVALUATE, NO_FILE, file("p.npz", "0.5")),
    Row("cut", EVALUATE, NO_FILE, cut),
    Row("an archive of something else", EVALUATE, NO_FILE, file("p.npz", archive({"a.txt": b"x"}))),
    Row("packed bytes that are damaged", EVALUATE, NO_FILE, damaged),
    Row("encrypted", EVALUATE, NO_FILE, encrypted),
    Row("a terabyte in a megabyte", EVALUATE, NO_FILE, bomb, bounded=True),
    *(
        Row(f"objects as {name}", EVALUATE, NO_FILE, put(**{name: np.array([RunsCode(), "padding" * 500], object)}))
        for name in ("record_id", "probabilities", "label_names", "meta")
    ),
    *(
        Row(f"no {name}", EVALUATE, (*NO_FILE, name), arrays(lambda content, name=name: content.pop(name)))  # type: ignore[misc]
        for name in ("record_id", "probabilities", "meta")
    ),
    Row("logits", EVALUATE, (*UNUSABLE, "not from 0 to 1", "give probabilities, not logits"), cell("probabilities", 3.5)),
    Row("NaN", EVALUATE, (*UNUSABLE, "not from 0 to 1"), cell("probabilities", np.nan)),
    Row("whole numbers", EVALUATE, (*UNUSABLE, "floating point"), put(probabilities=np.ones((60, 5), int))),
    Row("a label of 7", EVALUATE, (*UNUSABLE, "labels hold 7", "255 where unknown"), cell("labels", 7)),
    Row("fewer labels than records", EVALUATE, (*UNUSABLE, "labels has shape"), put(labels=np.ones((59, 5), np.uint8))),
    Row("a record twice", EVALUATE, (*UNUSABLE, "stand more than once", "one row a record"), cell("record_id", 1)),
    Row("a name twice", EVALUATE, (*UNUSABLE, "CD", "more than once"), put(label_names=np.array([*NAMES[:-1], "CD"]))),
    Row("ids that are fractions", EVALUATE, (*UNUSABLE, "record_id is of type float64"), put(record_id=np.arange(60) / 7)),
    Row("meta that is no JSON", EVALUATE, NO_FILE, put(meta=np.array("{"))),
    Row("meta that is a list", EVALUATE, (*UNUSABLE, "meta is [1]"), put(meta=np.array("[1]"))),
    Row("an unknown protocol", EVALUATE, ("p.npz", "protocol 5 is unknown", "--protocol"), put(meta=np.array(json.dumps({"task": ["a"], "protocol": 5, "folds": "x"}))), code=2),
    Row("no records", EVALUATE, UNUSABLE, put(probabilities=np.ones((0, 5)), labels=np.ones((0, 5), np.uint8))),
    Row("a csv without columns", CSV, ("p.csv", "record_id"), csv(lambda text: text.replace("record_id", "id", 1))),
    Row("a csv with a word", CSV, ("p.csv", "line 3", "much"), csv(lambda text: "\n".join([*text.split("\n")[:2], text.split("\n")[2].replace("0.", "much", 1), *text.split("\n")[3:]])), process=True),
    Row("a csv that is cut", CSV, ("p.csv",), csv(lambda text: text[:-9])),
    Row("an empty csv", CSV, ("p.csv",), csv(lambda text: "")),
    Row("other records against it", f"{EVALUATE} --against q.npz", ("q.npz", "record"), both(good(), good("q.npz", first_id=500))),
    Row("another number of seeds against it", f"{EVALUATE} --against q.npz r.npz", ("--against",), both(good(), good("q.npz"), good("r.npz")), code=2),
    Row("no draws", f"{EVALUATE} --draws 0", ("--draws",), good(), code=2),
    Row("fewer than 100 permutations", f"{EVALUATE} --permutations 5", ("--permutations is 5", "100 or more"), good(), code=2),
    Row("an unknown threshold", f"{EVALUATE} --threshold best", ("--threshold", "best", "youden"), good(), code=2),
    Row("itself twice", "evaluate p.npz p.npz", ("p.npz is named twice",), good(), code=2),
    Row("an output that is something else", EVALUATE.replace("out.json", "thesis.json"), ("thesis.json", "--overwrite"), both(good(), file("thesis.json", "{}"))),
    Row("an output below a file", EVALUATE.replace("out.json", "p.npz/out.json"), ("p.npz/out.json", "--output", "it would have to be a folder"), good()),
    Row("nothing", "evaluate", ("predictions",), code=2),
    Row("a report of nothing", "report --output out", ("runs",), code=2),
    Row("a report of an empty folder", "report empty --output out", ("empty", "neither a run", "nor an experiment"), lambda here: (here.path / "empty").mkdir(), code=2),
    Row("a report of a file", "report p.npz --output out", ("p.npz", "neither a run"), good(), code=2, process=True),
    Row("a report over a thesis", "report RUN --output thesis", ("thesis holds something that is no report", "choose another folder"), file("thesis/chapter1.tex", "x")),
    Row("a report below a file", "report RUN --output file/out", ("file", "--output"), file("file", "x")),
    Row("a report of a record that is no list", "report there --output out", ("experiment.json cannot be read", "take it away"), file("there/experiment.json", '{"runs": 5}')),
    Row("a report with fewer wrong than none", "report RUN --output out --wrong -1", ("--wrong is -1", "0 or more"), code=2),
)  # fmt: skip

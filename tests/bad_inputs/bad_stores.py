"""Stores that cannot be used: cut, flipped, of another spec or version, in part, open for writing."""

import fcntl
from pathlib import Path

import h5py
import numpy as np
from bad_row import Here, Make, Row, both, file
from shards import part_of

OPEN: list[object] = []
"""Files that a row holds open, as a writer would; closed behind it."""


def cut(share: float) -> Make:
    def make(here: Here) -> None:
        path = here.store()
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return make


def flipped(name: str, byte: int = 0) -> Make:
    """One bit, in a data set of the store."""

    def make(here: Here) -> None:
        path = here.store()
        with h5py.File(path) as opened:
            place = opened[name].id.get_offset() + byte
        content = bytearray(path.read_bytes())
        content[place] ^= 0x10
        path.write_bytes(content)

    return make


def without(*names: str) -> Make:
    def make(here: Here) -> None:
        with h5py.File(here.store(), "r+") as opened:
            for name in names:
                del opened[name]

    return make


def attribute(name: str, value: object) -> Make:
    def make(here: Here) -> None:
        with h5py.File(here.store(), "r+") as opened:
            del opened.attrs[name]
            if value is not None:
                opened.attrs[name] = value

    return make


def of_another_spec(here: Here) -> None:
    part_of(here.good_store, here.path / "short.h5", slice(None), num_time_points=500)


def foreign_hdf5(here: Here) -> None:
    with h5py.File(here.path / "store.h5", "w") as opened:
        opened["signals"] = np.zeros((3, 12, 1000), np.int16)


def locked(name: str) -> Make:
    """As a process that writes it holds it."""

    def make(here: Here) -> None:
        path = here.path / name
        opened = path.open("r+" if path.exists() else "w")
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        OPEN.append(opened)

    return make


def cut_partial(here: Here) -> None:
    Path(here.store()).rename(here.path / "store.h5.partial")


CUT = ("store.h5", "is cut", "copy it anew", "prepare --source")
CHANGED = ("store.h5", "not what was written (hash)", "prepare --source")
NO_STORE = ("store.h5", "is not a store, or damaged", "prepare --source")

ROWS = (
    Row("cut after a tenth", "inspect store.h5", CUT, cut(0.1), process=True),
    Row("cut after a half", "fit FIT --data.store store.h5 --run run", CUT, cut(0.5)),
    Row("one byte short", "embed --run RUN --store store.h5 --output out.npz", ("store.h5", "cut"), cut(0.99999)),
    Row("empty", "inspect store.h5", NO_STORE, file("store.h5", b"")),
    Row("text", "test --run RUN --data.store store.h5", NO_STORE, file("store.h5", "no store")),
    Row("hdf5 of something else", "inspect store.h5", NO_STORE, foreign_hdf5),
    Row("a folder", "inspect folder", ("folder is a folder", "STORE"), lambda here: (here.path / "folder").mkdir()),
    Row("not there", "inspect store.h5 --html", ("store.h5", "does not exist", "prepare --source")),
    Row("only begun", "inspect store.h5", ("store.h5 is not finished", "run the same command again"), cut_partial),
    Row("a flipped fold", "fit FIT --data.store store.h5 --run run", CHANGED, flipped("records/strat_fold", 3)),
    Row("a flipped patient", "inspect store.h5 --plot 3", CHANGED, flipped("records/patient_id", 9), process=True),
    Row("a flipped label", "test --run RUN --data.store store.h5", CHANGED, flipped("statements/likelihood", 777)),
    Row("a flipped count", "inspect store.h5", CHANGED, flipped("index/counts", 5)),
    Row("a flipped signal", "inspect store.h5 --verify", ("store.h5", "1 of 80 signals", "ecg_id 1", "prepare --source"), flipped("signals", 77)),
    Row("without signals", "inspect store.h5", NO_STORE, without("signals")),
    Row("without a column", "embed --run RUN --store store.h5 --output out.npz", CHANGED, without("records/age")),
    Row("without statements", "fit FIT --data.store store.h5 --run run", CHANGED, without("statements")),
    Row("without an index", "inspect store.h5", CHANGED, without("index")),
    Row("of a newer version", "fit FIT --data.store store.h5 --run run", ("store.h5", "format version 99", "upgrade ecg-lightning"), attribute("format_version", 99), process=True),
    Row("of an old version", "inspect store.h5", ("store.h5", "old format version 1", "prepare --source"), attribute("format_version", 1)),
    Row("of a version that is no number", "inspect store.h5", NO_STORE, attribute("format_version", "two")),
    Row("without a hash", "inspect store.h5", CHANGED, attribute("sha256", None)),
    Row("of another signal in its attributes", "inspect store.h5", CHANGED, attribute("signal", np.bytes_("{}"))),
    Row("stopped while written", "inspect store.h5", ("store.h5", "still being written", "run the same `prepare` again"), attribute("sha256", np.bytes_("0" * 64))),
    Row("open for writing", "inspect store.h5", ("store.h5", "open for writing elsewhere", "wait"), both(lambda here: here.store(), locked("store.h5"))),
    Row("being made by another process", "prepare --source PTBXL --output new.h5", ("new.h5", "another process is writing", "--output"), locked("new.h5.partial.journal")),
    Row("too short", "fit FIT --data.store short.h5 --run run", ("short.h5", "500", "1000", "prepare --source"), of_another_spec),
    Row("of another rate", "fit --model.backbone ecgfounder --data.store STORE --run run --data.task form", ("store.h5", "100", "500", "--backbone ecgfounder"), process=True),
    Row("two that differ", 'embed --run RUN --store STORE short.h5 --output out.npz', ("short.h5", "500"), of_another_spec),
    Row("a pattern that matches none", "embed --run RUN --store none*.h5 --output out.npz", ("none*.h5", "prepare")),
)  # fmt: skip

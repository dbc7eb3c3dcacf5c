import hashlib
import json
import pickle
import resource
import struct
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from ecg_lightning.chains import Bandpass
from ecg_lightning.data.labels import ABSENT, read_statements
from ecg_lightning.data.store import Store, checksums
from ecg_lightning.data.store_format import Layout, contents_of, tables_sha256
from ecg_lightning.data.store_writing import create_store, finish_store
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12, StoredSignal

STATEMENTS = read_statements(Path(__file__).parents[1] / "references" / "scp_statements.csv")
NUM_RECORDS = 30


def write_store(path, *, dtype="<i2", chain=(), finish=True):
    random = np.random.default_rng(3)
    signals = random.integers(-2000, 2000, (NUM_RECORDS, 12, 200)).astype(dtype)
    likelihood = np.where(random.random((NUM_RECORDS, 71)) < 0.05, 100, ABSENT).astype(np.uint8)
    records = {
        "ecg_id": np.arange(1, NUM_RECORDS + 1),
        "patient_id": np.arange(NUM_RECORDS) + 100,
        "strat_fold": (np.arange(NUM_RECORDS) % 10 + 1).astype(np.int8),
        "static_noise": np.array(["", " , I-V1,  ", "ö"] * (NUM_RECORDS // 3)),
        "extra_beats": np.array([""] * NUM_RECORDS),
        "checksum": np.zeros(NUM_RECORDS, np.uint32),
    }
    attributes = {"command": "", "source": "made up", "millivolts_per_unit": 0.001}
    stored = StoredSignal(100.0, LEADS_12, 200, chain)
    offset = create_store(path, stored, dtype, records, likelihood, STATEMENTS, attributes)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(signals.tobytes())
    if finish:
        finish_store(path, {"checksum": np.array(list(checksums(signals)), np.uint32)})
    return signals, likelihood, records, stored


@pytest.fixture
def path(tmp_path):
    write_store(tmp_path / "store.h5")
    return tmp_path / "store.h5"


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def offset_of(path, name):
    with h5py.File(path) as file:
        return file[name].id.get_offset()


@pytest.mark.parametrize(("dtype", "chain"), [("<i2", ()), ("<f4", (Bandpass(0.5, 40.0),))])
def test_what_was_written_is_read(tmp_path, dtype, chain):
    signals, likelihood, records, stored = write_store(tmp_path / "store.h5", dtype=dtype, chain=chain)
    store = Store(tmp_path / "store.h5")
    assert np.array_equal(store.signals(), signals)
    assert store.dtype == signals.dtype
    assert np.array_equal(store.likelihood, likelihood)
    assert store.stored == stored
    assert store.statements.codes == STATEMENTS.codes
    assert (store.num_records, store.millivolts_per_unit) == (NUM_RECORDS, 0.001)
    assert store.attributes["source"] == "made up"
    for name in ("ecg_id", "strat_fold", "static_noise", "extra_beats"):
        assert store.records[name].tolist() == records[name].tolist()
        assert store.records[name].dtype.kind == records[name].dtype.kind


def test_the_map_equals_what_h5py_reads(path):
    with h5py.File(path) as file:
        assert np.array_equal(Store(path).signals(), file["signals"][()])


def test_the_map_is_read_only(path):
    with pytest.raises(ValueError, match="read-only"):
        Store(path).signals()[0, 0, 0] = 1


def test_two_stores_of_the_same_are_equal_to_the_byte(path, tmp_path):
    write_store(tmp_path / "again.h5")
    assert path.read_bytes() == (tmp_path / "again.h5").read_bytes()


def test_a_pickled_store_is_small_even_after_its_signals_were_read(path):
    store = Store(path)
    before = len(pickle.dumps(store))
    store.signals().sum()
    assert sum(column.nbytes for column in store.records.values()) + store.likelihood.nbytes > 1000
    assert len(pickle.dumps(store)) < before + 100
    assert np.array_equal(pickle.loads(pickle.dumps(store)).signals(), store.signals())


def hash_of_signals(store):
    return hashlib.sha256(store.signals().tobytes()).hexdigest()


def test_a_store_works_in_a_spawned_process(path):
    store = Store(path)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(hash_of_signals, store).result() == hash_of_signals(store)


def test_a_missing_store_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"none\.h5 does not exist: make it with `ecg-lightning prepare --source"):
        Store(tmp_path / "none.h5")


def test_a_store_in_the_making_says_to_wait_or_go_on(tmp_path):
    write_store(tmp_path / "store.h5.partial", finish=False)
    with pytest.raises(InputError, match=r"is not finished, only store\.h5\.partial is there: wait"):
        Store(tmp_path / "store.h5")
    with pytest.raises(InputError, match=r"is still being written.*run the same `prepare` again"):
        Store(tmp_path / "store.h5.partial")


def opening_error(path):
    with pytest.raises(InputError) as told:
        Store(path)
    return str(told.value)


def test_a_store_that_another_process_writes_is_refused(path):
    with h5py.File(path, "r+"), ProcessPoolExecutor(1, get_context("spawn")) as pool:
        message = pool.submit(opening_error, path).result()
    assert f"store {path} is open for writing elsewhere" in message
    assert "wait for that to end" in message


def test_something_else_is_not_a_store(tmp_path):
    (tmp_path / "note.h5").write_text("not HDF5" * 100)
    with pytest.raises(InputError, match=r"note\.h5 is not a store, or damaged .*--overwrite"):
        Store(tmp_path / "note.h5")


def test_another_hdf5_file_is_not_a_store(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(InputError, match=r"other\.h5 is not a store"):
        Store(tmp_path / "other.h5")


@pytest.mark.parametrize("missing", ["signals", "statements/likelihood", "statements/codes", "records/ecg_id"])
def test_a_missing_data_set_is_refused(path, missing):
    with h5py.File(path, "r+") as file:
        del file[missing]
    with pytest.raises(InputError, match="prepare --source DIR --output STORE"):
        Store(path)


def test_a_newer_format_says_to_upgrade(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(InputError, match=r"format version 99, this package reads 2: upgrade ecg-lightning"):
        Store(path)


@pytest.mark.parametrize("seed", range(8))
def test_a_store_cut_anywhere_is_refused(path, seed):
    content = path.read_bytes()
    path.write_bytes(content[: np.random.default_rng(seed).integers(1, len(content))])
    with pytest.raises(InputError, match=r"store\.h5 is (cut|not a store)"):
        Store(path)


@pytest.mark.parametrize("name", ["statements/likelihood", "records/strat_fold", "statements/superclass"])
def test_a_flipped_bit_in_the_tables_is_refused_at_opening(path, name):
    flip(path, offset_of(path, name) + 7)
    with pytest.raises(InputError, match=r"labels, folds or other tables are not what was written .*--overwrite"):
        Store(path)


def test_a_flipped_bit_anywhere_but_in_the_signals_is_refused_or_harmless(path):
    store = Store(path)
    first, size = store.signals().offset, store.signals().nbytes
    positions = [*range(0, first, 29), *range(first + size, path.stat().st_size, 997)]
    for position in positions:
        flip(path, position)
        try:
            opened = Store(path)
        except InputError:
            pass
        else:
            assert np.array_equal(opened.likelihood, store.likelihood)
            assert np.array_equal(opened.records["strat_fold"], store.records["strat_fold"])
            assert np.array_equal(opened.signals(), store.signals())
        flip(path, position)


def test_a_changed_attribute_is_refused_at_opening(path):
    with h5py.File(path, "r+") as file:
        file.attrs["millivolts_per_unit"] = 0.002
    with pytest.raises(InputError, match="not what was written"):
        Store(path)


def test_a_flipped_bit_in_the_signals_is_found_by_verify_and_named(path):
    assert Store(path).verify() == []
    flip(path, offset_of(path, "signals") + 12 * 200 * 2 * 4 + 99)
    assert Store(path).verify() == ["ecg_id 5"]


# --- sealed with a hash that holds, and no store all the same ---


def sealed(path):
    """Gives the file the hash over what it holds now, as only somebody does who means to."""
    with h5py.File(path, "r+") as file:
        file.attrs.modify("sha256", np.bytes_(tables_sha256(contents_of(file))))


def replaced(file, name, **how):
    del file[name]
    file.create_dataset(name, **how)


ODD_TABLES = {
    "a statement that is no text": lambda file: replaced(file, "statements/codes", data=np.full(71, b"\xff", "S1")),
    "fewer statements": lambda file: replaced(file, "statements/codes", data=file["statements/codes"][:70]),
    "fewer ids": lambda file: replaced(file, "records/ecg_id", data=np.arange(NUM_RECORDS - 1)),
    "ids that are text": lambda file: replaced(file, "records/ecg_id", data=np.full(NUM_RECORDS, b"1")),
    "no folds": lambda file: file["records"].pop("strat_fold"),
    "no tasks": lambda file: file["statements"].pop("task_names"),
    "no index": lambda file: file["index"].pop("counts"),
    "an index of other folds": lambda file: replaced(file, "index/folds", data=np.arange(3)),
    "likelihoods of two bytes": lambda file: replaced(file, "statements/likelihood", data=np.zeros((30, 71), "i2")),
    "signals in double precision": lambda file: replaced(file, "signals", data=np.zeros((NUM_RECORDS, 12, 200))),
    "signals of another length": lambda file: replaced(file, "signals", data=np.zeros((NUM_RECORDS, 12, 199), "<i2")),
    "a signal without a rate": lambda file: file.attrs.__setitem__("signal", np.bytes_(b'{"leads": []}')),
    "a signal of leads without names": lambda file: file.attrs.__setitem__(
        "signal", told_signal(file, leads=[[1]] * 12)
    ),
    "a signal of no rate": lambda file: file.attrs.__setitem__("signal", told_signal(file, record_rate=0)),
    "a signal of half points": lambda file: file.attrs.__setitem__("signal", told_signal(file, num_time_points=200.0)),
    "a signal that is no JSON": lambda file: file.attrs.__setitem__("signal", np.bytes_(b"{" * 9999)),
    "blocks of no record": lambda file: file.attrs.modify("block_records", 0),
    "no unit": lambda file: file.attrs.pop("millivolts_per_unit"),
}


def told_signal(file, **changes):
    return np.bytes_(json.dumps({**json.loads(file.attrs["signal"]), **changes}).encode())


@pytest.mark.parametrize("what", ODD_TABLES)
def test_a_sealed_file_that_does_not_fit_together_is_refused_with_the_way_out(path, what):
    with h5py.File(path, "r+") as file:
        ODD_TABLES[what](file)
    sealed(path)
    with pytest.raises(InputError, match=r"store .* holds what `prepare` does not write .*prepare --source DIR"):
        Store(path)


def test_all_data_sets_that_do_not_fit_are_named_together(path):
    with h5py.File(path, "r+") as file:
        ODD_TABLES["fewer ids"](file)
        ODD_TABLES["no folds"](file)
        ODD_TABLES["likelihoods of two bytes"](file)
    sealed(path)
    with pytest.raises(InputError) as told:
        Store(path)
    for problem in ("records/strat_fold is missing", "records/ecg_id has shape (29,), not (30,)", "is of type int16"):
        assert problem in str(told.value)


def test_a_table_that_hdf5_would_make_up_in_memory_is_refused(path):
    with h5py.File(path, "r+") as file:
        replaced(file, "index/counts", shape=(2**31, 4), dtype="<i4", chunks=(64, 4))  # nothing of it is written
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"/index/counts is not contiguous numbers or text.*prepare --source DIR"):
        Store(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_size_whose_bytes_no_machine_counts_is_no_small_one():
    assert Layout(8, (2**40, 2**40), "|u1").end == 8 + 2**80


@pytest.mark.parametrize("name", ["records/extra_beats", "statements/superclass"])
def test_text_of_any_length_is_refused_since_it_does_not_lie_in_its_place(path, name):
    with h5py.File(path, "r+") as file:
        replaced(file, name, data=["a"] * len(file[name]), dtype=h5py.string_dtype())
    with pytest.raises(InputError, match=rf"/{name} is not contiguous numbers or text"):
        Store(path)


@pytest.mark.parametrize("claimed", [1000, 2**33, 2**62])
def test_a_size_that_the_file_cannot_hold_is_refused(path, claimed):
    counts = struct.pack("<3Q", 7, 1, 10)  # the shape of index/counts, as it stands in the file
    content = path.read_bytes()
    assert counts in content
    path.write_bytes(content.replace(counts, struct.pack("<3Q", claimed, 1, 10)))
    with pytest.raises(InputError, match=r"is not a store, or damaged .*prepare --source DIR"):
        Store(path)

import hashlib
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from ecg_lightning.chains import Bandpass
from ecg_lightning.data.labels import ABSENT, read_statements
from ecg_lightning.data.store import Store, checksums
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

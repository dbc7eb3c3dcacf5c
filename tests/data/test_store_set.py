import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import yaml
from shards import cut_into, part_of
from tiny import of_lightning_cli, tiny_data

from ecg_lightning.chains import Bandpass
from ecg_lightning.cli import main
from ecg_lightning.data import labelled_blocks
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.labels import Statements
from ecg_lightning.data.splits import Split
from ecg_lightning.data.store import Store
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.signals import SignalSpec

pytestmark = of_lightning_cli
WHOLE = SignalSpec(100, 1000)
CUT = SignalSpec(100, 250)


@pytest.fixture(scope="module")
def shards(tiny_store, tmp_path_factory):
    return cut_into(tiny_store, tmp_path_factory.mktemp("shards"), 8)


@pytest.fixture(scope="module")
def in_blocks(tiny_store, tmp_path_factory):
    """The same records, sealed in twelve blocks."""
    return part_of(tiny_store, tmp_path_factory.mktemp("blocks") / "small_blocks.h5", slice(None), block_records=7)


def batches(loader):
    return [{name: np.asarray(value).tolist() for name, value in batch.items()} for batch in loader]


def loaders(store, signal=WHOLE, **arguments):
    data = tiny_data(store, **arguments).use_signal(signal)
    return data, (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())


@pytest.mark.parametrize("signal", [WHOLE, CUT])
def test_eight_shards_give_the_very_batches_of_one_store(tiny_store, shards, signal):
    _, whole = loaders(tiny_store, signal)
    _, parts = loaders(shards, signal)
    for one, other in zip(whole, parts, strict=True):
        assert batches(one) == batches(other)


def test_a_glob_is_all_its_files_in_the_order_of_their_names(shards):
    pattern = str(shards[0].with_name("shard-*.h5"))
    assert StoreSet(pattern).paths == StoreSet(shards).paths == [str(path) for path in shards]
    assert StoreSet(pattern).sha256 == StoreSet(shards).sha256


def test_one_store_in_a_list_is_that_store(tiny_store):
    assert StoreSet([tiny_store]).sha256 == StoreSet(tiny_store).sha256 == Store(tiny_store).attributes["sha256"]


def test_the_order_of_the_stores_is_part_of_what_a_run_is_resumed_on(shards):
    assert StoreSet(shards).sha256 != StoreSet(shards[::-1]).sha256
    data, other = tiny_data(shards), tiny_data(shards[::-1])
    with pytest.raises(UsageError, match=r"data\.store is \w+, was \w+"):
        other.load_state_dict({"epoch": 0, "batch": 1, "of": data.identity()})


def test_columns_are_taken_at_any_places_of_any_store(tiny_store, in_blocks, shards):
    rows = np.random.default_rng(0).permutation(80)[:50]
    for name in ("ecg_id", "patient_id", "extra_beats"):
        for stores in (shards, in_blocks):
            assert StoreSet(stores).take(name, rows).tolist() == Store(tiny_store).records[name][rows].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record_rate": 500.0}, r"b\.h5 has record_rate 500\.0, .*a\.h5 100\.0; prepare them for the same backbone"),
        ({"num_time_points": 500}, r"b\.h5 has num_time_points 500, .*a\.h5 1000"),
        ({"chain": (Bandpass(1.0, 30.0),)}, r"b\.h5 has chain .*Bandpass.*, .*a\.h5 none"),
    ],
)
def test_stores_of_other_signals_are_refused_with_both_sides(tiny_store, tmp_path, change, message):
    paths = [
        part_of(tiny_store, tmp_path / "a.h5", slice(40)),
        part_of(tiny_store, tmp_path / "b.h5", slice(40, 80), **change),
    ]
    with pytest.raises(InputError, match=message):
        StoreSet(paths)


def test_stores_that_give_a_task_other_labels_are_refused_by_that_task_alone(tiny_store, tmp_path):
    columns = Store(tiny_store).statements.to_columns()
    form = columns["task_names"].tolist().index("form")
    columns["task_labels"][form, np.flatnonzero(columns["task_labels"][form] == "PVC")] = "VES"
    changed = part_of(tiny_store, tmp_path / "b.h5", slice(40, 80), statements=Statements.from_columns(columns))
    stores = StoreSet([part_of(tiny_store, tmp_path / "a.h5", slice(40)), changed])
    with pytest.raises(InputError, match=r"task form has other labels in .*b\.h5 than in .*a\.h5 \(PVC, VES\)"):
        TaskLabels(stores, "form")
    TaskLabels(stores, "rhythm")


def test_leads_are_found_by_name_in_each_store(tiny_store, tmp_path):
    leads = Store(tiny_store).stored.leads
    first = part_of(tiny_store, tmp_path / "a.h5", slice(40))
    other = part_of(tiny_store, tmp_path / "b.h5", slice(40, 80), leads=leads[::-1])  # names moved, signals not
    _, (_, val, _) = loaders([first, other], SignalSpec(100, 1000, leads=("II", "V6")))
    signals = Store(tiny_store).signals()
    for batch in val:
        for row, ecg in zip(batch["index"].tolist(), batch["ecg"], strict=True):
            expected = signals[row][[1, 11]] if row < 40 else signals[row][[10, 0]]
            np.testing.assert_allclose(ecg[0], expected * 0.001, atol=1e-6)


@pytest.mark.parametrize("broken_first", [False, True])
def test_stores_of_whole_and_of_broken_units_come_in_millivolts_alike(tiny_store, tmp_path, broken_first):
    first = part_of(tiny_store, tmp_path / "a.h5", slice(40), as_millivolts=broken_first)
    opened = Store(tiny_store)
    other = part_of(tiny_store, tmp_path / "b.h5", slice(40, 80), as_millivolts=not broken_first)
    data, (_, val, _) = loaders([first, other], SignalSpec(100, 1000))
    assert {store.dtype.name for store in data.stores.stores} == {"int16", "float32"}
    for batch in val:
        assert batch["ecg"].dtype == torch.float32
        np.testing.assert_allclose(batch["ecg"][:, 0], opened.signals()[batch["index"]] * 0.001, atol=1e-6)


def test_a_glob_without_a_file_and_a_store_named_twice_are_refused(tiny_store, tmp_path):
    with pytest.raises(InputError, match=r"none\*\.h5 matches no file: name stores that"):
        StoreSet(str(tmp_path / "none*.h5"))
    with pytest.raises(InputError, match=r"more than once: take it out, or weigh it by data\.weights"):
        StoreSet([tiny_store, tiny_store])
    with pytest.raises(InputError, match="empty list: name one store or more"):
        StoreSet([])


# --- the index, and what is read when ---


def test_the_index_counts_what_the_labels_say(in_blocks):
    labels = TaskLabels(StoreSet(in_blocks), "rhythm")
    for folds in ([1, 2, 3], [9], [42]):
        for only_labelled in (True, False):
            split = Split(labels, folds, only_labelled)
            counted = [len(split.rows([number])) for number in range(len(labels.stores.blocks))]
            assert split.counts.tolist() == counted
            assert len(counted) == 12


def test_a_split_counts_anew_where_the_index_does_not_know(in_blocks):
    high = Split(TaskLabels(StoreSet(in_blocks), "superdiagnostic", 100), [1, 2, 3], True)
    low = Split(TaskLabels(StoreSet(in_blocks), "superdiagnostic", 0), [1, 2, 3], True)
    assert len(high) == len(high.all_rows()) < len(low)


def test_a_large_store_is_checked_block_by_block_where_it_is_read(in_blocks, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_lightning.data.store.CHECKED_AT_OPENING", 3)
    path = shutil.copy(in_blocks, tmp_path / "damaged.h5")
    layout = Store(path)._contents.layouts["statements/likelihood"]
    content = bytearray(path.read_bytes())
    content[layout.offset + 30 * 71] ^= 1  # record 30: block 4
    path.write_bytes(content)
    opened = Store(path)
    opened.column("likelihood", 0, 28)
    with pytest.raises(InputError, match="labels, folds or other tables are not what was written"):
        opened.column("ecg_id", 28, 35)
    with pytest.raises(InputError, match="labels, folds or other tables are not what was written"):
        Store(path).verify()


def test_labels_of_few_blocks_stay_in_memory(in_blocks, tiny_store, monkeypatch):
    monkeypatch.setattr(labelled_blocks, "_BLOCKS_IN_MEMORY", 3)
    labels, whole = TaskLabels(StoreSet(in_blocks), "form"), TaskLabels(StoreSet(tiny_store), "form")
    rows = np.random.default_rng(0).permutation(80)
    for one, other in zip(labels.of(rows), whole.of(rows), strict=True):
        assert np.array_equal(one, other)
    assert len(labels._blocks) == 3
    assert b"LabelledBlock" not in pickle.dumps(labels)  # another process derives what it needs


def test_labels_are_read_where_they_are_asked_for_in_any_order_and_by_a_worker_anew(in_blocks, tiny_store):
    labels, whole = TaskLabels(StoreSet(in_blocks), "form"), TaskLabels(StoreSet(tiny_store), "form")
    rows = np.random.default_rng(0).permutation(80)
    for some in (rows[:3], rows[3:]):
        sent = pickle.loads(pickle.dumps(labels))
        for one, again, other in zip(labels.of(some), sent.of(some), whole.of(some), strict=True):
            assert np.array_equal(one, other)
            assert np.array_equal(again, other)


# --- weights ---


def drawn(store, **arguments):
    data, (train, _, _) = loaders(store, **arguments)
    return data, [row for batch in train for row in batch["index"].tolist()]


@pytest.fixture(scope="module")
def halves(tiny_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    return [part_of(tiny_store, folder / "a.h5", slice(20)), part_of(tiny_store, folder / "b.h5", slice(20, 80))]


def test_weights_are_the_shares_of_the_records_whatever_the_sizes(halves):
    data, rows = drawn(halves, weights=[1, 1])
    assert len(rows) == 64
    first = [row for row in rows if row < 20]
    assert len(first) == 32  # of 16 records: each twice
    assert {first.count(row) for row in set(first)} == {2}
    assert set(first) == set(data.split("train", 0).all_rows().tolist())
    rest = [row for row in rows if row >= 20]
    assert len(rest) == len(set(rest)) == 32


def test_what_a_source_has_too_much_is_used_in_other_epochs(halves):
    data, (train, _, _) = loaders(halves, weights=[1, 1])
    seen = set()
    for epoch in range(6):
        train.batch_sampler.set_epoch(epoch)
        seen |= {row for batch in train for row in batch["index"].tolist()}
    assert seen == set(data.rows("train").tolist())


def test_a_weight_of_zero_leaves_a_source_out_of_training_alone(halves):
    data, rows = drawn(halves, weights=[0, 1])
    assert min(rows) >= 20
    assert min(data.rows("val")) < 20


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [-1, 2], [0, 0]])
def test_weights_that_do_not_fit_the_entries_are_refused(halves, weights):
    with pytest.raises(UsageError, match=r"it takes one weight of 0 or more for each of the 2 entries of data\.store"):
        tiny_data(halves, weights=weights)


def test_patients_of_two_sources_are_never_one(tiny_store, tmp_path):
    first = part_of(tiny_store, tmp_path / "a.h5", slice(40))
    other = part_of(first, tmp_path / "b.h5", slice(None))
    labels = TaskLabels(StoreSet([first, other]), "all")
    one = len(Split(labels, range(1, 9), False, 0).patients())
    assert len(Split(labels, range(1, 9), False).patients()) == 2 * one
    shards = TaskLabels(StoreSet(str(tmp_path / "[ab].h5")), "all")
    assert len(Split(shards, range(1, 9), False).patients()) == one


@pytest.mark.parametrize("change", [{"weights": [2, 1]}, {"weights": None}, {"shuffle_records": 7}])
def test_a_run_is_resumed_on_the_same_mixture_alone(halves, change):
    then = tiny_data(halves, weights=[1, 1]).identity()
    with pytest.raises(UsageError, match=rf"data\.{next(iter(change))} is .*, was .*: take it back, or start anew"):
        tiny_data(halves, **{"weights": [1, 1], **change}).load_state_dict({"epoch": 0, "batch": 1, "of": then})


# --- the command line ---


def test_shards_are_trained_on_and_tested_by_a_glob_through_the_command_line(shards, tmp_path, capfd):
    pattern = str(shards[0].with_name("shard-*.h5"))
    sizes = {"depth": 1, "dim": 12, "heads": 3, "patch": [12, 250]}
    run = tmp_path / "run"
    flags = ["--post_training.probe.epochs", "1", "--post_training.fine_tune.epochs", "1"]
    network = [f"--model.backbone.{name}={value}" for name, value in sizes.items()]
    data = ["--data.store", pattern, "--data.task", "superdiagnostic", "--run", str(run)]
    assert main(["fit", "--model.backbone", "vit", *network, *data, *flags]) == 0
    assert main(["test", "--run", str(run)]) == 0
    found = Predictions.load(run / "predictions" / "test.npz")
    assert found.meta["store"] == [str(path) for path in shards]
    assert found.store is not None
    assert found.store.tolist() == np.repeat(np.arange(8), [1] * 8).tolist()
    assert json.loads((run / "environment.json").read_text())["store"] == [str(path.resolve()) for path in shards]


@pytest.mark.parametrize("named", ["flag", "config"])
def test_a_list_of_stores_is_named_by_flag_or_config_and_kept_in_the_run(halves, tmp_path, monkeypatch, named):
    monkeypatch.chdir(halves[0].parent)
    (tmp_path / "two.yaml").write_text("data: {store: [a.h5, b.h5], weights: [1, 2]}")
    data = {
        "flag": ["--data.store", '["a.h5", "b.h5"]', "--data.weights", "[1, 2]"],
        "config": ["--config", str(tmp_path / "two.yaml")],
    }[named]
    run = tmp_path / "run"
    sizes = ["--model.backbone=vit", "--model.backbone.depth=1", "--model.backbone.dim=12", "--model.backbone.heads=3"]
    flags = ["--post_training.probe.epochs", "1", "--post_training.fine_tune.epochs", "0", "--run", str(run)]
    assert main(["fit", *sizes, *data, *flags]) == 0
    written = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert written["store"] == [str(path) for path in halves]  # a run is read from any folder
    assert written["weights"] == [1.0, 2.0]
    monkeypatch.chdir(tmp_path)
    assert main(["validate", "--run", str(run), "--overwrite"]) == 0

import logging
import pickle
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_ptbxl import read_rows, wfdb, write_table
from shards import cut_into
from tiny import BATCH_SIZE, tiny_data, tiny_vit

from ecg_lightning.backbones import ECGFounder, ViT
from ecg_lightning.chains import Crop, Standardise, ZScore, run_batch_chain
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.signals import SignalSpec

WHOLE = SignalSpec(100, 1000)


def with_signal(store, spec=WHOLE, **arguments):
    return tiny_data(store, **arguments).use_signal(spec)


def in_processes(data, world_size, rank=0, *, device="cpu", network=None):
    """As if the trainer ran so many processes on such a device."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, lightning_module=network, strategy=strategy)
    return data


def dataset(store, spec, *, training=False, seed=3):
    return ECGDataset(TaskLabels(StoreSet(store), "superdiagnostic"), spec, training=training, seed=seed)


# --- splits ---


def test_the_splits_are_the_folds(tiny_store):
    data = tiny_data(tiny_store, train_folds=[1, 2, 3], val_folds=[5], test_folds=[7, 8])
    folds = Store(tiny_store).records["strat_fold"]
    for split, expected in (("train", {1, 2, 3}), ("val", {5}), ("test", {7, 8})):
        assert set(folds[data.rows(split)].tolist()) == expected
        assert len(data.rows(split)) == np.isin(folds, [*expected]).sum()


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (
            {"train_folds": [1, 2], "val_folds": [2, 3]},
            r"fold\(s\) \[2\] are in both data.train_folds and data.val_folds",
        ),
        ({"train_folds": [1, 10]}, r"fold\(s\) \[10\] are in both data.train_folds and data.test_folds"),
        ({"val_folds": [10]}, r"fold\(s\) \[10\] are in both data.val_folds and data.test_folds"),
    ],
)
def test_folds_used_twice_are_refused_with_the_flags(tiny_store, folds, message):
    with pytest.raises(UsageError, match=message):
        tiny_data(tiny_store, **folds)


def test_an_empty_split_is_refused_with_the_folds_that_there_are(tiny_store):
    data = tiny_data(tiny_store, val_folds=[42])
    with pytest.raises(InputError, match=r"val_folds \[42\].*there are folds \[1, 2, 3.*10\]: set --data.val_folds"):
        data.rows("val")


def test_a_fit_says_at_its_start_that_it_cannot_be_tested_on_its_store(tiny_store, caplog):
    for test_folds, told in (([42], True), ([10], False), ([], False)):
        caplog.clear()
        tiny_data(tiny_store, test_folds=test_folds).use_signal(WHOLE).setup("fit")
        assert ("lies in test_folds [42], so this run cannot be tested on it" in caplog.text) == told
        assert ("there are folds [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]: to test on one" in caplog.text) == told


@pytest.mark.parametrize(("named", "empty"), [("test", "train"), ("test", "val"), ("train", "test")])
def test_a_split_that_nothing_asks_for_needs_no_fold(tiny_store, named, empty):
    folds = {"train_folds": [], "val_folds": [], "test_folds": []} | {f"{named}_folds": range(1, 11)}
    data = tiny_data(tiny_store, **folds, keep="all")
    assert len(data.rows(named)) == 80
    with pytest.raises(UsageError, match=rf"data\.{empty}_folds is empty: name at least one fold"):
        data.rows(empty)


@pytest.fixture(scope="module")
def partly_labelled(make_ptbxl, tmp_path_factory):
    """40 records, of which number 3 and 9 (folds 3 and 9) carry a rhythm alone."""
    source = make_ptbxl()
    rows = read_rows(source)
    for number in (3, 9):
        rows[number - 1]["scp_codes"] = "{'SR': 0.0}"
    write_table(source, rows)
    path = tmp_path_factory.mktemp("partly") / "store.h5"
    prepare(source, path, WHOLE, workers=1, progress=False)
    return path


@pytest.mark.parametrize(("keep", "number", "kept"), [("labelled", 31, False), ("all", 32, True)])
def test_records_without_a_label_are_dropped_unless_asked_for(partly_labelled, keep, number, kept):
    data = tiny_data(partly_labelled, keep=keep)
    ids = Store(partly_labelled).records["ecg_id"][data.rows("train")]
    assert (len(ids), 3 in ids) == (number, kept)


def test_records_left_out_of_an_evaluation_are_counted_aloud(partly_labelled, caplog):
    data = with_signal(partly_labelled)
    with caplog.at_level(logging.INFO):
        data.setup("validate")
    assert "val: 3 records of fold(s) 9, 1 without a label left out" in caplog.text


def test_labels_are_those_of_the_task(tiny_store):
    data = tiny_data(tiny_store, task="superdiagnostic")
    assert data.label_names == ("CD", "HYP", "MI", "NORM", "STTC")
    assert data.train_labels().shape == (64, 5)
    assert data.train_labels().any(axis=1).all()


# --- a fraction of the training patients ---


def fraction_of(store, share, **arguments):
    return set(tiny_data(store, train_fraction=share, **arguments).rows("train").tolist())


def test_a_smaller_fraction_lies_inside_a_larger_one(tiny_store):
    parts = [fraction_of(tiny_store, share) for share in (0.1, 0.3, 0.6, 1.0)]
    assert all(one < other for one, other in pairwise(parts))


def test_a_fraction_takes_no_patient_in_part(tiny_store):
    data = tiny_data(tiny_store, train_fraction=0.3)
    patients = Store(tiny_store).records["patient_id"]
    taken = data.rows("train")
    left = np.setdiff1d(tiny_data(tiny_store).rows("train"), taken)
    assert not set(patients[taken].tolist()) & set(patients[left].tolist())


def test_a_fraction_is_a_share_of_the_patients(tiny_store):
    patients = Store(tiny_store).records["patient_id"]
    every, some = (len({*patients[[*fraction_of(tiny_store, share)]]}) for share in (1.0, 0.25))
    assert some == round(0.25 * every)


def test_the_tiniest_fraction_keeps_one_patient(tiny_store):
    assert fraction_of(tiny_store, 1e-6)


def test_another_seed_takes_other_patients_and_the_same_takes_the_same(tiny_store):
    assert fraction_of(tiny_store, 0.3) == fraction_of(tiny_store, 0.3)
    assert fraction_of(tiny_store, 0.3) != fraction_of(tiny_store, 0.3, seed=1)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_fraction_outside_0_to_1_is_refused(tiny_store, share):
    with pytest.raises(UsageError, match=rf"data.train_fraction is {share}, it must lie in 0..1"):
        tiny_data(tiny_store, train_fraction=share)


def test_evaluation_is_never_a_fraction(tiny_store):
    assert len(tiny_data(tiny_store, train_fraction=0.1).rows("val")) == 8


# --- loaders ---


def collected(loader):
    return torch.cat([batch["index"] for batch in loader]).tolist()


def test_training_loaders_of_two_processes_make_up_the_one_of_one(tiny_store):
    whole = [b["index"].tolist() for b in with_signal(tiny_store).train_dataloader()]
    parts = [
        [b["index"].tolist() for b in in_processes(with_signal(tiny_store), 2, rank).train_dataloader()]
        for rank in (0, 1)
    ]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole


def test_the_global_batch_and_each_process_share_are_told(tiny_store, caplog):
    data = in_processes(with_signal(tiny_store), 2)
    with caplog.at_level(logging.INFO):
        data.train_dataloader()
    assert "global batch of 16 records = 2 process(es) x 8" in caplog.text


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_loaders_hold_each_record_once_over_all_processes(tiny_store, split, world_size):
    found = []
    for rank in range(world_size):
        data = in_processes(with_signal(tiny_store), world_size, rank)
        found += collected(data.val_dataloader() if split == "val" else data.test_dataloader())
    assert sorted(found) == tiny_data(tiny_store).rows(split).tolist()


def test_a_global_batch_smaller_than_the_processes_is_refused(tiny_store):
    with pytest.raises(UsageError, match=r"data.batch_size is 2.*split over 3 processes: set it to 3 or more"):
        in_processes(with_signal(tiny_store, batch_size=2), 3).train_dataloader()


def test_fewer_records_to_train_on_than_processes_are_refused(tiny_store):
    data = with_signal(tiny_store, train_fraction=1e-6, batch_size=64)
    processes = len(data.rows("train")) + 1
    with pytest.raises(InputError, match=rf"train has {processes - 1} record\(s\) for {processes} processes"):
        in_processes(data, processes).train_dataloader()


def test_fewer_records_to_judge_than_processes_are_refused(tiny_store):
    data = in_processes(with_signal(tiny_store), 9)
    with pytest.raises(InputError, match=r"val has 8 record\(s\) for 9 processes: use fewer processes"):
        data.val_dataloader()


def test_the_training_loader_starts_at_the_position_of_the_checkpoint(tiny_store):
    data = with_signal(tiny_store)
    first = data.train_dataloader()
    first.batch_sampler.set_epoch(1)
    whole = [b["index"].tolist() for b in first]
    resumed = with_signal(tiny_store)
    resumed.load_state_dict({"epoch": 1, "batch": 2, "of": data.identity()})
    assert [b["index"].tolist() for b in resumed.train_dataloader()] == whole[2:]


def test_a_position_in_other_batches_is_refused_with_both_sides(tiny_store):
    data = with_signal(tiny_store)
    state = {"epoch": 1, "batch": 2, "of": {**data.identity(), "batch_size": 999, "seed": 7}}
    with pytest.raises(UsageError, match=r"data.batch_size is \d+, was 999; data.seed is \d+, was 7: take it back"):
        data.load_state_dict(state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_ahead_takes_nothing_from_the_global_random_stream(tiny_store, num_workers):
    loader = with_signal(tiny_store, num_workers=num_workers).train_dataloader()
    before = torch.get_rng_state()
    next(iter(loader))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pickled_data_set_holds_no_signals_even_when_it_has_read_some(tiny_store):
    data = dataset(tiny_store, WHOLE)
    assert data[0]["ecg"].shape == (1, 1, 12, 1000)
    assert len(pickle.dumps(data)) < data.stores.stores[0].signals().nbytes / 10
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[5]["ecg"], data[5]["ecg"])


def test_signals_can_be_left_out(tiny_store):
    data = with_signal(tiny_store)
    data.leave_signals_out(train=True, evaluation=True)
    assert all("ecg" not in b for loader in (data.train_dataloader(), data.val_dataloader()) for b in loader)
    data.leave_signals_out(train=False, evaluation=False)
    assert all("ecg" in b for loader in (data.train_dataloader(), data.val_dataloader()) for b in loader)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_feature_loader_holds_each_record_of_a_split_once(tiny_store, split):
    data = with_signal(tiny_store)
    assert sorted(collected(data.feature_loader(split))) == sorted(data.rows(split))


def test_the_feature_loader_holds_each_fixed_window_of_training_once(tiny_store):
    data = with_signal(tiny_store, SignalSpec(100, 250))
    data.fix_windows(3)
    assert sorted(collected(data.feature_loader("train"))) == sorted([*data.rows("train")] * 3)


def test_the_feature_loader_holds_what_training_draws_from_weighed_sources(tiny_store, tmp_path):
    """Half of the patients of each source of its own: other records than half of all of them."""
    weighed = with_signal(cut_into(tiny_store, tmp_path, 2), weights=[1, 1], train_fraction=0.5)
    drawn = {*collected(weighed.train_dataloader())}
    assert sorted(collected(weighed.feature_loader("train"))) == sorted(drawn) != sorted(weighed.rows("train"))


# --- what reaches the network ---


def on_device(data, batch):
    return data.on_after_batch_transfer(batch, 0)


def test_millivolts_equal_those_of_wfdb(make_ptbxl, tmp_path):
    source = make_ptbxl(num_records=20, seed=4)
    prepare(source, tmp_path / "store.h5", WHOLE, workers=1, progress=False)
    data = with_signal(tmp_path / "store.h5", SignalSpec(100, 1000, chain=(Crop(),)))
    batch = on_device(data, next(iter(data.val_dataloader())))
    for row, ecg in zip(batch["index"].tolist(), batch["ecg"], strict=True):
        path = source / f"records100/00000/{row + 1:05d}_lr"
        physical = wfdb.rdrecord(str(path)).p_signal.T
        assert ecg.dtype == torch.float32
        np.testing.assert_allclose(ecg[0].numpy(), physical.astype(np.float32), rtol=2e-7, atol=0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("chain", [(Crop(), ZScore("lead")), (Crop(), Standardise(0.1, 2.0), ZScore("record"))])
def test_the_steps_behind_the_crop_run_on_the_batch_as_in_numpy(tiny_store, chain, device):
    data = in_processes(with_signal(tiny_store, SignalSpec(100, 250, chain=chain)), 1, device=device)
    batch = next(iter(data.val_dataloader()))
    millivolts = data.stores.stores[0].signals()[batch["index"].numpy()][:, None, :, 375:625] * np.float64(0.001)
    expected = run_batch_chain(chain[1:], millivolts)
    np.testing.assert_allclose(on_device(data, batch)["ecg"].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_batch_travels_to_a_gpu_as_it_is_stored_and_is_the_same_there(tiny_store):
    batches = {}
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.int16)):
        data = in_processes(with_signal(tiny_store), 1, device=device)
        batch = next(iter(data.train_dataloader()))
        assert batch["ecg"].dtype == dtype
        batches[device] = on_device(data, batch)["ecg"]
    assert torch.equal(batches["cpu"], batches["cuda"])


def test_a_network_in_double_precision_gets_double_precision(tiny_store):
    data = in_processes(with_signal(tiny_store), 1, network=tiny_vit().double())
    batch = on_device(data, next(iter(data.val_dataloader())))
    expected = run_batch_chain((ZScore(),), data.stores.stores[0].signals()[batch["index"].numpy()][:, None] * 0.001)
    assert batch["ecg"].dtype == torch.float64
    np.testing.assert_allclose(batch["ecg"].numpy(), expected, atol=1e-6)


def test_a_batch_without_signals_passes_unchanged(tiny_store):
    batch = {"index": torch.arange(2)}
    assert on_device(with_signal(tiny_store), batch) is batch


# --- a store that does not fit ---


def test_a_store_of_another_rate_is_refused_with_the_command_that_makes_the_right_one(tiny_store):
    data = PTBXLDataModule(str(tiny_store))
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(backbone=ECGFounder(filters=(64,), blocks=(1,))))
    with pytest.raises(InputError) as raised:
        data.setup("fit")
    message = str(raised.value)
    assert "it was made from records of 100 Hz, not of 500 Hz" in message
    assert "ecg-lightning prepare --source PTBXL_DIR --output STORE --backbone ecgfounder" in message


def test_records_shorter_than_the_networks_input_are_refused(tiny_store):
    with pytest.raises(InputError, match=r"1000 time points, not 1200 or more"):
        with_signal(tiny_store, ViT(num_time_points=1200).signal)


def test_a_batch_holds_what_the_training_step_needs(tiny_store):
    batch = next(iter(with_signal(tiny_store).train_dataloader()))
    assert (batch["num_global"], batch["first"]) == (BATCH_SIZE, 0)
    assert batch["ecg"].shape == (BATCH_SIZE, 1, 12, 1000)
    assert batch["labels"].dtype == torch.uint8
    labels = tiny_data(tiny_store).task_labels.of(batch["index"].numpy())[1]
    assert torch.equal(batch["labels"], torch.from_numpy(labels))

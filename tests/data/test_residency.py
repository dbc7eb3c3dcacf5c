import logging
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.fabric.utilities import move_data_to_device
from shards import cut_into, part_of
from tiny import changed, of_lightning, plan, state_of, tiny_classifier, tiny_data, tiny_vit, train
from torch.utils.data import DataLoader

from ecg_lightning.chains import Crop, ZScore
from ecg_lightning.data import residency
from ecg_lightning.data.residency import Resident, fits, places_and_starts
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.signals import SignalSpec, Windows

pytestmark = of_lightning
WHOLE = SignalSpec(100, 1000)
CUT = SignalSpec(100, 250)
ELSEWHERE = pytest.mark.parametrize("where", ["memory", "device"])


def data_in(where, store, spec, *, network=None, rank=0, world_size=1, **arguments):
    """A data module as in a fit on a CPU, its signals copied."""
    data = tiny_data(store, residency=where, **arguments).use_signal(spec)
    device = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(
        global_rank=rank, world_size=world_size, num_devices=world_size, lightning_module=network, strategy=device
    )
    data.copy_signals()
    return data


def all_batches(data, *, epochs=2):
    """All that a fit reads, as it reaches the network."""
    training = data.train_dataloader()
    loaders = []
    for epoch in range(epochs):
        training.batch_sampler.set_epoch(epoch)
        loaders.append([*training])
    loaders += [[*data.val_dataloader()], *([*data.feature_loader(split)] for split in ("train", "val"))]
    return [data.on_after_batch_transfer(batch, 0) for batches in loaders for batch in batches]


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for one, other in zip(batches, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), key


def assert_same_wherever(where, store, spec, **arguments):
    expected = all_batches(data_in("memmap", store, spec, **arguments))
    data = data_in(where, store, spec, **arguments)
    assert (data._on_device is not None) == (where == "device")
    assert (data._datasets["train"].in_memory is not None) == (where == "memory")
    assert_same(all_batches(data), expected)


# --- the same bits ---


@ELSEWHERE
@pytest.mark.parametrize(
    "spec",
    [
        WHOLE,
        CUT,
        SignalSpec(100, 250, windows=Windows(count=3)),
        SignalSpec(100, 250, windows=Windows(train="centre", stride=300)),
        SignalSpec(100, 1000, leads=("V6", "avr", "I")),
        SignalSpec(100, 400, leads=("V6", "avr", "I"), chain=(Crop(), ZScore("lead"))),
    ],
    ids=["whole records", "random windows", "three windows", "strides", "other leads", "windows of other leads"],
)
def test_batches_are_the_same_wherever_the_signals_lie(tiny_store, where, spec):
    assert_same_wherever(where, tiny_store, spec)


@ELSEWHERE
def test_batches_of_many_stores_are_the_same_wherever_the_signals_lie(tiny_store, tmp_path, where):
    cut_into(tiny_store, tmp_path, 7)
    assert_same_wherever(where, tmp_path / "shard-*.h5", CUT)


@ELSEWHERE
@pytest.mark.parametrize("spec", [WHOLE, CUT], ids=["whole", "windows"])
def test_stores_of_other_units_and_leads_are_the_same_wherever_they_lie(tiny_store, tmp_path, where, spec):
    moved = StoreSet(tiny_store).stored.leads[::-1]
    stores = [
        part_of(tiny_store, tmp_path / "a.h5", slice(30)),
        part_of(tiny_store, tmp_path / "b.h5", slice(30, 60), as_millivolts=True),
        part_of(tiny_store, tmp_path / "c.h5", slice(60, 80), leads=moved),
    ]
    assert_same_wherever(where, stores, spec)


@ELSEWHERE
def test_a_store_of_millivolts_is_the_same_wherever_it_lies(tiny_store, tmp_path, where):
    assert_same_wherever(where, part_of(tiny_store, tmp_path / "a.h5", slice(80), as_millivolts=True), CUT)


@ELSEWHERE
def test_weighed_stores_are_the_same_wherever_they_lie(tiny_store, tmp_path, where):
    stores = cut_into(tiny_store, tmp_path, 3)
    assert_same_wherever(where, stores, CUT, weights=[1, 0.2, 0], shuffle_records=20)


@ELSEWHERE
def test_a_fraction_of_the_patients_is_the_same_wherever_it_lies(tiny_store, where):
    assert_same_wherever(where, tiny_store, CUT, train_fraction=0.3)


@ELSEWHERE
def test_a_network_in_double_precision_gets_the_same_bits_wherever_the_signals_lie(tiny_store, where):
    assert_same_wherever(where, tiny_store, WHOLE, network=tiny_vit().double())


@ELSEWHERE
@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_of_a_fit_gets_its_part_wherever_the_signals_lie(tiny_store, where, rank):
    assert_same_wherever(where, tiny_store, CUT, rank=rank, world_size=2)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", ["memmap", "memory", "device"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_threads_that_read_ahead_give_the_same_bits(tiny_store, where, precision, world_size):
    spec = SignalSpec(100, 250, chain=(Crop(), ZScore()))
    network = tiny_classifier(tiny_vit()).to(precision)
    alone, helped = (
        data_in(where, tiny_store, spec, network=network, num_workers=number, world_size=world_size)
        for number in (0, 2)
    )
    assert (helped._datasets["train"].in_memory is not None) == (where == "memory")
    assert_same(all_batches(helped), all_batches(alone))


def as_is(batch):
    return batch


# Python 3.12 and later, where a fork follows threads; the worker touches no lock of theirs.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.parametrize("where", ["memmap", "memory", "device"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_the_same_batches_wherever_the_signals_lie(tiny_store, where, method):
    """As worker processes of a loader of one's own do."""
    data = data_in(where, tiny_store, CUT)
    plain = data.train_dataloader()
    loader = DataLoader(
        plain.dataset, batch_sampler=plain.batch_sampler, collate_fn=as_is, num_workers=1,
        multiprocessing_context=method, generator=torch.Generator(),
    )  # fmt: skip
    got = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    memmap = data_in("memmap", tiny_store, CUT)
    assert_same(got, [memmap.on_after_batch_transfer(batch, 0) for batch in memmap.train_dataloader()])


@given(st.integers(1, 6), st.integers(1, 40), st.data())
def test_windows_are_cut_where_they_were_asked_for(num_windows, width, drawn):
    signals = np.random.default_rng(0).integers(-9, 9, (5, 3, 40)).astype(np.int16)
    rows = np.array([2, 3, 11, 17, 40])
    asked = np.array(drawn.draw(st.lists(st.sampled_from(rows.tolist()), min_size=1, max_size=8)))
    starts = np.array(
        drawn.draw(st.lists(st.integers(0, 40 - width), min_size=num_windows, max_size=num_windows)) * len(asked)
    ).reshape(len(asked), num_windows)
    cuts = torch.from_numpy(places_and_starts(rows, asked, starts))
    got = Resident(rows, torch.from_numpy(signals), width).windows(cuts).numpy()
    for windows, row, places in zip(got, asked, starts, strict=True):
        for window, start in zip(windows, places, strict=True):
            assert np.array_equal(window, signals[rows.tolist().index(row), :, start : start + width])


# --- real fits ---


@ELSEWHERE
@pytest.mark.parametrize("points", [1000, 500], ids=["features once", "random windows"])
def test_a_fit_ends_in_the_same_weights_wherever_the_signals_lie(tiny_store, tmp_path, where, points):
    ends = {}
    for name in ("memmap", where):
        data = tiny_data(tiny_store, residency=name)
        network = tiny_vit(num_time_points=points)
        _, classifier = train(
            tmp_path, tiny_store, plan(1, 2, drop_path_rate=0.3), classifier=tiny_classifier(network), data=data
        )
        ends[name] = state_of(classifier)
        assert data._on_device is None
        assert data._datasets["val"].in_memory is None
    assert changed(ends["memmap"], ends[where]) == []


@ELSEWHERE
def test_a_run_may_go_on_with_its_signals_elsewhere(tiny_store, where):
    identity = tiny_data(tiny_store).use_signal(CUT).identity()
    resumed = data_in(where, tiny_store, CUT)
    resumed.trainer.state = SimpleNamespace(fn="fit")
    resumed.load_state_dict({"epoch": 1, "batch": 2, "of": identity})
    whole = data_in("memmap", tiny_store, CUT)
    loader = whole.train_dataloader()
    loader.batch_sampler.set_epoch(1)
    expected = [whole.on_after_batch_transfer(batch, 0) for batch in loader][2:]
    assert_same([resumed.on_after_batch_transfer(batch, 0) for batch in resumed.train_dataloader()], expected)


# --- what lies where ---


def test_signals_in_memory_need_the_file_no_more(tiny_store, tmp_path):
    store = part_of(tiny_store, tmp_path / "gone.h5", slice(80))
    data = data_in("memory", store, CUT)
    store.unlink()
    assert len(all_batches(data)) > 0


def test_a_batch_brings_no_signal_along_where_they_lie_on_the_device(tiny_store):
    for batch in data_in("device", tiny_store, CUT).train_dataloader():
        assert "ecg" not in batch
        assert batch["cuts"].shape == (len(batch["index"]), 1, 2)


def test_signals_lie_there_as_they_are_stored_and_in_the_backbones_leads(tiny_store):
    data = data_in("device", tiny_store, SignalSpec(100, 250, leads=("V6", "avr", "I")))
    assert data._on_device.signals.dtype == torch.int16
    assert data._on_device.signals.shape == (72, 3, 1000)


@ELSEWHERE
def test_signals_can_be_left_out_wherever_they_lie(tiny_store, where):
    data = data_in(where, tiny_store, CUT)
    data.leave_signals_out(train=True, evaluation=True)
    assert all(batch.keys() == {"index", "labels", "num_global", "first"} for batch in all_batches(data))


@ELSEWHERE
def test_test_records_are_read_from_the_store(tiny_store, where):
    data, plain = (data_in(name, tiny_store, CUT) for name in (where, "memmap"))
    assert_same([*data.test_dataloader()], [*plain.test_dataloader()])


@ELSEWHERE
def test_behind_a_fit_all_records_are_read_from_the_stores_again(tiny_store, where):
    data = data_in(where, tiny_store, CUT)
    before = all_batches(data)
    data.teardown("fit")
    assert data._on_device is None
    assert_same(all_batches(data), before)


@ELSEWHERE
def test_a_record_that_does_not_lie_there_is_no_other_record(tiny_store, where):
    data = data_in(where, tiny_store, CUT)
    elsewhere = data.rows("test")[0]
    with pytest.raises(AssertionError, match="asks for records that are not resident"):
        data._datasets["train"][int(elsewhere)]


@ELSEWHERE
def test_a_data_set_is_sent_to_another_process_without_its_signals(tiny_store, where):
    data = data_in(where, tiny_store, CUT)
    assert len(pickle.dumps(data._datasets["train"])) < 72 * 12 * 1000 * 2 / 10


@ELSEWHERE
def test_only_a_fit_copies_signals(tiny_store, where):
    data = tiny_data(tiny_store, residency=where).use_signal(CUT)
    for stage in ("validate", "test"):
        data.setup(stage)
    assert data._on_device is None
    assert data._datasets["val"].in_memory is None


class Travelling(torch.Tensor):
    """Says how it was sent, there being no GPU."""

    def to(self, device, *, non_blocking=False):
        self.waited_for = not non_blocking
        return self


@pytest.mark.parametrize("where", ["memmap", "memory", "device"])
def test_every_tensor_of_a_batch_is_pinned_and_sent_to_a_gpu_without_waiting(tiny_store, monkeypatch, where):
    data = data_in(where, tiny_store, CUT)
    data.trainer.strategy.root_device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.as_subclass(Travelling))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    batch = next(iter(data.train_dataloader()))
    tensors = {name for name, value in batch.items() if isinstance(value, torch.Tensor)}
    assert tensors == {"index", "labels", "cuts" if where == "device" else "ecg"}
    sent = move_data_to_device(batch, torch.device("cuda", 0))
    assert all(isinstance(sent[name], Travelling) and not sent[name].waited_for for name in tensors)


def test_nothing_is_pinned_for_a_fit_on_the_cpu_of_a_machine_with_a_gpu(tiny_store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not data_in("memmap", tiny_store, CUT).train_dataloader().pin_memory


# --- how much memory ---


def test_the_size_is_told(tiny_store, caplog):
    with caplog.at_level(logging.INFO):
        data_in("device", tiny_store, CUT)
    assert "signals of 72 records on cpu: 0.00 GB, copied in" in caplog.text


@ELSEWHERE
def test_what_does_not_fit_is_read_from_the_store_and_said_so(tiny_store, monkeypatch, caplog, where):
    expected = all_batches(data_in("memmap", tiny_store, CUT))
    monkeypatch.setattr(residency, "MOST_SHARE", 1e-9)
    data = data_in(where, tiny_store, CUT)
    assert "signals of 72 records take 0.00 GB" in caplog.text
    assert "they are read through memory maps instead, as with data.residency=memmap" in caplog.text
    assert_same(all_batches(data), expected)


NEED = 72 * 12 * 1000 * 2


@pytest.mark.parametrize(
    ("total", "processes", "fitting"),
    [(2 * NEED, 1, True), (2 * NEED - 2, 1, False), (4 * NEED, 2, True), (4 * NEED - 2, 2, False)],
)
def test_copies_of_all_processes_may_take_half_of_the_machine(tiny_store, monkeypatch, total, processes, fitting):
    monkeypatch.setattr(residency, "_memory_of_machine", lambda: (total, total))
    assert fits(StoreSet(tiny_store), 72, CUT, torch.device("cpu"), processes) == fitting


def test_a_copy_takes_no_more_of_the_machine_than_is_free(tiny_store, monkeypatch, caplog):
    monkeypatch.setattr(residency, "_memory_of_machine", lambda: (NEED - 1, 9 * NEED))
    assert not fits(StoreSet(tiny_store), 72, CUT, torch.device("cpu"))
    assert "of the memory of this machine" in caplog.text


def test_the_machine_has_no_more_memory_free_than_in_all():
    free, total = residency._memory_of_machine()
    assert 0 < free < total


@pytest.mark.parametrize(
    ("free", "total", "fitting"), [(NEED, 2 * NEED, True), (NEED - 1, 9 * NEED, False), (NEED, 2 * NEED - 2, False)]
)
def test_a_copy_may_take_half_of_a_gpu_and_what_is_free_of_it(tiny_store, monkeypatch, free, total, fitting):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))
    assert fits(StoreSet(tiny_store), 72, CUT, torch.device("cuda", 0), 8) == fitting

"""Which part of a record a batch holds: random, fixed and evaluation windows, leads by name."""

import numpy as np
import pytest
import torch
from tiny import tiny_data

from ecg_lightning.data import window_starts
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.store import Store
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.signals import SignalSpec, Windows

WHOLE = SignalSpec(100, 1000)


def windows(store, spec, rows, *, epoch=0, training=False, seed=3):
    """(record, window, lead, time) as they are stored."""
    labels = TaskLabels(StoreSet(store), "superdiagnostic")
    dataset = ECGDataset(labels, spec, training=training, seed=seed)
    return dataset.__getitems__(Request(np.array(rows), epoch, 0, len(rows)))["ecg"].numpy()


def test_a_whole_record_is_what_is_stored(tiny_store):
    assert np.array_equal(windows(tiny_store, WHOLE, [4, 2])[:, 0], Store(tiny_store).signals()[[4, 2]])


def place_of(window, record):
    """Time points at which a window of a record may have been cut."""
    width = window.shape[-1]
    return [s for s in range(record.shape[-1] - width + 1) if np.array_equal(record[:, s : s + width], window)]


def random_starts(store, *, epoch=0, seed=3, rows=range(20)):
    cut, signals = (
        windows(store, SignalSpec(100, 250), [*rows], epoch=epoch, seed=seed, training=True),
        Store(store).signals(),
    )
    assert cut.shape[1] == 1
    return [place_of(window[0], signals[row])[0] for row, window in zip(rows, cut, strict=True)]


def test_training_windows_are_random_over_records(tiny_store):
    starts = random_starts(tiny_store, rows=range(80))
    assert len(set(starts)) > 40
    assert 0 <= min(starts) < 100
    assert 650 < max(starts) <= 750


def test_training_windows_are_the_same_for_the_same_seed_and_epoch(tiny_store):
    assert random_starts(tiny_store) == random_starts(tiny_store)


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 4}])
def test_training_windows_are_others_in_another_epoch_or_under_another_seed(tiny_store, other):
    assert random_starts(tiny_store) != random_starts(tiny_store, **other)


def test_a_record_is_cut_alike_whichever_batch_it_is_in(tiny_store):
    assert random_starts(tiny_store)[7] == random_starts(tiny_store, rows=[9, 7])[1]


def test_training_windows_belong_to_the_record_not_to_its_row(tiny_store):
    ids = Store(tiny_store).records["ecg_id"]
    assert ids[5] == 6
    assert random_starts(tiny_store)[5] == window_starts.random_starts(3, 0, np.array([6]), 750)[0]


def test_training_windows_can_be_cut_from_the_middle(tiny_store):
    spec = SignalSpec(100, 250, windows=Windows(train="centre"))
    assert place_of(windows(tiny_store, spec, [0], training=True)[0, 0], Store(tiny_store).signals()[0]) == [375]


@pytest.mark.parametrize(
    ("cut", "starts"),
    [
        (Windows(), [375]),
        (Windows(count=2), [0, 750]),
        (Windows(count=4), [0, 250, 500, 750]),
        (Windows(stride=300), [0, 300, 600]),
    ],
)
def test_evaluation_windows_are_those_of_the_spec_in_every_epoch(tiny_store, cut, starts):
    spec = SignalSpec(100, 250, windows=cut)
    for epoch in (0, 5):
        got = windows(tiny_store, spec, [3], epoch=epoch)[0]
        assert [place_of(window, Store(tiny_store).signals()[3])[0] for window in got] == starts


@pytest.mark.parametrize("num_time_points", [1000, 250])
def test_leads_are_taken_by_name_in_the_backbones_order(tiny_store, num_time_points):
    spec = SignalSpec(100, num_time_points, leads=("V6", "avr", "I"))
    first = (1000 - num_time_points) // 2
    expected = Store(tiny_store).signals()[8][[11, 3, 0], first : first + num_time_points]
    assert np.array_equal(windows(tiny_store, spec, [8])[0, 0], expected)


@pytest.mark.parametrize(
    ("spec", "train", "val"),
    [
        (WHOLE, 1, 1),
        (SignalSpec(100, 250), 0, 1),
        (SignalSpec(100, 250, windows=Windows(count=3)), 0, 3),
        (SignalSpec(100, 250, windows=Windows(train="centre", stride=250)), 1, 4),
    ],
)
def test_windows_of_a_record_are_counted_over_all_epochs(tiny_store, spec, train, val):
    data = tiny_data(tiny_store).use_signal(spec)
    assert (data.num_windows("train"), data.num_windows("val")) == (train, val)


def test_fixed_windows_are_those_of_the_first_epochs_in_turn(tiny_store):
    cut = SignalSpec(100, 250)
    fixed, free = (tiny_data(tiny_store).use_signal(cut) for _ in range(2))
    fixed.fix_windows(2)
    assert fixed.num_windows("train") == 2
    rows = [5, 0, 7]

    def window(data, epoch):
        return data._datasets["train"].__getitems__(Request(np.array(rows), epoch, 0, 3))["ecg"]

    for epoch in range(5):
        assert torch.equal(window(fixed, epoch), window(free, epoch % 2))
    fixed.fix_windows(0)
    assert torch.equal(window(fixed, 4), window(free, 4))
    assert not torch.equal(window(free, 4), window(free, 0))

"""The threads that read ahead: in order, side by side, so many batches ahead, and gone with their loader."""

import gc
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shards import cut_into
from tiny import tiny_data

from ecg_lightning.data import labelled_blocks
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.loading import MORE_AHEAD, BatchLoader
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.errors import InputError
from ecg_lightning.signals import SignalSpec

SECONDS = 10


class Made:
    """Each request is its batch, made when ``ready`` says so; who made which is written down."""

    def __init__(self, ready: Any = lambda request: None) -> None:
        self.ready, self.by = ready, {}  # type: ignore[var-annotated]

    def __getitems__(self, request: Any) -> Any:
        self.by[request] = threading.current_thread().name
        self.ready(request)
        return {"request": request}

    def __len__(self) -> int:
        return 1


def loader(data: Any, requests: Any, **arguments: Any) -> BatchLoader:
    return BatchLoader(data, requests, **arguments)


def requests_of(batches: Any) -> list[Any]:
    return [batch["request"] for batch in batches]


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reads-ahead")]


def settled(of: Any, expected: Any) -> bool:
    """Whether that comes, and stays for a moment."""
    end = time.monotonic() + SECONDS
    while of() != expected and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    return bool(of() == expected)


@pytest.fixture(autouse=True)
def _no_reader_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert readers() == []


@given(st.integers(0, 20), st.integers(0, 5), st.data())
def test_batches_come_in_the_order_in_which_they_were_asked_for(number: int, threads: int, drawn: Any) -> None:
    waits = [drawn.draw(st.sampled_from([0, 0.001, 0.003])) for _ in range(number)]
    data = Made(lambda request: time.sleep(waits[request]))
    assert requests_of(loader(data, range(number), num_threads=threads)) == [*range(number)]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_are_so_many_batches_ahead_of_the_step_and_no_more(threads: int) -> None:
    data = Made()
    batches = iter(loader(data, range(50), num_threads=threads))
    for step in range(3):
        next(batches)
        assert settled(lambda: len(data.by), step + 1 + threads + MORE_AHEAD)
    assert {name.partition("_")[0] for name in data.by.values()} == {"reads-ahead"}


def test_without_threads_a_batch_is_made_where_and_when_it_is_asked_for() -> None:
    data = Made()
    batches = iter(loader(data, range(50)))
    next(batches)
    assert data.by == {0: threading.current_thread().name}


def test_threads_make_batches_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=SECONDS)
    data = Made(lambda request: together.wait() if request < 3 else None)
    assert requests_of(loader(data, range(6), num_threads=3)) == [*range(6)]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_batch_that_cannot_be_made_says_so_where_it_was_asked_for(threads: int) -> None:
    def refuse(request: int) -> None:
        if request == 3:
            raise InputError("store.h5 has changed")

    batches = iter(loader(Made(refuse), range(9), num_threads=threads))
    assert [next(batches)["request"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"store\.h5 has changed"):
        next(batches)


def test_what_is_not_begun_when_an_iterator_is_closed_is_never_made() -> None:
    data = Made(lambda request: time.sleep(0.3 * bool(request)))
    batches = iter(loader(data, range(50), num_threads=2))
    next(batches)
    assert settled(lambda: len(data.by), 3)
    batches.close()  # type: ignore[attr-defined]
    assert [*data.by] == [0, 1, 2]


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_threads_end_with_an_iterator_that_is_not_read_to_its_end(how: str) -> None:
    data = Made()
    batches = iter(loader(data, range(50), num_threads=2))
    next(batches)
    assert settled(lambda: len(data.by), 3 + MORE_AHEAD)
    if how == "closed":
        batches.close()  # type: ignore[attr-defined]
    else:
        del batches
        gc.collect()
    assert readers() == []
    assert len(data.by) == 3 + MORE_AHEAD


def test_each_thread_takes_the_gpu_that_it_pins_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every process of a machine would open its first GPU as well."""
    current = {}
    gpu = torch.device("cuda", 3)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: current.update({threading.current_thread().name: device})
    )
    data = Made()
    assert len([*loader(data, range(20), num_threads=2, pin_for=gpu)]) == 20
    assert set(data.by.values()) <= current.keys()
    assert set(current.values()) == {gpu}


@pytest.mark.parametrize("pins", [False, True])
def test_threads_that_pin_take_one_core_each_and_the_thread_that_trains_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch, pins: bool
) -> None:
    """In a new thread, in which torch has not yet settled how many it uses; torch keeps one number for all such."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    before, found, trains = torch.get_num_threads(), {}, []
    data = Made(lambda request: found.update({request: torch.get_num_threads()}))

    def train() -> None:
        torch.set_num_threads(3)
        pin_for = torch.device("cuda", 0) if pins else None
        trains.append(len([*loader(data, range(9), num_threads=2, pin_for=pin_for)]))
        trains.append(torch.get_num_threads())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert trains == [9, 3]
    assert set(found.values()) == {1 if pins else 3}


# --- on a store ---


def windows(store: Path, num_workers: int) -> Any:
    return tiny_data(store, batch_size=7, num_workers=num_workers).use_signal(SignalSpec(100, 250))


def test_what_is_kept_of_a_batch_never_changes_while_others_are_made(tiny_store: Path) -> None:
    data = windows(tiny_store, 3)
    kept = [(batch["ecg"], batch["ecg"].clone()) for _ in range(5) for batch in data.train_dataloader()]
    assert all(torch.equal(now, then) for now, then in kept)


def test_the_memory_of_batches_that_are_done_with_is_used_again(tiny_store: Path) -> None:
    data = windows(tiny_store, 2)
    places = [batch["ecg"].data_ptr() for _ in range(5) for batch in data.train_dataloader()]
    most = 2 + MORE_AHEAD + 2 + 2  # in the making and ready; in the step and taken behind it; held by a thread at rest
    assert len(set(places)) <= most < len(places)


def test_an_epoch_is_told_to_the_threads(tiny_store: Path) -> None:
    epochs = []
    for num_workers in (0, 2):
        data = windows(tiny_store, num_workers)
        training = data.train_dataloader()
        for epoch in range(2):
            training.batch_sampler.set_epoch(epoch)
            epochs.append([batch["ecg"].clone() for batch in training])
    first, second, *ahead = (torch.cat(batches) for batches in epochs)
    assert all(map(torch.equal, (first, second), ahead))
    assert not torch.equal(first, second)


def test_many_threads_read_the_labels_of_more_blocks_than_are_kept(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = StoreSet(cut_into(tiny_store, tmp_path, 8))
    expected = TaskLabels(StoreSet(tiny_store), "superdiagnostic").of(np.arange(stores.num_records))
    monkeypatch.setattr(labelled_blocks, "_BLOCKS_IN_MEMORY", 2)
    labels = TaskLabels(stores, "superdiagnostic")
    rng = np.random.default_rng(0)
    asked = [rng.permutation(stores.num_records)[:9] for _ in range(400)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        data = SimpleNamespace(__getitems__=lambda number: labels.of(asked[number]), __len__=lambda: 1)
        found = [*loader(data, range(len(asked)), num_threads=4)]
    finally:
        sys.setswitchinterval(before)
    for rows, (_, got) in zip(asked, found, strict=True):
        assert np.array_equal(got, expected[1][rows])


def test_threads_read_what_is_read_without_them(tiny_store: Path) -> None:
    data = ECGDataset(TaskLabels(StoreSet(tiny_store), "all"), SignalSpec(100, 1000), training=False, seed=3)
    requests = [Request(np.array(rows), 0, 0, 3) for rows in ([0, 1, 2], [5, 3, 4])]
    for request, batch in zip(requests, loader(data, requests, num_threads=2), strict=True):
        for name, value in data.__getitems__(request).items():
            assert torch.equal(torch.as_tensor(batch[name]), torch.as_tensor(value)), name

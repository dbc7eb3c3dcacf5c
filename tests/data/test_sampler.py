from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_lightning.data.sampler import EvaluationBatches, FixedChunks, Shuffled, TrainingBatches, Weighted

sizes = st.integers(1, 200)
batch_sizes = st.integers(1, 64)
worlds = st.integers(1, 8)


def rows_of(num_records):
    """Places that are not 0, 1, 2 ..., so that an index of an index shows."""
    return np.arange(num_records) * 3 + 7


class Blocks:
    """Those records in blocks of uneven sizes, every third one empty; counts the blocks that are read."""

    def __init__(self, num_records, block_size=13):
        rows = rows_of(num_records)
        full = [rows[start : start + block_size] for start in range(0, num_records, block_size)]
        self.blocks = [part for one in full for part in (one[:5], one[5:], one[:0])]
        self.counts = np.array([len(part) for part in self.blocks])
        self.read = []

    def rows(self, numbers):
        self.read += numbers
        return np.concatenate([self.blocks[number] for number in numbers])


def training(num_records, batch_size, *, shuffle_records=10**6, rank=0, world_size=1, seed=1, epoch=0, start=0):
    order = Shuffled(Blocks(num_records), shuffle_records)
    batches = TrainingBatches(order, batch_size, seed=seed, rank=rank, world_size=world_size)
    batches.epoch, batches.start = epoch, start
    return batches


def drawn(batches):
    return [request.rows.tolist() for request in batches]


def in_one(parts):
    return [*chain.from_iterable(parts)]


@given(num_records=sizes, batch_size=batch_sizes, world_size=worlds, epoch=st.integers(0, 3))
def test_the_parts_of_all_processes_are_the_global_batch_in_order(num_records, batch_size, world_size, epoch):
    whole = drawn(training(num_records, batch_size, epoch=epoch))
    processes = [
        [*training(num_records, batch_size, rank=rank, world_size=world_size, epoch=epoch)]
        for rank in range(world_size)
    ]
    for number, shared in enumerate(zip(*processes, strict=True)):
        parts = [part for part in shared if part.counts]
        assert [row for part in parts for row in part.rows.tolist()] == whole[number]
        assert {part.num_global for part in parts} == {len(whole[number])}
        assert [part.first for part in parts] == np.cumsum([0, *(len(part.rows) for part in parts[:-1])]).tolist()


@given(num_records=sizes, batch_size=batch_sizes, world_size=worlds)
def test_the_processes_parts_differ_by_one_record_at_most(num_records, batch_size, world_size):
    processes = [[*training(num_records, batch_size, rank=rank, world_size=world_size)] for rank in range(world_size)]
    for parts in zip(*processes, strict=True):
        lengths = [len(part.rows) for part in parts]
        assert max(lengths) - min(lengths) <= 1


@given(num_records=sizes, world_size=worlds, more=st.integers(0, 60))
def test_no_process_is_ever_without_a_record(num_records, world_size, more):
    for rank in range(world_size):
        batches = training(num_records, world_size + more, rank=rank, world_size=world_size)
        assert all(len(request.rows) for request in batches)


@given(num_records=sizes, batch_size=batch_sizes, epoch=st.integers(0, 3))
def test_each_record_is_trained_on_once_per_epoch(num_records, batch_size, epoch):
    rows = in_one(drawn(training(num_records, batch_size, epoch=epoch)))
    assert sorted(rows) == rows_of(num_records).tolist()


def test_a_process_without_a_record_of_a_short_batch_gets_one_that_does_not_count():
    last = [[*training(9, 8, rank=rank, world_size=2)][-1] for rank in range(2)]
    assert [request.counts for request in last] == [True, False]
    assert [request.rows.tolist() for request in last] == [last[0].rows.tolist()] * 2


def test_an_uneven_last_batch_is_kept():
    assert [len(rows) for rows in drawn(training(10, 4, world_size=2))] == [2, 2, 1]


@given(num_records=sizes, batch_size=batch_sizes, world_size=worlds)
def test_its_length_is_the_number_of_its_batches(num_records, batch_size, world_size):
    batches = training(num_records, batch_size, world_size=world_size)
    assert len(batches) == len(drawn(batches))


def test_the_same_seed_and_epoch_give_the_same_order():
    assert drawn(training(50, 8, seed=3, epoch=2)) == drawn(training(50, 8, seed=3, epoch=2))


@pytest.mark.parametrize("other", [{"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}, {"seed": 2, "epoch": 3}])
def test_another_seed_or_epoch_gives_another_order(other):
    assert drawn(training(50, 8, seed=3, epoch=2)) != drawn(training(50, 8, **other))


@given(num_records=sizes, batch_size=batch_sizes, data=st.data())
def test_a_resumed_epoch_goes_on_with_exactly_the_batches_that_are_left(num_records, batch_size, data):
    whole = drawn(training(num_records, batch_size, epoch=2))
    start = data.draw(st.integers(0, len(whole)))
    assert drawn(training(num_records, batch_size, epoch=2, start=start)) == whole[start:]


def test_a_resumed_epoch_counts_all_of_its_batches():
    assert len(training(50, 8, start=3)) == 7


def test_staying_in_the_resumed_epoch_keeps_the_position():
    batches = training(50, 8, epoch=2, start=3)
    batches.set_epoch(2)
    assert drawn(batches) == drawn(training(50, 8, epoch=2))[3:]


def test_the_epoch_behind_a_resumed_one_starts_at_its_first_batch():
    batches = training(50, 8, epoch=2, start=3)
    batches.set_epoch(3)
    assert drawn(batches) == drawn(training(50, 8, epoch=3))


def test_lightning_finds_set_epoch_where_it_looks_for_it():
    batches = training(50, 8)
    batches.sampler.set_epoch(1)
    assert batches.epoch == 1


def test_an_epoch_set_behind_the_iterators_start_does_not_change_its_order():
    batches = training(50, 8)
    expected, iterator = drawn(batches), iter(batches)
    got = [next(iterator).rows.tolist()]
    batches.set_epoch(1)
    assert got + [request.rows.tolist() for request in iterator] == expected


@given(num_records=sizes, batch_size=batch_sizes, world_size=worlds)
def test_each_record_is_evaluated_exactly_once(num_records, batch_size, world_size):
    ranks = [
        EvaluationBatches(Blocks(num_records), batch_size, rank=r, world_size=world_size) for r in range(world_size)
    ]
    rows = [row for batches in ranks for request in batches for row in request.rows.tolist()]
    assert sorted(rows) == rows_of(num_records).tolist()
    assert all(len(batches) == len([*batches]) for batches in ranks)


@given(num_records=sizes, chunk_size=batch_sizes, world_size=worlds)
def test_a_feature_chunk_is_the_same_whoever_computes_it(num_records, chunk_size, world_size):
    rows = rows_of(num_records)
    ranks = [FixedChunks(rows, chunk_size, rank=r, world_size=world_size) for r in range(world_size)]
    assert sorted(map(tuple, in_one(map(drawn, ranks)))) == sorted(map(tuple, drawn(FixedChunks(rows, chunk_size))))
    assert sorted(in_one(drawn(FixedChunks(rows, chunk_size)))) == rows.tolist()


def test_a_feature_chunk_comes_once_for_each_epoch():
    chunks = FixedChunks(rows_of(5), 2, epochs=3)
    assert [(len(request.rows), request.epoch) for request in chunks] == [
        *((2, 0), (2, 1), (2, 2)), *((2, 0), (2, 1), (2, 2)), *((1, 0), (1, 1), (1, 2))
    ]  # fmt: skip
    assert len(chunks) == 9


# --- more records than are mixed at a time ---

windows = st.integers(1, 80)


@given(num_records=sizes, batch_size=batch_sizes, window=windows, epoch=st.integers(0, 3))
def test_each_record_is_trained_on_once_however_few_are_mixed(num_records, batch_size, window, epoch):
    rows = in_one(drawn(training(num_records, batch_size, shuffle_records=window, epoch=epoch)))
    assert sorted(rows) == rows_of(num_records).tolist()


@given(num_records=sizes, batch_size=batch_sizes, window=windows, data=st.data())
def test_an_epoch_in_pieces_goes_on_where_it_stopped(num_records, batch_size, window, data):
    whole = drawn(training(num_records, batch_size, shuffle_records=window, epoch=2))
    start = data.draw(st.integers(0, len(whole)))
    assert drawn(training(num_records, batch_size, shuffle_records=window, epoch=2, start=start)) == whole[start:]


def test_a_data_set_that_fits_is_shuffled_as_a_whole():
    expected = np.random.default_rng((1, 2)).permutation(rows_of(100)).tolist()
    assert in_one(drawn(training(100, 8, shuffle_records=100, epoch=2))) == expected


def test_few_blocks_are_read_at_a_time_and_none_twice():
    order = Shuffled(Blocks(200), 20)
    pieces, read = order.pieces(1, 0), []
    for piece in pieces:
        assert len(piece) <= 20 + 8  # and one more block
        read.append(len(order.blocks.read))
    assert len(read) >= 8
    assert sorted(order.blocks.read) == np.flatnonzero(order.blocks.counts).tolist()


def test_blocks_behind_a_checkpoint_are_not_read():
    order = Shuffled(Blocks(200), 20)
    rest = np.concatenate([*order.pieces(1, 0, skip=150)])
    assert len(rest) == 50
    assert order.blocks.counts[order.blocks.read].sum() < 50 + 28


def test_records_that_lie_together_are_not_trained_on_together():
    order = np.concatenate([*Shuffled(Blocks(200), 60).pieces(1, 0)])
    assert (np.abs(np.diff(order)) == 3).mean() < 0.1


class Listed:
    """An order without any shuffling: which cycle a record is from stands in its thousands."""

    def __init__(self, first, num_records):
        self.first, self.num_records = first, num_records

    def __len__(self):
        return self.num_records

    def pieces(self, *key, skip=0):
        yield np.arange(self.num_records) + self.first + 1000 * key[-1]


weight_lists = st.lists(st.floats(0.01, 10), min_size=1, max_size=4)


@given(weights=weight_lists, num_records=st.integers(1, 60), window=windows)
def test_weighted_orders_give_their_shares_in_every_stretch(weights, num_records, window):
    orders = [Listed(100 * number, num_records + number) for number in range(len(weights))]
    weighted = Weighted(orders, weights, window)
    pieces = [*weighted.pieces(5, 1)]
    assert sum(map(len, pieces)) == len(weighted) == sum(map(len, orders))
    for piece in pieces:
        drawn_from = np.bincount(piece % 1000 // 100, minlength=len(weights))
        assert np.abs(drawn_from - np.array(weights) / sum(weights) * len(piece)).max() < 1


@given(weights=weight_lists, num_records=st.integers(1, 60), window=windows)
def test_a_weighted_order_begins_a_source_anew_only_when_all_of_it_was_used(weights, num_records, window):
    orders = [Listed(100 * number, num_records + number) for number in range(len(weights))]
    rows = np.concatenate([*Weighted(orders, weights, window).pieces(5, 1)])
    for number, order in enumerate(orders):
        mine = rows[rows % 1000 // 100 == number]
        whole, rest = divmod(len(mine), len(order))
        for cycle in range(1, whole + 1):
            assert (mine // 1000 == cycle).sum() == len(order)
        assert (mine // 1000 == whole + 1).sum() == rest


@given(weights=weight_lists, skip=st.integers(0, 50), window=windows)
def test_a_weighted_order_goes_on_where_it_stopped(weights, skip, window):
    orders = [Shuffled(Blocks(20 + number), window) for number in range(len(weights))]
    whole = np.concatenate([*Weighted(orders, weights, window).pieces(5, 1)])
    rest = [*Weighted(orders, weights, window).pieces(5, 1, skip=skip)]
    assert np.concatenate([*rest, rows_of(0)]).tolist() == whole[skip:].tolist()

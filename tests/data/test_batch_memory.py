import pickle
import sys
import threading
import time

import numpy as np
import pytest
import torch

from ecg_lightning.data.batch_memory import KEPT, BatchMemory

SHAPE = (4, 1, 2, 50)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_holds_is_given_out_again():
    memory = BatchMemory()
    addresses = [address(memory.empty(SHAPE, np.float32)) for _ in range(5)]
    assert len(set(addresses)) == 1


@pytest.mark.parametrize(
    "kept",
    [
        lambda array: array,
        lambda array: array[1:, :, 0],
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[2].squeeze(),
        lambda array: torch.from_numpy(array).detach().view(-1),
    ],
    ids=["array", "view", "tensor", "part of a tensor", "view of a tensor"],
)
def test_what_a_caller_keeps_is_never_written_again(kept):
    memory = BatchMemory()
    first = memory.empty(SHAPE, np.float32)
    first[...] = 1
    held = kept(first)
    del first
    for _ in range(2 * KEPT):
        memory.empty(SHAPE, np.float32)[...] = 2
    assert (held == 1).all()


def test_what_a_step_saved_for_its_gradient_is_not_written_again():
    memory = BatchMemory()
    ecg = memory.empty(SHAPE, np.float32)
    ecg[...] = 3
    weight = torch.ones(50, requires_grad=True)
    loss = (torch.from_numpy(ecg) * weight).sum()
    del ecg
    memory.empty(SHAPE, np.float32)[...] = 7
    loss.backward()
    assert (weight.grad == 3 * 8).all()


def test_a_smaller_last_batch_lies_in_the_same_memory():
    memory = BatchMemory()
    whole = address(memory.empty(SHAPE, np.float32))
    last = memory.empty((3, *SHAPE[1:]), np.float32)
    assert last.shape == (3, *SHAPE[1:])
    assert address(last) == whole


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 1, 2, 60), np.float32), (SHAPE, np.int16), ((5, 1, 2, 50), np.float32)]
)
def test_another_shape_or_kind_gets_memory_of_its_own(shape, dtype):
    memory = BatchMemory()
    memory.empty(SHAPE, np.float32)
    other = memory.empty(shape, dtype)
    assert (other.shape, other.dtype) == (shape, dtype)


def test_no_more_than_a_few_arrays_are_remembered():
    memory = BatchMemory()
    held = [memory.empty((size, 10), np.float32) for size in range(1, 20)]
    assert len(memory._arrays) == KEPT
    assert len({address(array) for array in held}) == 19


def test_a_pickled_memory_is_empty():
    memory = BatchMemory()
    memory.empty(SHAPE, np.float32)
    assert pickle.loads(pickle.dumps(memory))._arrays == []


def test_threads_that_ask_at_the_same_time_get_each_its_own():
    memory = BatchMemory(kept=8)
    taken = []

    def ask(number):
        for _ in range(3000):
            array = memory.empty(SHAPE, np.int64)
            array[...] = number
            time.sleep(0)  # another thread's turn
            taken.append(not (array == number).all())

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(taken) == 4 * 3000
    assert not any(taken)

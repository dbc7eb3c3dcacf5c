import logging
import os
import random
import signal
import sys
import warnings

import numpy as np
import pytest
import torch

from ecg_lightning.experiment.contained import Stops, contained


def nobody(number, frame):
    pass


LEAKS = {
    "python's random state": (lambda: random.seed(7), random.getstate),
    "numpy's random state": (lambda: np.random.seed(7), lambda: np.random.get_state()[1].tolist()),
    "torch's random state": (lambda: torch.manual_seed(7), lambda: torch.get_rng_state().tolist()),
    "a new variable": (lambda: os.environ.update(ECG_NEW="1"), lambda: os.environ.get("ECG_NEW")),
    "another variable": (lambda: os.environ.update(PATH="/none"), lambda: os.environ["PATH"]),
    "a lost variable": (lambda: os.environ.pop("HOME"), lambda: os.environ.get("HOME")),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "threads": (lambda: torch.set_num_threads(2), torch.get_num_threads),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "precision": (lambda: torch.set_float32_matmul_precision("medium"), torch.get_float32_matmul_precision),
    "determinism": (lambda: torch.use_deterministic_algorithms(True), torch.are_deterministic_algorithms_enabled),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), lambda: torch.backends.cudnn.benchmark),
    "a log handler": (
        lambda: logging.getLogger("lightning.pytorch").addHandler(logging.NullHandler()),
        lambda: [*logging.getLogger("lightning.pytorch").handlers],
    ),
    "a log level": (
        lambda: logging.getLogger("ecg_lightning").setLevel(7),
        lambda: logging.getLogger("ecg_lightning").level,
    ),
    "a warning filter": (lambda: warnings.simplefilter("ignore"), lambda: [*warnings.filters]),
    "Ctrl-C": (lambda: signal.signal(signal.SIGINT, nobody), lambda: signal.getsignal(signal.SIGINT)),
    "SIGTERM": (lambda: signal.signal(signal.SIGTERM, nobody), lambda: signal.getsignal(signal.SIGTERM)),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_what_a_run_sets_is_put_back(name):
    leak, state = LEAKS[name]
    before = state()
    with contained([]):
        leak()
        changed = state() != before
    assert changed
    assert state() == before


def test_it_is_put_back_behind_an_error_as_well():
    with pytest.raises(KeyError), contained([]):  # noqa: PT012
        os.environ["ECG_NEW"] = "1"
        raise KeyError
    assert "ECG_NEW" not in os.environ


def test_a_run_sees_its_own_command_line():
    before = sys.argv
    with contained(["fit", "--run", "r"]):
        assert sys.argv == ["ecg-lightning", "fit", "--run", "r"]
    assert sys.argv is before


def test_sigterm_between_fits_ends_what_is_going_on():
    with Stops() as stops, pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert (ended.value.code, stops.exit_code) == (143, 143)


def test_sigterm_in_a_fit_is_left_to_the_trainer_once_it_listens():
    with Stops() as stops:
        ours = signal.getsignal(signal.SIGTERM)
        stops.fitting = True
        signal.signal(signal.SIGTERM, lambda *arguments: ours(*arguments))  # as Lightning calls those before it
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.received == signal.SIGTERM


def test_sigterm_in_a_fit_that_does_not_listen_yet_ends_it():
    with Stops() as stops:
        stops.fitting = True
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)


def test_ctrl_c_is_130_and_a_worker_leaves_it_alone():
    with Stops() as stops, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert stops.exit_code == 130
    before = signal.getsignal(signal.SIGINT)
    with Stops(interrupts=False):
        assert signal.getsignal(signal.SIGINT) is before


def test_the_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Stops():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

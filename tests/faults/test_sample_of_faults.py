"""A sample of `make faults`: runs killed at drawn moments, inside writes too, end as if nothing had been."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign import HERE, draw, trial
from faults import WRITES
from short_run import Way


@pytest.fixture(autouse=True)
def killer_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("way", "kills", "seed"), [(Way(1, 2, True), 3, 4), (Way(2, 0, True), 2, 1)], ids=["one", "two processes"]
)
def test_killed_runs_leave_no_trace(
    way: Way, kills: int, seed: int, short_store: Path, undisturbed: Callable[[int, bool], Path], tmp_path: Path
) -> None:
    """Seeds whose moments are batches and writes that every run gets to."""
    done = trial(short_store, tmp_path / "run", way, undisturbed, random.Random(seed), kills)
    assert len(done.kills) == kills
    assert done.differences == []


def test_drawn_faults_hit_writes_batches_of_any_process_and_times() -> None:
    random_ = random.Random(0)
    faults = [draw(random_, Way(2)) for _ in range(200)]
    assert {fault.moment for fault in faults} == {*WRITES, "batch", "time"}
    assert {fault.rank for fault in faults if fault.moment == "batch"} == {0, 1}
    assert all(fault.rank == 0 for fault in faults if fault.moment != "batch")

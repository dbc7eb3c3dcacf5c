import json

import pytest

from ecg_lightning.experiment.checks import Facts
from ecg_lightning.experiment.plan import Run
from ecg_lightning.experiment.progress import (
    Estimates,
    add_seconds,
    in_words,
    remaining,
    seconds_of,
    standing_of,
)
from ecg_lightning.runs import RunFolder


def facts(records=100, epochs=(30, 30), backbone="vit"):
    return Facts(backbone, epochs, records, 1, False, "abc")


def complete(path, seconds=None):
    run = RunFolder(path)
    run.predictions.mkdir(parents=True)
    run.set_state("complete")
    (run.predictions / "test.npz").touch()
    (run.path / "metrics_test.json").touch()
    if seconds is not None:
        add_seconds(path, seconds)


def runs(*names):
    return [Run(name, {}, {}, (), {}, frozenset()) for name in names]


def test_a_run_stands_where_its_folder_says(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert standing_of(run.path) == "to do"
    run.claim("never")
    assert standing_of(run.path) == "in use"
    run.release()
    assert standing_of(run.path) == "to resume"  # it says running, but nobody holds it
    run.set_state("interrupted")
    assert standing_of(run.path) == "to resume"
    run.set_state("complete")
    assert standing_of(run.path) == "to test"
    (run.path / "metrics_test.json").touch()
    assert standing_of(run.path) == "to test"
    run.predictions.mkdir()
    (run.predictions / "test.npz").touch()
    assert standing_of(run.path) == "complete"


def test_looking_at_a_run_makes_nothing(tmp_path):
    standing_of(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_time_of_a_run_is_that_of_all_calls(tmp_path):
    add_seconds(tmp_path, 10)
    add_seconds(tmp_path, 2.5)
    assert seconds_of(tmp_path) == 12.5
    assert json.loads((tmp_path / "timing.json").read_text()) == {"seconds": 12.5}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": null}'])
def test_a_damaged_time_is_unknown(tmp_path, text):
    (tmp_path / "timing.json").write_text(text)
    assert seconds_of(tmp_path) is None


def test_a_run_is_expected_to_take_as_long_as_those_alike(tmp_path):
    complete(tmp_path / "a", 10)
    complete(tmp_path / "b", 20)
    complete(tmp_path / "c", 900)
    known = {"a": facts(), "b": facts(), "c": facts(backbone="large")}
    estimates = Estimates.of(tmp_path, runs("a", "b", "c"), known)
    assert estimates.seconds(facts()) == 15
    assert estimates.seconds(facts(records=200)) == 30
    assert estimates.seconds(facts(epochs=(0, 30))) is None
    assert estimates.seconds(facts(backbone="other")) is None


def test_a_run_that_is_not_complete_tells_no_time(tmp_path):
    (tmp_path / "a").mkdir()
    add_seconds(tmp_path / "a", 10)
    assert Estimates.of(tmp_path, runs("a"), {"a": facts()}).seconds(facts()) is None


def test_what_is_left_is_divided_by_the_runs_at_once_and_the_unknown_is_counted(tmp_path):
    complete(tmp_path / "a", 60)
    known = {name: facts() for name in "abc"} | {"d": facts(epochs=(0, 1))}
    assert remaining(tmp_path, runs("a", "b"), known, 1) == "about 60 s"
    assert remaining(tmp_path, runs(*"abc"), known, 2) == "about 60 s"
    assert remaining(tmp_path, runs(*"abcd"), known, 1) == "about 2 min, and 1 run(s) of unknown length"
    assert remaining(tmp_path, runs("d"), known, 1) == "unknown"


@pytest.mark.parametrize(("seconds", "words"), [(None, "unknown"), (41.4, "41 s"), (420, "7 min"), (7560, "2.1 h")])
def test_times_are_said_in_words(seconds, words):
    assert in_words(seconds) == words

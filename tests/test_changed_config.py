"""A resume by another config: flags win and are said, the past stands."""

import json
import shutil
import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from disturbances import disturbed
from hypothesis import given
from hypothesis import strategies as st
from short_run import BATCHES, FINE_TUNE, PROBE, fit_here, make_store
from tiny import of_lightning_cli

from ecg_lightning.errors import UsageError
from ecg_lightning.progress import Position
from ecg_lightning.resuming import differences, refuse_past, table
from ecg_lightning.runs import RunFolder

pytestmark = of_lightning_cli


def stopped(store: Path, run: Path, epoch: int, batch: int) -> Path:
    """A run that a signal stopped behind this batch."""
    flags = disturbed("Signalled", epoch=epoch, batch=batch, number=signal.SIGTERM)
    assert fit_here(store, run, *flags) == 143
    return run


@pytest.fixture(scope="module")
def in_probe(short_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped inside the probe's second epoch; not to be changed."""
    return stopped(short_store, tmp_path_factory.mktemp("probe") / "run", 1, 1)


@pytest.fixture(scope="module")
def behind_probe(short_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped behind the first epoch of fine-tuning, between two epochs; not to be changed."""
    return stopped(short_store, tmp_path_factory.mktemp("tuned") / "run", PROBE, BATCHES - 1)


@pytest.fixture
def again(short_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Goes on with a copy of a run, by these flags; the exit code and what was said."""

    def go_on(run: Path, *flags: str, store: Path = short_store) -> tuple[int, str]:
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        code = fit_here(store, copy, "--resume", "auto", "--trainer.callbacks", "null", *flags)
        return code, capsys.readouterr().err

    return go_on


REFUSED = [
    (
        "in_probe",
        ["--data.batch_size", "8"],
        "data.batch_size was 7, is 8 (the newest checkpoint stands inside an epoch",
    ),
    ("in_probe", ["--seed_everything", "43"], "seed_everything was 42, is 43"),
    (
        "in_probe",
        ["--data.task", "rhythm"],
        "data.task was superdiagnostic, is rhythm (it makes another set of labels)",
    ),
    ("in_probe", ["--data.train_folds", "[1, 2]"], "data.train_folds was [1, 2, 3, 4, 5, 6], is [1, 2] (records"),
    ("in_probe", ["--data.keep", "all"], "data.keep was labelled, is all"),
    ("in_probe", ["--model.pos_weight", "balanced"], "model.pos_weight was none, is balanced (the weights of the loss"),
    ("in_probe", ["--trainer.precision", "64-true"], "is 64-true (the checkpoint's weights are of another type)"),
    (
        "in_probe",
        ["--post_training.probe.epochs", "1"],
        "post_training.probe.epochs was 2, is 1 (the run has 1 epoch(s) behind it)",
    ),
    (
        "behind_probe",
        ["--post_training.probe.epochs", "4"],
        "post_training.probe.epochs was 2, is 4 (the run has 3 epoch(s)",
    ),
    (
        "behind_probe",
        ["--post_training.fine_tune.epochs", "0"],
        "post_training.fine_tune.epochs was 2, is 0 (the run has 3 epoch(s)",
    ),
    ("in_probe", ["--model.backbone.dim", "24"], "last.ckpt holds another network"),
]


@pytest.mark.parametrize(("run", "flags", "reason"), REFUSED, ids=[" ".join(row[1]) + f" {row[0]}" for row in REFUSED])
def test_what_would_change_the_past_is_refused_with_both_sides(
    run: str, flags: list[str], reason: str, again: Callable[..., Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    former = request.getfixturevalue(run)
    code, said = again(former, *flags)
    assert code in (1, 2)
    assert reason in said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "config.yaml").read_bytes() == (former / "config.yaml").read_bytes()
    assert reason in (tmp_path / "run" / "log.txt").read_text()
    assert RunFolder(tmp_path / "run").state == "interrupted"


def test_another_content_of_the_store_is_refused_and_a_moved_store_is_not(
    in_probe: Path, short_store: Path, make_ptbxl: Callable[..., Path], again: Callable[..., Any], tmp_path: Path
) -> None:
    other = make_store(make_ptbxl(seed=5), tmp_path / "other.h5")
    code, said = again(in_probe, store=other)
    assert code == 2
    assert "data.store is" in said
    assert ", was" in said
    shutil.rmtree(tmp_path / "run")
    shutil.copy(short_store, tmp_path / "moved.h5")
    code, said = again(in_probe, store=tmp_path / "moved.h5")
    assert code == 0, said
    assert "none: the content is the same" in said


ACCEPTED = [
    (
        "in_probe",
        ["--post_training.probe.learning_rate", "0.02"],
        ("probe.learning_rate", "0.01", "0.02", "from here on"),
    ),
    ("in_probe", ["--post_training.drop_path_rate", "0.1"], ("drop_path_rate", "0.5", "0.1", "none so far")),
    ("in_probe", ["--post_training.probe.windows", "2"], ("probe.windows", "0", "2", "the probe sees other windows")),
    ("in_probe", ["--data.num_workers", "1"], ("data.num_workers", "0", "1", "none on the weights")),
    ("behind_probe", ["--data.batch_size", "8"], ("data.batch_size", "7", "8", "other batches, and steps per epoch")),
    (
        "behind_probe",
        ["--post_training.probe.windows", "2"],
        ("probe.windows", "0", "2", "none any more: the probe is"),
    ),
    (
        "behind_probe",
        ["--post_training.fine_tune.epochs", "3"],
        ("fine_tune.epochs", "2", "3", "ends later or earlier"),
    ),
]


@pytest.mark.parametrize(("run", "flags", "row"), ACCEPTED, ids=[" ".join(row[1]) + f" {row[0]}" for row in ACCEPTED])
def test_what_the_future_may_do_otherwise_is_done_and_said_in_columns(
    run: str, flags: list[str], row: tuple[str, ...], again: Callable[..., Any], request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:  # fmt: skip
    code, said = again(request.getfixturevalue(run), *flags)
    assert code == 0, said
    name, was, now, effect = row
    [line] = [line for line in said.splitlines() if f"{name} " in line and f" {was} " in line]
    assert line.split()[1:3] == [was, now]
    assert effect in line
    assert any(line.split() == ["was", "is", "effect"] for line in said.splitlines())
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    for part in flags[0].removeprefix("--").split("."):
        config = config[part]
    assert str(config) == flags[1]
    assert RunFolder(tmp_path / "run").state == "complete"


def test_what_stays_the_same_is_not_said(in_probe: Path, again: Callable[..., Any]) -> None:
    """The callback that stopped it is gone, and nothing else."""
    code, said = again(in_probe)
    assert code == 0
    head, row, *_ = said.partition("is changed:\n")[2].splitlines()
    assert head.split() == ["was", "is", "effect"]
    assert row.startswith("trainer.callbacks")
    assert said.count("whatever they do, from here on") == 1
    assert "\nViT: " in said.partition("whatever they do, from here on")[2]


# --- the comparison alone ---

CONFIG: dict[str, Any] = {
    "seed_everything": 42,
    "data": {"task": "all", "batch_size": 256, "num_workers": 0, "train_folds": [1, 2]},
    "model": {"dropout": 0.0, "compile": None, "backbone": {"class_path": "ViT", "init_args": {"depth": 2}}},
    "post_training": {
        "probe": {"epochs": PROBE, "learning_rate": 0.001, "windows": 0, "precompute": True},
        "fine_tune": {"epochs": FINE_TUNE, "learning_rate": 0.0001},
        "drop_path_rate": 0.1,
    },
    "trainer": {"precision": None, "devices": 1, "max_time": None},
}
LEAVES = [
    ("seed_everything",),
    *(("data", name) for name in CONFIG["data"]),
    ("model", "dropout"),
    ("model", "compile"),
    ("model", "backbone", "init_args", "depth"),
    *(("post_training", "probe", name) for name in CONFIG["post_training"]["probe"]),
    *(("post_training", "fine_tune", name) for name in CONFIG["post_training"]["fine_tune"]),
    ("post_training", "drop_path_rate"),
    *(("trainer", name) for name in CONFIG["trainer"]),
]
POSITIONS = st.builds(Position, st.integers(0, PROBE + FINE_TUNE), st.integers(0, BATCHES - 1))


def changed(*leaves: tuple[str, ...]) -> dict[str, Any]:
    """The config with another value at each leaf."""
    config = deepcopy(CONFIG)
    for leaf in leaves:
        place = config
        for name in leaf[:-1]:
            place = place[name]
        place[leaf[-1]] = 7
    return config


@given(st.sets(st.sampled_from(LEAVES)), st.none() | POSITIONS)
def test_each_difference_is_found_once_with_both_sides_and_an_effect(
    leaves: set[tuple[str, ...]], position: Position | None
) -> None:
    found = differences(CONFIG, changed(*leaves), position)
    assert [one.name for one in found] == sorted(".".join(leaf) for leaf in leaves)
    assert all(one.now == 7 and one.was != 7 and one.effect for one in found)
    assert len(table(found).splitlines()) == len(leaves) + 1


@given(st.sets(st.sampled_from(LEAVES)))
def test_before_the_first_checkpoint_nothing_is_past(leaves: set[tuple[str, ...]]) -> None:
    refuse_past(differences(CONFIG, changed(*leaves), None))


@given(st.integers(0, 6), st.integers(0, 6), POSITIONS)
def test_the_phases_may_change_as_long_as_every_epoch_keeps_its_phase(
    probe: int, fine_tune: int, position: Position
) -> None:
    """An epoch behind the run was of a phase by the lengths of then; it must be of it by those of now."""
    config = deepcopy(CONFIG)
    config["post_training"]["probe"]["epochs"], config["post_training"]["fine_tune"]["epochs"] = probe, fine_tune
    past = range(position.epoch + 1)  # of which the last is about to be trained
    same = [epoch < probe for epoch in past] == [epoch < PROBE for epoch in past]
    found = differences(CONFIG, config, position)
    if not same or probe + fine_tune < position.epoch:
        with pytest.raises(
            UsageError, match=r"epochs was \d, is \d .*: take it back, or start anew under another --run"
        ):
            refuse_past(found)
    elif probe == PROBE:
        refuse_past(found)


def test_long_values_are_cut_and_missing_ones_shown() -> None:
    found = differences({"a": list(range(99)), "post_training": {}}, {"b": 1, "post_training": {}}, None)
    assert [one.name for one in found] == ["a", "b"]
    assert "..." in table(found)
    assert json.dumps(None) in table(found)

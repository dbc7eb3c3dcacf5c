import fcntl
import json
import multiprocessing
import os
import subprocess
import time
from stat import S_ISDIR

import pytest
import torch

from ecg_lightning.checkpointing import AtomicCheckpointIO
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.runs import RunFolder, existing_run, file_sha256, global_step, whole_file, write_json


def hold(path, held):
    """Claims the folder and stays."""
    RunFolder(path).claim("never")
    held.set()
    time.sleep(60)


@pytest.fixture(autouse=True)
def let_go(monkeypatch):
    """Closes every lock behind the test, as the end of a process does."""
    claimed, claim = [], RunFolder.claim
    monkeypatch.setattr(RunFolder, "claim", lambda run, resume: claimed.append(run) or claim(run, resume))
    yield
    for run in claimed:
        run.release()


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def checkpoint(run, name, step):
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    path = run.checkpoints / name
    torch.save({"global_step": step, "state_dict": {"weight": torch.ones(1000)}}, path)
    return path


# --- claim and release ---


def test_a_claimed_folder_says_that_it_is_running(run):
    assert run.state is None
    run.claim("never")
    assert run.state == "running"
    assert run.checkpoints.is_dir()


def test_an_empty_folder_may_be_claimed(run):
    run.path.mkdir()
    run.claim("never")


def test_a_released_folder_may_be_claimed_again(run):
    run.claim("never")
    run.release()
    RunFolder(run.path).claim("auto")


def test_a_folder_in_use_is_refused_even_for_a_resume(run):
    run.claim("never")
    for resume in ("never", "auto"):
        with pytest.raises(InputError, match=r"in use by another process that trains in it \(host .*\): wait for it"):
            RunFolder(run.path).claim(resume)


# Python 3.12 and later, where threads are about: the child touches no lock of theirs.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_folder_held_by_another_process_is_refused_until_that_is_killed(run):
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    holder = fork.Process(target=hold, args=(run.path, held), daemon=True)
    holder.start()
    try:
        assert held.wait(30)
        with pytest.raises(InputError, match="in use by another process"):
            run.claim("auto")
        assert run.state == "running"
    finally:
        holder.kill()
        holder.join()
    run.claim("auto")


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_an_older_run_is_refused_without_resume_and_the_flag_is_named(run, state):
    run.set_state(state)
    with pytest.raises(InputError, match=rf"holds a run already \({state}\): choose another name.*add --resume auto"):
        run.claim("never")
    assert run.state == state


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_a_complete_run_is_never_trained_over(run, resume):
    run.set_state("complete")
    with pytest.raises(InputError, match=r"\(complete\): choose another name, or test it: ecg-lightning test --run"):
        run.claim(resume)
    assert run.state == "complete"


def test_a_refused_folder_is_let_go(run):
    run.set_state("interrupted")
    with pytest.raises(InputError):
        run.claim("never")
    RunFolder(run.path).claim("auto")


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(run):
    run.path.mkdir()
    (run.path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"folder without a run in it, and not empty: choose another name"):
        run.claim("auto")
    assert [path.name for path in run.path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_run_folder(run):
    run.path.write_text("mine")
    with pytest.raises(InputError, match=r"is a file, a run is a folder: choose another name"):
        run.claim("never")


def test_a_start_killed_before_its_state_was_written_can_be_started_again(run):
    run.claim("never")
    (run.path / "state.json").unlink()
    run.release()
    RunFolder(run.path).claim("never")


def test_a_damaged_state_counts_as_interrupted(run):
    run.set_state("running")
    (run.path / "state.json").write_text("{")
    assert run.state == "interrupted"


# --- give_up ---


def test_giving_up_a_new_folder_leaves_nothing(run):
    run.claim("never")
    (run.path / "log.txt").write_text("refused")
    run.give_up()
    assert not run.path.exists()


def test_giving_up_keeps_a_checkpoint_that_was_written(run):
    run.claim("never")
    checkpoint(run, "last.ckpt", 3)
    run.give_up()
    assert run.state == "interrupted"
    assert run.survey().newest is not None


def test_giving_up_an_older_run_leaves_it_interrupted(run):
    run.claim("never")
    run.release()
    again = RunFolder(run.path)
    again.claim("auto")
    again.give_up()
    assert again.state == "interrupted"


def test_giving_up_what_was_never_claimed_changes_nothing(run):
    run.set_state("complete")
    run.give_up()
    assert run.state == "complete"


def test_giving_up_lets_the_folder_go(run):
    run.set_state("interrupted")
    run.claim("auto")
    run.give_up()
    RunFolder(run.path).claim("auto")


# --- checkpoints ---


def test_the_newest_checkpoint_is_the_one_furthest_on(run):
    checkpoint(run, "last.ckpt", 8)
    best = checkpoint(run, "finetune-best.ckpt", 12)
    checkpoint(run, "probe-best.ckpt", 4)
    assert run.survey().newest == best


def test_of_two_checkpoints_of_one_step_last_is_the_newest(run):
    checkpoint(run, "finetune-best.ckpt", 8)
    last = checkpoint(run, "last.ckpt", 8)
    checkpoint(run, "probe-best.ckpt", 8)
    assert run.survey().newest == last


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-10],
        lambda content: bytes(len(content)),
        lambda content: b"not a checkpoint",
        lambda content: content.replace(b"\x00\x00\x80?" * 8, b"\x00\x00\x80?" * 7 + b"\x00\x00\x81?", 1),
    ],
    ids=["empty", "half", "ten bytes short", "zeros", "text", "one bit of a weight"],
)
def test_damaged_checkpoints_are_passed_over(run, damage):
    path = checkpoint(run, "last.ckpt", 8)
    path.write_bytes(damage(path.read_bytes()))
    best = checkpoint(run, "finetune-best.ckpt", 4)
    assert global_step(path) is None
    assert run.survey().newest == best
    assert run.survey().damaged == [path]


def test_a_checkpoint_that_could_run_code_is_passed_over(run):
    path = checkpoint(run, "last.ckpt", 8)
    torch.save({"global_step": 9, "danger": subprocess.Popen}, path)
    assert run.survey().newest is None


def test_a_file_without_a_step_is_no_checkpoint(run):
    torch.save({"state_dict": {}}, checkpoint(run, "last.ckpt", 8))
    assert run.survey().newest is None


def test_two_names_of_one_checkpoint_are_read_once(run, monkeypatch):
    best = checkpoint(run, "finetune-best.ckpt", 8)
    (run.checkpoints / "last.ckpt").hardlink_to(best)
    checkpoint(run, "probe-best.ckpt", 4)
    read = []
    monkeypatch.setattr("ecg_lightning.runs.global_step", lambda path: read.append(path.name) or global_step(path))
    survey = run.survey()
    assert (survey.newest, survey.step, survey.damaged) == (run.checkpoints / "last.ckpt", 8, [])
    assert read == ["finetune-best.ckpt", "probe-best.ckpt"]


def test_a_run_without_checkpoints_has_no_newest(run):
    assert run.survey().newest is None


def test_the_best_checkpoint_is_that_of_the_last_phase_that_has_one(run):
    probe = checkpoint(run, "probe-best.ckpt", 4)
    assert run.best_checkpoint() == probe
    fine_tune = checkpoint(run, "finetune-best.ckpt", 8)
    assert run.best_checkpoint() == fine_tune


def test_a_run_without_a_best_checkpoint_says_how_to_make_one(run):
    with pytest.raises(InputError, match=r"has no checkpoint in .*: train it first with `fit`"):
        run.best_checkpoint()


# --- files ---


def test_a_whole_file_takes_its_name_when_all_went_well(tmp_path):
    with whole_file(tmp_path / "new" / "some.txt") as temporary:
        temporary.write_text("content")
        assert not (tmp_path / "new" / "some.txt").exists()
    assert [(p.name, p.read_text()) for p in (tmp_path / "new").iterdir()] == [("some.txt", "content")]


def test_an_error_leaves_the_old_content_and_nothing_beside_it(tmp_path):
    (tmp_path / "some.txt").write_text("old")

    def write():
        with whole_file(tmp_path / "some.txt") as temporary:
            temporary.write_text("ne")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        write()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("some.txt", "old")]


def test_a_whole_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done = []
    real_replace = type(tmp_path).replace
    monkeypatch.setattr(
        os, "fsync", lambda opened: done.append("folder" if S_ISDIR(os.fstat(opened).st_mode) else "file")
    )
    monkeypatch.setattr(type(tmp_path), "replace", lambda *paths: done.append("rename") or real_replace(*paths))
    write_json(tmp_path / "some.json", {})
    assert done == ["file", "rename", "folder"]


def test_a_checkpoint_is_staged_beside_its_target(tmp_path, monkeypatch):
    seen = []
    real_save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, path: seen.append(path) or real_save(content, path))
    AtomicCheckpointIO().save_checkpoint({"global_step": 3}, tmp_path / "last.ckpt")
    assert [path.parent for path in seen] == [tmp_path]
    assert seen[0].suffix != ".ckpt"  # or a torn one would be taken for a checkpoint
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert global_step(tmp_path / "last.ckpt") == 3


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(tmp_path):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 3}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"global_step": 4, "bad": lambda: None}, tmp_path / "last.ckpt")
    assert global_step(tmp_path / "last.ckpt") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_existing_run_has_a_state_and_a_config(run):
    with pytest.raises(UsageError, match="holds no run: give the folder that `ecg-lightning fit --run` wrote"):
        existing_run(run.path)
    run.set_state("complete")
    run.config.write_text("data: {}")
    assert existing_run(run.path).path == run.path


def test_the_environment_holds_versions_command_and_store(run):
    run.write_environment("/stores/some.h5", "abc")
    environment = json.loads((run.path / "environment.json").read_text())
    assert {"torch", "lightning", "numpy"} <= environment["packages"].keys()
    assert environment["store"] == "/stores/some.h5"
    assert run.store_sha256 == "abc"
    assert environment["note"].startswith("Research software: not a medical device")


def test_a_run_without_an_environment_knows_no_store(run):
    assert run.store_sha256 is None


def test_a_files_hash_is_that_of_its_bytes(tmp_path):
    (tmp_path / "some").write_bytes(b"abc")
    assert file_sha256(tmp_path / "some").startswith("ba7816bf")


def test_the_lock_ends_with_its_process_alone(run):
    run.claim("never")
    with (run.path / ".lock").open("a") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

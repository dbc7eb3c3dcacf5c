"""The probe's checkpoints name the frozen backbone, which is written once; whatever reads them gets it back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import changed, norm_net, of_lightning_cli, plan, state_of, tiny_classifier, train
from torch import nn
from trained_runs import train_by_commands

from ecg_lightning import frozen_backbone, load_run
from ecg_lightning.backbones import load_weights
from ecg_lightning.checkpointing import FROZEN, AtomicCheckpointIO, RunCheckpoints
from ecg_lightning.cli import main
from ecg_lightning.errors import InputError
from ecg_lightning.frozen_backbone import FILE, read_checkpoint, tensors_sha256
from ecg_lightning.runs import RunFolder

pytestmark = of_lightning_cli


def probed(store, folder, *callbacks, epochs=3, fine_tune=0, classifier=None):
    """A run with the project's own checkpoints: its folder, and the classifier behind it."""
    run = RunFolder(folder / "run")
    classifier = classifier or tiny_classifier(norm_net())
    train(
        folder, store, plan(epochs, fine_tune), *callbacks, RunCheckpoints(run), classifier=classifier,
        enable_checkpointing=True, plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    return run, classifier


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[nn.Module], Path]:
    """Saves the state of a module as the probe does."""
    io = AtomicCheckpointIO()

    def save(module: nn.Module) -> Path:
        io.save_checkpoint({"state_dict": module.state_dict(), "global_step": 0}, tmp_path / "last.ckpt", FROZEN)
        return tmp_path / "last.ckpt"

    return save


# --- what is written ---


def test_checkpoints_of_the_probe_hold_the_head_and_name_the_backbone(tiny_store, tmp_path):
    run, _ = probed(tiny_store, tmp_path)
    for name in ("last.ckpt", "probe-best.ckpt"):
        content = torch.load(run.checkpoints / name, weights_only=True)
        assert sorted(content["state_dict"]) == ["head.bias", "head.weight", "pos_weight"]
        assert content["frozen_backbone"]["sha256"] == tensors_sha256(load_file(run.checkpoints / FILE))
        assert len(content["optimizer_states"][0]["state"]) == 2


def test_a_completed_checkpoint_holds_the_whole_network_buffers_included(tiny_store, tmp_path):
    run, classifier = probed(tiny_store, tmp_path)
    state = read_checkpoint(run.checkpoints / "last.ckpt")["state_dict"]
    assert state.keys() == classifier.state_dict().keys()
    assert changed(state_of(classifier), state) == []


def test_the_backbone_is_written_once_in_a_probe(tiny_store, tmp_path, monkeypatch):
    written = []

    def save(tensors, path, metadata):
        written.append(path)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(frozen_backbone, "save_file", save)
    probed(tiny_store, tmp_path, epochs=4)
    assert len(written) == 1


def test_whoever_may_read_the_checkpoints_may_read_the_backbone(saved):
    path = saved(tiny_classifier(norm_net()))
    assert path.with_name(FILE).stat().st_mode == path.stat().st_mode


def test_checkpoints_of_fine_tuning_are_whole(tiny_store, tmp_path):
    run, classifier = probed(tiny_store, tmp_path, epochs=1, fine_tune=1)
    for name in ("last.ckpt", "finetune-best.ckpt"):
        state = torch.load(run.checkpoints / name, weights_only=True)["state_dict"]
        assert state.keys() == classifier.state_dict().keys()
    best = read_checkpoint(run.checkpoints / "probe-best.ckpt")["state_dict"]
    assert changed({n: t for n, t in best.items() if n.startswith("backbone")}, state) != []


def test_the_backbone_is_whole_on_the_disk_before_a_checkpoint_names_it(saved, monkeypatch, tmp_path):
    """A kill between the two leaves a file that nothing names, and the next one is taken by what is in it."""
    classifier = tiny_classifier(norm_net())
    seen = []

    def killed(*arguments):
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            saved(classifier)
    assert seen == [[FILE]]
    assert RunFolder(tmp_path).survey().newest is None
    assert changed(state_of(classifier), read_checkpoint(saved(classifier))["state_dict"]) == []


def test_another_backbone_in_the_same_place_is_written_anew(saved):
    """As in a run begun again, or where somebody moved what was said to be frozen."""
    classifier = tiny_classifier(norm_net())
    saved(classifier)
    with torch.no_grad():
        classifier.backbone.stem.weight += 1
    assert changed(state_of(classifier), read_checkpoint(saved(classifier))["state_dict"]) == []


def test_a_backbone_that_was_taken_away_is_written_with_the_next_checkpoint(saved):
    classifier = tiny_classifier(norm_net())
    path = saved(classifier)
    path.with_name(FILE).unlink()
    assert changed(state_of(classifier), read_checkpoint(saved(classifier))["state_dict"]) == []


def test_a_backbone_file_of_before_is_kept_where_it_is_the_same_and_replaced_where_not(tmp_path):
    classifier, path = tiny_classifier(norm_net()), tmp_path / "last.ckpt"
    files = []
    for damage in (False, False, True):
        if damage:
            (tmp_path / FILE).write_bytes(b"torn")
        AtomicCheckpointIO().save_checkpoint({"state_dict": classifier.state_dict()}, path, FROZEN)
        files.append((tmp_path / FILE).stat().st_ino)
        assert changed(state_of(classifier), read_checkpoint(path)["state_dict"]) == []
    assert files[0] == files[1]


def test_tensors_that_share_their_memory_come_back_each_for_itself(saved):
    tied = tiny_classifier(norm_net())
    tied.backbone.convs[1].weight = tied.backbone.convs[0].weight
    tied.backbone.register_buffer("view", tied.backbone.stem.weight.detach()[1:, :, ::2])
    assert changed(state_of(tied), read_checkpoint(saved(tied))["state_dict"]) == []


@pytest.mark.parametrize(
    "other",
    [{"b": torch.ones(2, 3)}, {"a": torch.ones(3, 2)}, {"a": torch.ones(2, 3).double()}, {"a": torch.zeros(2, 3)}],
    ids=["name", "shape", "type", "value"],
)
def test_the_hash_tells_tensors_apart_by(other):
    assert tensors_sha256({"a": torch.ones(2, 3)}) != tensors_sha256(other)


def test_the_hash_asks_for_no_order():
    one, two = torch.ones(2), torch.zeros(())
    assert tensors_sha256({"a": one, "b": two}) == tensors_sha256({"b": two, "a": one})


def test_the_file_is_the_backbones_weights_for_another_run(tiny_store, tmp_path):
    run, classifier = probed(tiny_store, tmp_path)
    fresh = norm_net()
    nn.init.zeros_(fresh.stem.weight)
    load_weights(fresh, run.checkpoints / FILE)
    assert changed(state_of(classifier.backbone), state_of(fresh)) == []


# --- what reads it ---


@pytest.fixture(scope="module")
def linear_probe(ptbxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first phase alone, by the commands, beside its store."""
    folder = tmp_path_factory.mktemp("probe")
    flags = ("--post_training.probe.epochs=2", "--post_training.fine_tune.epochs=0")
    return train_by_commands(ptbxl, folder, "trained_runs.PlainNet", *flags)


@pytest.fixture
def copied(linear_probe: Path, tmp_path: Path) -> Path:
    """The same run elsewhere."""
    return Path(shutil.copytree(linear_probe, tmp_path / "elsewhere"))


def test_a_copied_run_is_validated_predicted_embedded_and_exported(linear_probe, copied, ptbxl, tmp_path):
    store = linear_probe.parent / "store.h5"
    assert main(["validate", "--run", str(copied), "--overwrite"]) == 0
    with np.load(copied / "predictions/val.npz") as ours, np.load(linear_probe / "predictions/val.npz") as theirs:
        assert np.array_equal(ours["probabilities"], theirs["probabilities"])
    records = ["--records", str(ptbxl / "records100"), "--output", str(tmp_path / "p.csv")]
    assert main(["predict", "--run", str(copied), *records]) == 0
    assert main(["embed", "--run", str(copied), "--store", str(store), "--output", str(tmp_path / "f.npz")]) == 0
    assert main(["export", "--run", str(copied), "--output", str(tmp_path / "m.safetensors")]) == 0


def test_inspect_names_the_backbone_among_the_files_of_a_run(copied, capsys):
    assert main(["inspect", str(copied), "--json"]) == 0
    assert f'"{FILE}",\n  "last.ckpt",\n  "probe-best.ckpt"' in capsys.readouterr().out


def removed(file: Path) -> None:
    file.unlink()


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def altered(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(removed, "is missing"), (torn, "is damaged"), (altered, "is not the frozen backbone that probe-best.ckpt")],
)
def test_a_backbone_that_is_not_the_probes_is_refused_with_the_reason(copied, capsys, harm, reason):
    harm(copied / "checkpoints" / FILE)
    with pytest.raises(InputError, match=reason):
        load_run(copied)
    assert main(["validate", "--run", str(copied), "--overwrite"]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert "put the file of its run back beside it, or train anew under another --run" in said


def test_a_resume_without_the_backbone_is_refused_and_changes_nothing(copied, capsys):
    run = RunFolder(copied)
    run.set_state("interrupted")
    (run.checkpoints / FILE).rename(run.checkpoints / "kept")
    before = {path: path.read_bytes() for path in (run.config, *run.checkpoints.iterdir())}
    assert main(["fit", "--run", str(copied), "--resume", "auto"]) == 1
    assert f"{FILE} is missing" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before

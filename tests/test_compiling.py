"""A compiled run: how often the compiler is called over both phases, and that nothing else changes."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from processes import compiled_by, differences, run_cli
from tiny import changed, norm_net, of_lightning, plan, state_of, tiny_classifier, tiny_data, tiny_vit, train
from torch._dynamo.testing import CompileCounter

from ecg_lightning import compiling
from ecg_lightning.compiling import compile_in_place, is_compiled, uncompile
from ecg_lightning.errors import UsageError

pytestmark = of_lightning


@pytest.fixture
def counter(monkeypatch):
    """Counts compiled graphs in place of compiling them: nothing but the compiler itself is left out."""
    torch.compiler.reset()
    counting = CompileCounter()
    monkeypatch.setattr(compiling, "BACKEND", counting)
    yield counting
    torch.compiler.reset()


class Counts(Callback):
    """How many graphs there were at each epoch's start and at the end."""

    def __init__(self, counter):
        self.counter, self.graphs, self.compiled = counter, [], set()

    def on_train_epoch_start(self, trainer, pl_module):
        self.graphs.append(self.counter.frame_count)
        self.compiled.add(is_compiled(pl_module.backbone))

    def on_train_end(self, trainer, pl_module):
        self.graphs.append(self.counter.frame_count)

    @property
    def of_epochs(self):
        return [later - earlier for earlier, later in pairwise(self.graphs)]


def compiled_run(folder, store, counter, build=tiny_vit, *, batch_size=11, **arguments):
    """Two epochs of each phase; 64 records train and 8 validate: the last batch is a short one."""
    counts = Counts(counter)
    classifier = tiny_classifier(build(), compile="default", dropout=0.1)
    post_training = plan(2, 2, drop_path_rate=0.5, **arguments)
    train(folder, store, post_training, counts, classifier=classifier, data=tiny_data(store, batch_size=batch_size))
    assert counts.compiled == {True}
    return counts, classifier


@pytest.mark.parametrize("build", [tiny_vit, norm_net])
@pytest.mark.parametrize("precompute", [True, False])
@pytest.mark.parametrize("over_depth", ["linear", "uniform"])
def test_the_switch_is_compiled_twice_and_no_later_epoch_at_all(
    tiny_store, tmp_path, counter, build, precompute, over_depth
):
    """Once for training, once for validation, whatever lengths the batches have."""
    arguments = {"probe_precompute": precompute, "drop_path_over_depth": over_depth}
    counts, _ = compiled_run(tmp_path, tiny_store, counter, build, **arguments)
    probe, probe_again, switch, fine_tune_again = counts.of_epochs
    assert switch == 2
    assert (probe_again, fine_tune_again) == (0, 0)
    assert probe == (0 if precompute else 1)


@pytest.mark.parametrize("build", [tiny_vit, norm_net])
def test_a_compiled_run_trains_the_weights_of_the_plain_one(tiny_store, tmp_path, counter, build):
    (tmp_path / "compiled").mkdir()
    _, compiled = compiled_run(tmp_path / "compiled", tiny_store, counter, build)
    plain = tiny_classifier(build(), dropout=0.1)
    train(
        tmp_path,
        tiny_store,
        plan(2, 2, drop_path_rate=0.5),
        classifier=plain,
        data=tiny_data(tiny_store, batch_size=11),
    )
    assert changed(state_of(plain), state_of(compiled)) == []


def test_names_layers_and_checkpoints_are_those_of_the_plain_network(counter):
    backbone, plain = tiny_vit(), tiny_vit()
    compile_in_place(backbone, "default")
    names = [name for name, _ in backbone.named_parameters()]
    assert names == [name for name, _ in plain.named_parameters()]
    assert list(backbone.state_dict()) == list(plain.state_dict())
    assert [backbone.layer_of(name) for name in names] == [plain.layer_of(name) for name in names]
    plain.load_state_dict(backbone.state_dict())


def test_behind_the_fit_the_network_runs_as_written(tiny_store, tmp_path, counter):
    _, classifier = compiled_run(tmp_path, tiny_store, counter)
    assert not is_compiled(classifier.backbone)
    before = counter.frame_count
    classifier.backbone(torch.randn(2, 12, 1000))
    assert counter.frame_count == before


def test_a_network_is_compiled_no_more_once_it_is_taken_off(counter):
    backbone = tiny_vit().eval()
    compile_in_place(backbone, "default")
    backbone(torch.randn(2, 12, 1000))
    assert counter.frame_count == 1
    uncompile(backbone)
    backbone(torch.randn(3, 12, 1000))
    assert counter.frame_count == 1


def test_validation_alone_compiles_nothing(tiny_store, tmp_path, counter):
    classifier = tiny_classifier(compile="default")
    classifier.setup("test")
    assert not is_compiled(classifier.backbone)


def test_subset_mode_is_refused_with_both_ways_out(tiny_store, tmp_path, counter):
    with pytest.raises(
        UsageError, match=r"compiled anew; set post_training.drop_path_mode=mask, or leave model.compile"
    ):
        compiled_run(tmp_path, tiny_store, counter, drop_path_mode="subset")


@pytest.mark.slow
@pytest.mark.parametrize("build", [tiny_vit, norm_net])
def test_what_the_compiler_makes_of_both_phases_trains_as_the_plain_network_does(tiny_store, tmp_path, build):
    """The real compiler; dropout is off, as what it draws is its own (the same again in a resumed run)."""
    heads = []
    for mode in ("default", None):
        classifier = tiny_classifier(build(), compile=mode)
        classifier.backbone.dropout.p = 0.0
        folder = tmp_path / str(mode)
        folder.mkdir()
        train(folder, tiny_store, plan(1, 2, drop_path_rate=0.5), classifier=classifier)
        heads.append(classifier.head.weight.detach())
    torch.testing.assert_close(*heads, rtol=1e-2, atol=1e-4)


FLAGS = [
    *("--model.backbone", "vit", "--model.backbone.depth", "2", "--model.backbone.dim", "12"),
    *("--model.backbone.patch", "[12, 50]", "--data.task", "superdiagnostic", "--data.batch_size", "11"),
    *("--post_training.probe.epochs", "1", "--post_training.fine_tune.epochs", "2"),
    *("--post_training.drop_path_rate", "0.5", "--post_training.fine_tune.learning_rate", "0.001"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    *("--checkpoint_every", "1", "--trainer.log_every_n_steps", "1"),
]
KILL = '{"class_path": "processes.KillAt", "init_args": {"epoch": %d, "batch": %d}}'


def fit(store: Path, run: Path, *more: str, processes: int = 1, code: int = 0) -> Path:
    strategy = ["--trainer.devices", "2", "--trainer.strategy", "ddp"] if processes > 1 else []
    ended = run_cli("fit", *FLAGS, "--data.store", str(store), "--run", str(run), *strategy, *more)
    assert ended.returncode == code, ended.stdout
    assert "ViT is compiled (torch.compile, mode default)" in ended.stdout
    return run


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_compiled_run_that_was_killed_goes_on_to_the_same_weights(tiny_store, tmp_path, processes):
    """In the probe, at the switch, inside fine-tuning."""
    eagerly = compiled_by("aot_eager")
    undisturbed = fit(tiny_store, tmp_path / "undisturbed", *eagerly, processes=processes)
    for epoch, batch in ((0, 3), (1, 0), (1, 4)):
        killed = compiled_by("aot_eager", KILL % (epoch, batch))
        fit(tiny_store, tmp_path / "run", *killed, "--resume", "auto", processes=processes, code=-9)
    fit(tiny_store, tmp_path / "run", *eagerly, "--resume", "auto", processes=processes)
    assert differences(undisturbed, tmp_path / "run") == []


@pytest.mark.slow
def test_two_compiled_processes_train_the_weights_of_a_plain_one(tiny_store, tmp_path):
    """The reducer is built anew at the switch around a network that is compiled already."""
    exact = ["--trainer.precision", "64-true", "--data.store", str(tiny_store)]
    two = fit(tiny_store, tmp_path / "two", *compiled_by("aot_eager"), *exact, processes=2)
    ended = run_cli("fit", *FLAGS, *exact, "--run", str(tmp_path / "one"))
    assert ended.returncode == 0, ended.stdout
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (tmp_path / "one", two)
    ]
    assert list(states[0]) == list(states[1])
    assert max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0]) < 1e-9

import itertools
import re
import subprocess
import sys
import time

import jsonargparse
import pytest
import yaml
from tiny import of_lightning_cli

import ecg_lightning
from ecg_lightning import training
from ecg_lightning.backbones import list_backbones
from ecg_lightning.cli import COMMANDS, main
from ecg_lightning.config_names import config_folder, find_config, settled_arguments, shipped_configs, shipped_grids
from ecg_lightning.errors import UsageError

pytestmark = of_lightning_cli

CONFIGS = shipped_configs()
BACKBONES = [name for name in CONFIGS if name.startswith("backbone/")]
RECIPES = [name for name in CONFIGS if name.startswith("recipe/")]
OTHERS = [name for name in CONFIGS if not name.startswith(("backbone/", "recipe/", "pretrain/"))]
TINY = [
    "--model.backbone",
    "vit",
    "--model.backbone.depth",
    "1",
    "--model.backbone.dim",
    "6",
    "--data.task=superdiagnostic",
]
SHORT = ["--post_training.probe.epochs=1", "--post_training.fine_tune.epochs=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Commands run in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def called(capsys, *arguments):
    """Exit code, what was printed, what was said on the error channel."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def parsed(capsys, *arguments, store="some.h5", run="some_run"):
    """The config that a fit with these arguments would have."""
    code, out, err = called(capsys, "fit", "--data.store", store, "--run", run, *arguments, "--print_config")
    assert (code, err) == (0, "")
    return yaml.safe_load(out)


def configs(*names):
    return [part for name in names for part in ("--config", name)]


# --- the front door ---


def test_help_lists_every_command(capsys):
    code, out, _ = called(capsys, "--help")
    assert code == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", out, re.MULTILINE)


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from ecg_lightning.cli import main; main(['--help']); print([m for m in sys.modules if m in %s])"
    )
    heavy = ["torch", "numpy", "lightning", "jsonargparse", "h5py"]
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert time.monotonic() - start < 20  # of a busy machine; 0.1 s of an idle one


def test_no_command_shows_the_help_as_an_error(capsys):
    code, out, _ = called(capsys)
    assert code == 2
    assert "usage: ecg-lightning COMMAND" in out


def test_an_unknown_command_is_refused_with_the_known(capsys):
    code, _, err = called(capsys, "train")
    assert code == 2
    assert err == f"ecg-lightning: unknown command 'train', known are {', '.join(COMMANDS)}\n"


def test_the_version_is_the_packages(capsys):
    assert called(capsys, "--version") == (0, f"ecg-lightning {ecg_lightning.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, here, command):
    code, out, _ = called(capsys, command, "--help")
    assert code == 0
    assert f"ecg-lightning {command}" in out
    assert not any(here.iterdir())


# --- configs ---


def test_there_are_configs_for_every_backbone():
    assert [name.removeprefix("backbone/") for name in BACKBONES] == list_backbones()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_config_says_what_it_is_its_score_and_its_command(name):
    header = [line for line in (config_folder() / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    text = " ".join(header)
    assert f"--config {name}" in text or f"--config {name.split('/')[0]}/" in text
    if name.startswith(("backbone/", "recipe/")):
        assert "Score" in text


@pytest.mark.parametrize(("backbone", "recipe"), [*itertools.product(BACKBONES, RECIPES)])
def test_every_backbone_goes_with_every_recipe(capsys, here, backbone, recipe):
    config = parsed(capsys, *configs(backbone, recipe))
    own = yaml.safe_load(find_text(recipe))
    for key, value in flat(own).items():
        assert flat(config)[key] == value, key
    assert not any(here.iterdir())


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_config_goes_with_a_backbone_and_a_recipe(capsys, here, name):
    config = flat(parsed(capsys, *configs(name, "backbone/vit", "recipe/default")))
    for key, value in flat(yaml.safe_load(find_text(name))).items():
        assert config[key] == value, key


def find_text(name):
    return (config_folder() / f"{name}.yaml").read_text()


def flat(config, prefix=""):
    pairs = {}
    for key, value in config.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return pairs


def test_a_recipe_overrides_the_backbones_rates_and_keeps_its_sizes(capsys):
    config = parsed(capsys, *configs("backbone/mtecg_ti", "recipe/paper_v1"))
    assert config["post_training"]["fine_tune"]["layer_decay"] == 1.0
    assert config["model"]["backbone"]["class_path"] == "ecg_lightning.backbones.MTECGTi"


def test_two_configs_merge_group_by_group(capsys, here):
    (here / "one.yaml").write_text(
        "model: {backbone: {class_path: ecg_lightning.backbones.ViT, init_args: {depth: 3}}}"
    )
    (here / "two.yaml").write_text("model: {backbone: {init_args: {dim: 96}}}")
    sizes = parsed(capsys, *configs("one.yaml", "two.yaml"))["model"]["backbone"]["init_args"]
    assert (sizes["depth"], sizes["dim"]) == (3, 96)


@pytest.mark.parametrize("flag", [["--post_training.drop_path_rate=0.25"], ["--post_training.drop_path_rate", "0.25"]])
@pytest.mark.parametrize("first", [True, False])
def test_a_flag_wins_over_a_config_wherever_it_stands(capsys, flag, first):
    given = configs("backbone/vit", "recipe/default")
    config = parsed(capsys, *(flag + given if first else given + flag))
    assert config["post_training"]["drop_path_rate"] == 0.25


@pytest.mark.parametrize(
    "spelled", [["--model.backbone", "vit"], ["--model.backbone=vit"], ["--model.backbone", "ViT"]]
)
def test_a_backbone_is_named_as_in_the_registry_or_by_its_class(capsys, spelled):
    config = parsed(capsys, *spelled, "--model.backbone.depth=2")
    assert config["model"]["backbone"]["class_path"].endswith("ViT")
    assert config["model"]["backbone"]["init_args"]["depth"] == 2


def test_the_epochs_of_both_phases_make_up_the_trainers(capsys):
    with pytest.raises(KeyError):  # a linked value is not printed: it cannot be set
        parsed(capsys, "--model.backbone=vit", *SHORT)["trainer"]["max_epochs"]


def test_a_config_of_ones_own_comes_before_a_shipped_one(here):
    (here / "recipe").mkdir()
    (here / "recipe" / "default").write_text("post_training: {}")
    assert find_config("recipe/default") == "recipe/default"


@pytest.mark.parametrize("name", ["recipe/default", "recipe/default.yaml"])
def test_a_shipped_config_is_found_from_anywhere(here, name):
    assert find_config(name) == str(config_folder() / "recipe" / "default.yaml")


@pytest.mark.parametrize("name", ["recipe/best", "", ".", "..", "recipe", "../pyproject"])
def test_an_unknown_config_is_refused_with_the_shipped(here, name):
    with pytest.raises(UsageError) as raised:
        find_config(name)
    assert all(shipped in str(raised.value) for shipped in CONFIGS)


def test_a_grid_of_runs_is_no_config_of_one(here):
    assert not {*shipped_grids()} & {*CONFIGS}
    with pytest.raises(UsageError, match="is a grid of runs: ecg-lightning experiment experiment/main"):
        find_config("experiment/main")


def test_configs_keep_their_order_in_front_of_the_flags():
    given = ["--a=1", "--config=recipe/default", "--b", "2", "-c", "backbone/vit", "--model.backbone=vit"]
    assert [part.rpartition("/")[2] for part in settled_arguments(given)] == [
        "--config", "default.yaml", "--config", "vit.yaml", "--a=1", "--b", "2",
        "--model.backbone", "ecg_lightning.backbones.vit.ViT",
    ]  # fmt: skip


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config", "recipe/best"],
            r"--config recipe/best is neither a file nor a shipped config; shipped are backbone/",
        ),
        (["--config"], r"neither a file nor a shipped config"),
        (["--data.stor", "some.h5"], r"data\.stor\b.*\n.*--help` lists what it takes"),
        (["--data.colour", "red"], r"data\.colour"),
        (["--data.batch_size", "many"], r"batch_size"),
        (["--data.task", "rythm"], r"task"),
        (["--resume", "always"], r"resume"),
        (["--model.backbone.colour", "red"], r"colour"),
        (["--trainer.max_epochs", "3"], r"max_epochs"),
        (["--post_training.drop_path_rate", "1.5"], r"post_training\.drop_path_rate is 1\.5"),
        (["--data.val_folds", "[8]"], r"fold\(s\) \[8\] are in both"),
        (["--checkpoint_every", "0"], r"--checkpoint_every is 0"),
    ],
)
def test_a_wrong_flag_or_config_is_code_2_with_one_message_and_no_run(capsys, tiny_store, run, arguments, message):
    code, _, err = called(capsys, "fit", *TINY, "--data.store", tiny_store, "--run", run, *SHORT, *arguments)
    assert code == 2
    assert err.startswith("ecg-lightning fit: ")
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not run.exists()


def test_a_fit_without_a_run_is_refused(capsys, here, tiny_store):
    code, _, err = called(capsys, "fit", *TINY, "--data.store", tiny_store)
    assert code == 2
    assert "run" in err
    assert not any(here.iterdir())


def test_a_run_named_in_a_config_alone_never_takes_the_folder_one_stands_in(capsys, here, tiny_store, tmp_path):
    (tmp_path / "mine.yaml").write_text("run: my_run")
    code, _, err = called(capsys, "fit", "--config", tmp_path / "mine.yaml", *TINY, *SHORT, "--data.store", tiny_store)
    assert code == 2
    assert "--run" in err
    assert not any(here.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.store", "none.h5"], r"store none\.h5 does not exist: make it with `ecg-lightning prepare"),
        (["--data.train_folds", "[42]"], r"no record of .* lies in train_folds \[42\]"),
        (["--model.backbone", "ecgfounder"], r"prepare --source PTBXL_DIR --output STORE --backbone ecgfounder"),
        (["--model.weights", "none.pt"], r"none\.pt is no file"),
    ],
)
def test_what_cannot_be_used_is_code_1_with_one_message_and_no_run(capsys, here, tiny_store, run, arguments, message):
    given = arguments if "--model.backbone" in arguments else [*TINY, *arguments]
    code, _, err = called(capsys, "fit", "--data.store", tiny_store, "--run", run, *SHORT, *given)
    assert code == 1
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not run.exists()


@pytest.mark.parametrize("command", ["test", "validate"])
def test_judging_a_run_that_is_not_there_is_refused(capsys, run, command):
    code, _, err = called(capsys, command, "--run", run)
    assert code == 2
    assert (
        err
        == f"ecg-lightning {command}: --run {run} holds no run: give the folder that `ecg-lightning fit --run` wrote\n"
    )
    assert not run.exists()


def test_debug_shows_where_an_error_is(capsys, run):
    with pytest.raises(UsageError, match="holds no run"):
        main(["test", "--run", str(run), "--debug"])


def test_an_error_that_is_not_the_users_names_its_type_and_the_way_to_see_more(capsys, monkeypatch):
    def broken(arguments):
        raise RuntimeError("a wire is loose")

    monkeypatch.setattr(training, "fit", broken)
    code, _, err = called(capsys, "fit")
    assert (code, err) == (1, "ecg-lightning fit: RuntimeError: a wire is loose (--debug shows where)\n")


def test_an_interruption_is_code_130(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    assert called(capsys, "fit")[0] == 130


@pytest.mark.parametrize(
    "arguments", [["prepare"], ["prepare", "--source", "x"], ["prepare", "--sourc", "x", "--output", "y"], ["inspect"]]
)
def test_the_other_commands_refuse_wrong_flags_with_code_2(capsys, here, arguments):
    code, _, err = called(capsys, *arguments)
    assert code == 2
    assert err
    assert "Traceback" not in err
    assert not any(here.iterdir())


# --- a whole run ---


@pytest.fixture(scope="module")
def finished(tiny_store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", *TINY, *SHORT, "--data.store", str(tiny_store), "--run", str(run)]) == 0
    return run


def test_a_finished_run_holds_what_the_design_promises(finished):
    expected = {"config.yaml", "metrics.csv", "state.json", "environment.json", "log.txt", "metrics_val.json"}
    assert expected <= {path.name for path in finished.iterdir()}
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == [
        "finetune-best.ckpt",
        "frozen-backbone.safetensors",
        "last.ckpt",
        "probe-best.ckpt",
    ]
    assert not [path for path in finished.rglob("*") if path.suffix in (".tmp", ".partial")]


def test_the_config_of_a_run_is_complete_and_says_nothing_of_the_call(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert {"model", "data", "trainer", "post_training", "seed_everything"} <= config.keys()
    assert not {"run", "resume", "checkpoint_every", "config"} & config.keys()
    assert config["data"]["batch_size"] == 256


def test_a_complete_run_is_refused_and_left_alone(capsys, finished, tiny_store):
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*.ckpt"))
    code, _, err = called(capsys, "fit", *TINY, *SHORT, "--data.store", tiny_store, "--run", finished)
    assert code == 1
    assert "(complete): choose another name, or test it" in err
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*.ckpt")) == before


def test_resuming_a_complete_run_is_a_success_that_does_nothing(capsys, finished):
    before = (finished / "metrics.csv").read_text()
    assert called(capsys, "fit", "--run", finished, "--resume", "auto")[0] == 0
    assert (finished / "metrics.csv").read_text() == before


def test_testing_a_run_writes_its_predictions_once(capsys, finished):
    code, out, _ = called(capsys, "test", "--run", finished, "--trainer.enable_progress_bar=false")
    assert code == 0
    assert re.search(r"test: macro AUROC \d\.\d+, macro AUPRC \d\.\d+ over \d of 5 labels, 8 records", out)
    assert (finished / "predictions" / "test.npz").exists()
    assert (finished / "metrics_test.json").exists()


def test_another_checkpoint_writes_under_its_own_name(capsys, finished):
    best = finished / "checkpoints" / "probe-best.ckpt"
    assert (
        called(capsys, "validate", "--run", finished, "--checkpoint", best, "--trainer.enable_progress_bar=false")[0]
        == 0
    )
    assert (finished / "predictions" / "val-probe-best.npz").exists()


def test_results_of_something_else_are_replaced_only_when_asked(capsys, finished):
    quiet = ["--trainer.enable_progress_bar=false"]
    other = ["--data.val_folds", "[8]", "--data.train_folds", "[1]", "--even_seen", *quiet]
    code, _, err = called(capsys, "validate", "--run", finished, *other)
    assert code == 1
    assert "add --overwrite to replace them" in err
    assert called(capsys, "validate", "--run", finished, *other, "--overwrite")[0] == 0
    assert called(capsys, "validate", "--run", finished, *quiet, "--overwrite")[0] == 0


def test_folds_that_were_trained_on_are_judged_only_when_asked_and_it_is_said(capsys, finished):
    seen = ["--data.val_folds", "[8]", "--data.train_folds", "[1]", "--trainer.enable_progress_bar=false"]
    code, _, err = called(capsys, "validate", "--run", finished, "--overwrite", *seen)
    assert code == 2
    assert "were trained on fold(s) 8 of PTB-XL, which are in data.val_folds: a score on them would flatter" in err
    code, _, err = called(capsys, "validate", "--run", finished, "--overwrite", "--even_seen", *seen)
    assert code == 0
    assert "the weights were trained on fold(s) 8 of PTB-XL: these scores flatter" in err
    assert called(capsys, "validate", "--run", finished, "--overwrite", *seen[4:])[0] == 0


def test_a_checkpoint_that_is_not_there_is_refused(capsys, finished):
    code, _, err = called(capsys, "test", "--run", finished, "--checkpoint", "none.ckpt")
    assert code == 2
    assert "--checkpoint none.ckpt does not exist: the run has finetune-best.ckpt, last.ckpt, probe-best.ckpt" in err


def test_a_run_cut_short_is_no_success_and_a_refused_resume_keeps_its_config(capsys, tiny_store, run):
    given = [*TINY, *SHORT, "--data.store", tiny_store, "--run", run, "--data.batch_size=16"]
    code, _, err = called(capsys, "fit", *given, "--trainer.max_steps=6")
    assert code == 1
    assert '"interrupted"' in (run / "state.json").read_text()
    before = (run / "config.yaml").read_text()
    code, _, err = called(capsys, "fit", "--run", run, "--resume", "auto", "--post_training.probe.epochs=2")
    assert code == 2
    assert "post_training.probe.epochs was 1, is 2 (the run has 1 epoch(s) behind it)" in err
    assert (run / "config.yaml").read_text() == before
    assert called(capsys, "fit", "--run", run, "--resume", "auto", "--trainer.max_steps=-1")[0] == 0
    assert '"complete"' in (run / "state.json").read_text()


def test_the_parser_is_a_version_whose_merging_is_known():
    assert int(jsonargparse.__version__.split(".")[0]) == 4


# --- what a first reader stumbled over ---


def test_a_run_that_is_there_is_named_before_its_flags_are_missed(capsys, finished):
    code, _, err = called(capsys, "fit", "--run", str(finished))
    assert code == 1
    assert "holds a run already (complete)" in err
    assert "ecg-lightning test --run" in err


def test_a_complete_run_takes_no_more_epochs(capsys, finished):
    code, _, err = called(
        capsys, "fit", "--run", str(finished), "--resume", "auto", "--post_training.fine_tune.epochs", "99"
    )
    assert code == 2
    assert "post_training.fine_tune.epochs is 99, the run is complete with" in err


def test_results_of_other_labels_are_not_replaced_unasked(capsys, finished):
    assert called(capsys, "validate", "--run", str(finished))[0] == 0
    code, _, err = called(capsys, "validate", "--run", str(finished), "--data.min_likelihood", "100")
    assert code == 1
    assert "holds results with another min_likelihood: add --overwrite" in err


def test_a_checkpoint_may_be_named_as_in_the_run(capsys, finished):
    assert called(capsys, "validate", "--run", str(finished), "--checkpoint", "last")[0] == 0
    assert (finished / "metrics_val-last.json").exists()


def test_a_run_is_judged_from_any_folder(capsys, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert called(capsys, "validate", "--run", str(finished))[0] == 0


@pytest.mark.parametrize(
    ("flag", "value", "instead"),
    [("--trainer.max_epochs", "5", "post_training.probe.epochs"), ("--trainer.fast_dev_run", "true", "limit_train")],
)
def test_trainer_flags_that_cut_across_the_phases_name_what_to_set_instead(capsys, flag, value, instead):
    code, _, err = called(capsys, "fit", "--run", "r", flag, value)
    assert code == 2
    assert instead in err


def test_inspect_takes_its_store_before_or_behind_its_flags(capsys, tiny_store):
    for arguments in (["--json", str(tiny_store)], [str(tiny_store), "--json"]):
        code, out, err = called(capsys, "inspect", *arguments)
        assert code == 0, err
        assert '"tasks"' in out


def test_a_backbone_of_ones_own_is_found_in_the_current_folder(capsys, tmp_path, monkeypatch):
    (tmp_path / "my_network_here.py").write_text(
        "from ecg_lightning.backbones import ViT\n\n\nclass MyNetwork(ViT):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    code, out, err = called(capsys, "inspect", "--backbone", "my_network_here.MyNetwork")
    assert code == 0, err
    assert "MyNetwork" in out


def test_a_store_is_prepared_for_sizes_that_are_not_the_defaults(capsys, tiny_ptbxl, tmp_path):
    store = tmp_path / "short.h5"
    arguments = ["--source", str(tiny_ptbxl), "--output", str(store), "--backbone", "vit"]
    code, _, err = called(capsys, "prepare", *arguments, "--sizes", '{"num_time_points": 500}')
    assert code == 0, err
    assert store.exists()

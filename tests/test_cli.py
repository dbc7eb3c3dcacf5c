"""The front door: help, exit codes, one message for each error."""

import re
import subprocess
import sys
import time

import jsonargparse
import pytest
from command_line import SHORT, TINY, called
from tiny import of_lightning_cli

import ecg_lightning
from ecg_lightning import training
from ecg_lightning.cli import COMMANDS, main
from ecg_lightning.errors import UsageError

pytestmark = of_lightning_cli


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


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


def test_the_help_of_fit_shows_its_own_flags_before_the_trainers(capsys, here):
    code, out, _ = called(capsys, "fit", "--help")
    assert code == 0
    assert out.splitlines()[0] == "usage: ecg-lightning fit [--config NAME ...] [--GROUP.NAME VALUE ...] --run RUN"
    flags = (
        "--run RUN",
        "--model.backbone BACKBONE",
        "--data.store",
        "--post_training.probe.epochs",
        "--trainer.devices",
    )
    places = [out.index(f"\n  {flag}") for flag in flags]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, here, command):
    code, out, _ = called(capsys, command, "--help")
    assert code == 0
    assert f"ecg-lightning {command}" in out
    assert not any(here.iterdir())


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


def test_the_parser_is_a_version_whose_merging_is_known():
    assert int(jsonargparse.__version__.split(".")[0]) == 4


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

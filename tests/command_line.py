"""The command line, called in this process."""

import yaml

from ecg_lightning.cli import main

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

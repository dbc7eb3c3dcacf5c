"""The command line: a command is the name of a function; no logic of its own."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ecg_lightning
from ecg_lightning.cli_flags import bare_flags, bare_value, divided, joined_lists, list_flags
from ecg_lightning.errors import InputError, UsageError


class Command(NamedTuple):
    """Where a command's function stands, and its line in the help."""

    module: str
    function: str
    help: str
    bare: str = ""
    """The parameter whose value, or values, may be given without its flag."""
    rest: str = ""
    """The parameter, a list, that takes all flags which the function does not name."""


COMMANDS = {
    "demo": Command("ecg_lightning.demo", "demo", "the whole story on real records that ship with the package"),
    "download": Command("ecg_lightning.commands", "download", "fetch PTB-XL 1.0.3: resumable, every file checked"),
    "synthesize": Command("ecg_lightning.commands", "synthesize", "write simulated ECGs, laid out as PTB-XL"),
    "prepare": Command(
        "ecg_lightning.commands", "prepare", "make a store for a backbone, from PTB-XL or your own records"
    ),
    "inspect": Command("ecg_lightning.commands", "inspect", "what is in a store, a run or a backbone", bare="target"),
    "pretrain": Command(
        "ecg_lightning.pretraining.command", "pretrain", "make a backbone of your own: masked ECGs, no labels"
    ),
    "fit": Command("ecg_lightning.training", "fit", "post-train a backbone: linear probe, then fine-tuning"),
    "validate": Command("ecg_lightning.training", "validate", "judge a run on its validation folds"),
    "test": Command("ecg_lightning.training", "test", "judge a run on its test folds"),
    "predict": Command("ecg_lightning.predict", "predict", "a run's probabilities for your own ECGs"),
    "embed": Command("ecg_lightning.embed", "embed", "a backbone's features of the records of a store"),
    "export": Command(
        "ecg_lightning.export.command", "export", "a run as one ONNX or safetensors file, checked against it"
    ),
    "evaluate": Command(
        "ecg_lightning.evaluate.command",
        "evaluate",
        "figures with intervals, calibration, paired tests",
        bare="predictions",
    ),
    "experiment": Command(
        "ecg_lightning.experiment", "experiment", "fit and test a grid of runs, one folder each", "grid", "flags"
    ),
    "report": Command(
        "ecg_lightning.report.command", "report", "one page, figures and tables on runs and experiments", bare="runs"
    ),
}
OWN_PARSER = {"pretrain", "fit", "validate", "test"}
"""Commands that take the arguments as they are: LightningCLI parses them."""

USAGE = """\
usage: ecg-lightning COMMAND [OPTIONS]

Two-phase post-training of ECG foundation models: a linear probe, then fine-tuning with stochastic depth.

commands:
{commands}

  ecg-lightning COMMAND --help    what a command takes
  ecg-lightning --version         the version
  ... --debug                     show the traceback of an error

Start with:
  ecg-lightning demo
  ecg-lightning download --output PTBXL_DIR
  ecg-lightning prepare --source PTBXL_DIR --output ptbxl-100hz.h5 --backbone vit
  ecg-lightning fit --config backbone/vit --config recipe/default --data.store ptbxl-100hz.h5 --data.task all --run RUN
  ecg-lightning test --run RUN
  ecg-lightning evaluate RUN
  ecg-lightning report RUN --output REPORT_DIR
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for a wrong flag or config, 1 for everything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:<12}{c.help}" for name, c in COMMANDS.items())), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"ecg-lightning {ecg_lightning.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return _say(f"ecg-lightning: unknown command {name!r}, known are {', '.join(COMMANDS)}", 2)
    try:
        return _call(name, rest)
    except KeyboardInterrupt:
        return _say(f"ecg-lightning {name}: interrupted", 130)
    except SystemExit as end:  # the parsers end so, after their own message
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, InputError):
            return _say(f"ecg-lightning {name}: {error}", 2 if isinstance(error, UsageError) else 1)
        if isinstance(error, OSError) and error.filename is not None:
            said = f"{error.filename}: {error.strerror}: check the path, its permissions and the room on its disk"
            return _say(f"ecg-lightning {name}: {said}", 1)
        return _say(f"ecg-lightning {name}: {type(error).__name__}: {error} (--debug shows where)", 1)


def _call(name: str, arguments: Sequence[str]) -> int:
    _calm_threads()
    if "" not in sys.path and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # a backbone of one's own, by class path, as `python -m` would find it
    command = COMMANDS[name]
    function = getattr(importlib.import_module(command.module), command.function)
    result = function([*arguments]) if name in OWN_PARSER else _call_plain(name, function, arguments)
    return result if isinstance(result, int) else 0


def _call_plain(name: str, function: Callable[..., object], arguments: Sequence[str]) -> object:
    """A function whose signature is its flags, one of which may be left out (`Command.bare`)."""
    from jsonargparse import ArgumentError, auto_cli

    arguments, rest = divided(function, arguments) if COMMANDS[name].rest else (arguments, [])
    parsed, lists, bare = bare_flags(function, arguments), list_flags(function), f"--{COMMANDS[name].bare}"
    if bare != "--" and (place := bare_value(parsed, bare, lists)) is not None:
        parsed.insert(place, bare)
    try:
        return auto_cli(
            function,
            args=joined_lists(parsed, lists) + ([f"--{COMMANDS[name].rest}", json.dumps(rest)] if rest else []),
            prog=f"ecg-lightning {name}",
            as_positional=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
    except ArgumentError as error:
        raise UsageError(f"{error}\n(`ecg-lightning {name} --help` lists what it takes)") from None


def _calm_threads() -> None:
    """Waiting threads that spin took ten times as long beside one busy neighbour; say so before torch loads."""
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())

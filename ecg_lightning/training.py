"""The commands fit, validate and test: what happens between the claim of a run folder and its last file."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ecg_lightning.errors import InputError
from ecg_lightning.post_training import PostTraining
from ecg_lightning.progress import next_position
from ecg_lightning.results import write_results
from ecg_lightning.run_cli import RunCLI, value_of
from ecg_lightning.runs import BEST, RunFolder, State, existing_run, global_step, whole_file
from ecg_lightning.screen import log_plan, log_to_file, set_up_screen, stop_logging
from ecg_lightning.seen_records import refuse_seen
from ecg_lightning.termination import TERMINATED
from ecg_lightning.tracking import WandbTracker

log = logging.getLogger(__name__)


def fit(arguments: Sequence[str]) -> int:
    """Starts or continues a run; exit code 0 only when it is complete, 143 when it was terminated."""
    set_up_screen()
    run = RunFolder(value_of("--run", arguments) or "")
    arguments = resumed_arguments(run, arguments)
    cli = RunCLI("fit", arguments)
    if cli.nothing_left:
        log.info("%s is complete, nothing is left to train: ecg-lightning test --run %s", run.path, run.path)
        return 0
    return run_training(cli, _train)


def resumed_arguments(run: RunFolder, arguments: Sequence[str]) -> Sequence[str]:
    """The arguments behind the config of the run that they go on with; a run that is there already is refused."""
    resume = value_of("--resume", arguments)
    asks = any(argument in ("-h", "--help") or argument.startswith("--print_config") for argument in arguments)
    if not asks and resume != "auto":
        _refuse_existing(run)
    return ["--config", str(run.config), *arguments] if resume == "auto" and run.config.exists() else arguments


@rank_zero_only
def _refuse_existing(run: RunFolder) -> None:
    """Before the parser asks for flags that a run has: it is `--resume auto` that is missing."""
    run.refuse_existing("never")


def run_training(cli: RunCLI, train: Callable[[RunCLI], bool]) -> int:
    """Calls ``train``, which says whether the run is complete, and leaves the folder as what came of it; exit code."""
    run = cli.run_folder
    handler = log_to_file(run.path / "log.txt")
    former = {path: path.read_bytes() for path in (run.config, run.environment) if path.exists()}
    complete = False
    try:
        complete = train(cli)
    except InputError:
        _put_back(former)
        run.give_up()
        raise
    except SIGTERMException:  # a SystemExit without a code: a scheduler would take it for success
        set_state(run, "interrupted")
        log.warning("terminated; go on with: ecg-lightning %s --run %s --resume auto", cli.command, run.path)
        return TERMINATED
    except BaseException:
        set_state(run, "interrupted")
        raise
    finally:
        for tracker in _trackers(cli):
            tracker.close(0 if complete else 1)
        stop_logging(handler)
        run.release()
    return 0 if complete else 1


def _train(cli: RunCLI) -> bool:
    """Trains to the end, or as far as the trainer's limits let it; whether it was the end."""
    refuse_seen(cli.model, cli.datamodule)
    write_config(cli)
    log_plan(PostTraining.of(cli.trainer), cli.model, cli.datamodule, cli.trainer)
    complete = train_from_newest(cli)
    if complete:
        _judge_best(cli)
    set_state(cli.run_folder, "complete" if complete else "interrupted")
    return complete


def train_from_newest(cli: RunCLI) -> bool:
    """Trains from the newest checkpoint, where a run is gone on with; whether it came to its end."""
    run, trainer = cli.run_folder, cli.trainer
    checkpoint = run.newest_checkpoint() if cli.config.resume == "auto" else None
    step = 0 if checkpoint is None else global_step(checkpoint) or 0
    cli.metrics_file.drop_after(step)  # of a run that ended before its first checkpoint, every row
    if checkpoint is not None:
        for damaged in run.damaged_checkpoints():
            log.warning("%s is damaged and passed over: what was trained behind the newest whole one is lost", damaged)
        log.info("going on from %s, %d optimizer steps behind it", checkpoint, step)
        cli.model.resumes = True
    trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    complete = next_position(trainer.fit_loop.state_dict()).epoch >= (trainer.max_epochs or 0)
    if not complete:
        log.warning(
            "stopped before the end; go on with: ecg-lightning %s --run %s --resume auto", cli.command, run.path
        )
    return complete


def _judge_best(cli: RunCLI) -> None:
    """Validates the best checkpoint of the last phase and writes its predictions."""
    best = cli.run_folder.checkpoints / BEST[PostTraining.of(cli.trainer).last_phase]
    cli.trainer.loggers = []  # the epoch's own validation has logged these figures
    cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    write_results(cli.run_folder, "val", cli.trainer, best)
    for tracker in _trackers(cli):
        tracker.log_label_table("val", cli.model.scores)


@rank_zero_only
def write_config(cli: RunCLI) -> None:
    """The run's complete config and what it ran on, into the folder and to the loggers."""
    cli.pin_weights()
    with whole_file(cli.run_folder.config) as temporary:
        temporary.write_text(cli.run_config())
    stores, model = cli.datamodule.stores, cli.config.model
    weights = {"weights": model.weights, "weights_sha256": model.weights_sha256}
    paths = [str(Path(path).resolve()) for path in stores.paths]
    seconds = stores.stored.num_time_points / stores.stored.sampling_rate
    cli.run_folder.write_environment(paths, stores.sha256, record_seconds=seconds, **weights)
    for logger in cli.trainer.loggers:
        logger.log_hyperparams(json.loads(cli.run_config("json")))


def validate(arguments: Sequence[str]) -> int:
    """Validates a run."""
    return _evaluate("validate", "val", arguments)


def test(arguments: Sequence[str]) -> int:
    """Tests a run: the one command that reads the test folds."""
    return _evaluate("test", "test", arguments)


def _evaluate(command: str, split: str, arguments: Sequence[str]) -> int:
    set_up_screen()
    if {"-h", "--help"} & set(arguments):
        RunCLI(command, arguments)
    run = existing_run(value_of("--run", arguments) or "")
    cli = RunCLI(command, ["--config", str(run.config), *arguments])
    checkpoint = run.named_checkpoint(cli.config.checkpoint) if cli.config.checkpoint else run.best_checkpoint()
    unfinished = run.state != "complete"
    if unfinished:
        log.warning(
            "%s is not complete: it is judged with %s, under that name; go on with: ecg-lightning fit --run %s "
            "--resume auto", run.path, checkpoint.name, run.path,
        )  # fmt: skip
    judge = getattr(cli.trainer, command)
    judge(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)
    write_results(run, split, cli.trainer, checkpoint, overwrite=cli.config.overwrite, unfinished=unfinished)
    return 0


@rank_zero_only
def _put_back(files: Mapping[Path, bytes]) -> None:
    """A resume that was refused leaves the run's config as it was: the next one reads it."""
    for path, content in files.items():
        with whole_file(path) as temporary:
            temporary.write_bytes(content)


def _trackers(cli: RunCLI) -> list[WandbTracker]:
    return [logger for logger in cli.loggers if isinstance(logger, WandbTracker)]


@rank_zero_only
def set_state(run: RunFolder, state: State) -> None:
    """Writes the state, by the one process that writes."""
    run.set_state(state)

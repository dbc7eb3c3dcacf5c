"""The commands fit, validate and test: what happens between the claim of a run folder and its last file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.post_training import PostTraining
from ecg_lightning.progress import next_position
from ecg_lightning.results import write_results
from ecg_lightning.run_cli import RunCLI, value_of
from ecg_lightning.runs import BEST, RunFolder, State, existing_run, global_step, whole_file
from ecg_lightning.screen import log_plan, log_to_file, set_up_screen, stop_logging
from ecg_lightning.tracking import WandbTracker

log = logging.getLogger(__name__)


def fit(arguments: Sequence[str]) -> int:
    """Starts or continues a run; exit code 0 only when it is complete."""
    set_up_screen()
    run = RunFolder(value_of("--run", arguments) or "")
    if value_of("--resume", arguments) == "auto":
        if run.state == "complete":
            log.info("%s is complete, nothing is left to train: ecg-lightning test --run %s", run.path, run.path)
            return 0
        if run.config.exists():
            arguments = ["--config", str(run.config), *arguments]
    cli = RunCLI("fit", arguments)
    handler = log_to_file(cli.run_folder.path / "log.txt")
    former = {path: path.read_bytes() for path in (run.config, run.environment) if path.exists()}
    complete = False
    try:
        complete = _train(cli)
    except InputError:
        _put_back(former)
        cli.run_folder.give_up()
        raise
    except BaseException:
        _set_state(cli.run_folder, "interrupted")
        raise
    finally:
        for tracker in _trackers(cli):
            tracker.close(0 if complete else 1)
        stop_logging(handler)
        cli.run_folder.release()
    return 0 if complete else 1


def _train(cli: RunCLI) -> bool:
    """Trains to the end, or as far as the trainer's limits let it; whether it was the end."""
    run, trainer = cli.run_folder, cli.trainer
    _write_config(cli)
    log_plan(_plan(cli), cli.model, cli.datamodule, trainer)
    checkpoint = run.newest_checkpoint() if cli.config.resume == "auto" else None
    if checkpoint is not None:
        step = global_step(checkpoint) or 0
        log.info("going on from %s, %d optimizer steps behind it", checkpoint, step)
        cli.metrics_file.drop_after(step)
    trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    complete = next_position(trainer.fit_loop.state_dict()).epoch >= (trainer.max_epochs or 0)
    if complete:
        _judge_best(cli)
    else:
        log.warning("stopped before the end; go on with: ecg-lightning fit --run %s --resume auto", run.path)
    _set_state(run, "complete" if complete else "interrupted")
    return complete


def _judge_best(cli: RunCLI) -> None:
    """Validates the best checkpoint of the last phase and writes its predictions."""
    best = cli.run_folder.checkpoints / BEST[_plan(cli).last_phase]
    cli.trainer.loggers = []  # the epoch's own validation has logged these figures
    cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    write_results(cli.run_folder, "val", cli.trainer, best)
    for tracker in _trackers(cli):
        tracker.log_label_table("val", cli.model.scores)


@rank_zero_only
def _write_config(cli: RunCLI) -> None:
    with whole_file(cli.run_folder.config) as temporary:
        temporary.write_text(cli.run_config())
    store = cli.datamodule.store
    cli.run_folder.write_environment(str(store.path.resolve()), store.attributes["sha256"])
    for logger in cli.trainer.loggers:
        logger.log_hyperparams({"config": cli.run_config("json")})


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
    checkpoint = Path(cli.config.checkpoint) if cli.config.checkpoint else run.best_checkpoint()
    if not checkpoint.is_file():
        raise UsageError(f"--checkpoint {checkpoint} does not exist: the run's are in {run.checkpoints}")
    judge = getattr(cli.trainer, command)
    judge(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)
    write_results(run, split, cli.trainer, checkpoint, overwrite=cli.config.overwrite)
    return 0


def _plan(cli: RunCLI) -> PostTraining:
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, PostTraining))


@rank_zero_only
def _put_back(files: Mapping[Path, bytes]) -> None:
    """A resume that was refused leaves the run's config as it was: the next one reads it."""
    for path, content in files.items():
        with whole_file(path) as temporary:
            temporary.write_bytes(content)


def _trackers(cli: RunCLI) -> list[WandbTracker]:
    return [logger for logger in cli.loggers if isinstance(logger, WandbTracker)]


@rank_zero_only
def _set_state(run: RunFolder, state: State) -> None:
    run.set_state(state)

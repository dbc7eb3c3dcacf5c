"""The commands fit, validate and test: what happens between the claim of a run folder and its last file."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml
from lightning.pytorch.utilities import rank_zero_only

from ecg_lightning.backbones.provenance import Origins, Pretraining, origins_of, pretraining_of
from ecg_lightning.checkpointing import give_name, resumed
from ecg_lightning.config_names import config_content
from ecg_lightning.data.trained_on import what_is_trained_on
from ecg_lightning.disk_space import Need, check_space, is_out_of_space, need_of, out_of_space
from ecg_lightning.errors import InputError, StoppedError
from ecg_lightning.memory import is_out_of_memory, out_of_memory
from ecg_lightning.own_code import refuse_code_of
from ecg_lightning.progress import Position, next_position
from ecg_lightning.results import write_results
from ecg_lightning.resuming import differences, refuse_past, table
from ecg_lightning.run_cli import RunCLI, value_of
from ecg_lightning.runs import BEST, LAST, RunFolder, State, Survey, existing_run, whole_file
from ecg_lightning.screen import log_plan, log_to_file, note_error, set_up_screen, stop_logging
from ecg_lightning.seen_records import refuse_seen, seen_folds
from ecg_lightning.termination import CUT_SHORT, Interrupted, end_launched, is_of_taken_port, taken_port
from ecg_lightning.tracking import WandbTracker

log = logging.getLogger(__name__)


def fit(arguments: Sequence[str]) -> int:
    """Starts or continues a run; exit code 0 only when it is complete, 128 and its number when a signal ended it."""
    set_up_screen()
    run = RunFolder(value_of("--run", arguments) or "")
    cli = RunCLI("fit", resumed_arguments(run, arguments))
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
    if resume != "auto" or not run.config.exists():
        return arguments
    refuse_code_of(run.path, config_content(str(run.config)))
    return ["--config", str(run.config), *arguments]


@rank_zero_only
def _refuse_existing(run: RunFolder) -> None:
    """Before the parser asks for flags that a run has: it is `--resume auto` that is missing."""
    run.refuse_existing("never")


def run_training(cli: RunCLI, train: Callable[[RunCLI], bool]) -> int:
    """Calls ``train``, which says whether the run is complete, and leaves the folder as what came of it; exit code."""
    run = cli.run_folder
    handler = log_to_file(run.path / "log.txt")
    former = {path: path.read_bytes() for path in (run.config, run.environment) if path.exists()}
    code, state = 1, True

    def farewell() -> None:
        if state and cli.watch.first_has_ended():
            run.set_state("interrupted")  # the process whose word it is can no longer say it
        elif state:
            _set_state(run, "complete" if code == 0 else "interrupted")
        for tracker in _trackers(cli):
            tracker.close(code)
        stop_logging(handler)
        run.release()

    cli.ending.last_words = farewell
    try:
        with cli.ending:
            code = 0 if train(cli) else CUT_SHORT
    except Interrupted as end:
        code = end.code
    except StoppedError as error:
        note_error(handler, error)
        raise StoppedError(f"{error}; then go on with: {_way_on(cli)}") from error
    except InputError as error:
        note_error(handler, error)
        _put_back(former)
        run.give_up()
        state = False
        raise
    except BaseException as error:
        if cli.ending.code is None:
            note_error(handler, error)
            raise
        code = cli.ending.code  # the first process has ended, on a signal that came to this one as well
    finally:
        if code and state:
            log.warning("%s ended before its last epoch; go on with: %s", run.path, _way_on(cli))
        cli.watch.stop()
        if code:
            end_launched(cli.trainer)
        farewell()
    return code


def _way_on(cli: RunCLI) -> str:
    return f"ecg-lightning {cli.command} --run {cli.run_folder.path} --resume auto"


def _train(cli: RunCLI) -> bool:
    """Both phases, and the best of the last one judged."""
    plan = cli.post_training
    need = need_of(cli.model, plan.probe, plan.fine_tune)
    complete = train_from_newest(cli, need, lambda: log_plan(plan, cli.model, cli.datamodule, cli.trainer))
    if complete:
        _judge_best(cli)
    return complete


def train_from_newest(cli: RunCLI, need: Need, say_plan: Callable[[], None]) -> bool:
    """Trains to the end, or as far as the trainer's limits let it; whether it was the end.

    A run is gone on with from its newest whole checkpoint. ``need`` is held against the disk; ``say_plan`` is called
    before the training.
    """
    run, trainer = cli.run_folder, cli.trainer
    found = run.survey() if cli.config.resume == "auto" else Survey(None, 0, [])
    past = None if found.newest is None else resumed(found.newest)
    _settle_origins(cli, found.newest)
    _compare_configs(cli, None if past is None else past.position)
    _check_space(run, need)
    if past is not None and past.metrics is not None:
        cli.metrics_file.go_back_to(past.metrics)
    else:
        cli.metrics_file.drop_after(found.step)  # of a run that ended before its first checkpoint, every row
    for tracker in _trackers(cli):
        tracker.go_on(cli.metrics_file.rows)
    _write_config(cli)
    say_plan()
    for damaged in found.damaged:
        log.warning("%s is damaged and passed over: what was trained behind the newest whole one is lost", damaged)
    if found.newest is not None:
        log.info("going on from %s, %d optimizer steps behind it", found.newest, found.step)
        cli.model.resumes = True
    try:
        if found.newest is not None and found.newest.name != LAST:
            give_name(found.newest, LAST)  # killed before the best had its second name: it may be the last epoch
        trainer.fit(cli.model, cli.datamodule, ckpt_path=found.newest, weights_only=True)
    except (MemoryError, RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, trainer, cli.datamodule) from error
        if is_out_of_space(error):
            raise out_of_space(error, run.path) from error
        if is_of_taken_port(error):
            raise taken_port(error) from error
        raise
    return next_position(trainer.fit_loop.state_dict()).epoch >= (trainer.max_epochs or 0)


def _settle_origins(cli: RunCLI, newest: Path | None) -> None:
    """Tells the model what its weights have seen and will have; on a resume the checkpoint knows what was before.

    Raises:
        UsageError: where they have seen what they would be judged on.
    """
    model, data = cli.model, cli.datamodule
    epochs = cli.trainer.max_epochs
    here = [
        Pretraining.from_json({**one, "epochs": epochs, "objective": cli.objective}) for one in what_is_trained_on(data)
    ]
    before = () if model.weights is None else pretraining_of(model.weights)
    model.origins = Origins(before, tuple(here))
    past = Origins() if newest is None else origins_of(newest)
    if past.history:
        model.origins = model.origins.behind(past)
    named = newest if model.weights is None else f"model.weights {model.weights}"
    refuse_seen(str(named), model.origins.before, data, cli.judged_splits)


@rank_zero_only
def _check_space(run: RunFolder, need: Need) -> None:
    check_space(run, need)


@rank_zero_only
def _compare_configs(cli: RunCLI, position: Position | None) -> None:
    """Says what a resume changes, and refuses what would change the past."""
    run = cli.run_folder
    if cli.config.resume != "auto" or not run.config.exists():
        return
    cli.pin_weights()
    was, now = (yaml.safe_load(text) for text in (run.config.read_text(), cli.run_config()))
    changes = differences(was, now, position)
    if changes:
        log.info("the config of %s is changed:\n%s", run.path, table(changes))
    refuse_past(changes)


def _judge_best(cli: RunCLI) -> None:
    """Validates the best checkpoint of the last phase and writes its predictions."""
    best = cli.run_folder.checkpoints / BEST[cli.post_training.last_phase]
    cli.trainer.loggers = []  # the epoch's own validation has logged these figures
    cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    write_results(cli.run_folder, "val", cli.trainer, best)
    log.info("that is %s, the best of its epochs; next: ecg-lightning test --run %s", best.name, cli.run_folder.path)
    for tracker in _trackers(cli):
        tracker.log_label_table("val", cli.model.scores)


@rank_zero_only
def _write_config(cli: RunCLI) -> None:
    cli.pin_weights()
    with whole_file(cli.run_folder.config) as temporary:
        temporary.write_text(cli.run_config())
    stores, model = cli.datamodule.stores, cli.config.model
    history = cli.model.origins.before
    weights = {"weights": model.weights, "weights_sha256": model.weights_sha256}
    paths = [str(Path(path).resolve()) for path in stores.paths]
    seconds = stores.stored.num_time_points / stores.stored.sampling_rate
    cli.run_folder.write_environment(
        paths, stores.sha256, record_seconds=seconds, **weights, pretrained_on=[one.to_json() for one in history]
    )
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
    refuse_code_of(run.path, config_content(str(run.config)))
    cli = RunCLI(command, ["--config", str(run.config), *arguments])
    checkpoint = run.readable_checkpoint(cli.config.checkpoint)
    unfinished = run.state != "complete"
    if unfinished:
        log.warning(
            "%s is not complete: it is judged with %s, under that name; go on with: ecg-lightning fit --run %s "
            "--resume auto", run.path, checkpoint.name, run.path,
        )  # fmt: skip
    history = pretraining_of(checkpoint)
    if not cli.config.even_seen:
        refuse_seen(checkpoint, history, cli.datamodule, [split])
    elif told := seen_folds(history, cli.datamodule, split):
        log.warning("the weights were trained on %s: these scores flatter", told)
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
def _set_state(run: RunFolder, state: State) -> None:
    try:
        if run.taken_by() is None:  # else it is another's to say
            run.set_state(state)
    except OSError as error:  # a full disk: no process lives in it, which says enough
        log.warning("%s could not be written into %s (%s)", state, run.path, error)

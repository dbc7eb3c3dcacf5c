import json
import os
import re
import shlex
import subprocess

import pytest
import yaml
from small_grid import called, with_flags, write_grid
from tiny import of_lightning_cli

from ecg_lightning.config_names import config_folder, shipped_grids
from ecg_lightning.experiment.progress import standing_of

pytestmark = of_lightning_cli


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture(scope="module")
def finished(tiny_store, tmp_path_factory):
    """Both runs of the small grid, complete; not to be changed."""
    from ecg_lightning.cli import main

    folder = tmp_path_factory.mktemp("grid")
    given = [str(write_grid(folder)), "--data.store", str(tiny_store), "--output", str(folder / "output")]
    assert main(["experiment", *given]) == 0
    return folder / "output"


def again(finished, tiny_store):
    return [finished.parent / "grid.yaml", "--data.store", tiny_store, "--output", finished]


# --- the shipped grids ---


@pytest.mark.parametrize("name", shipped_grids())
def test_every_shipped_grid_is_a_grid(capsys, tiny_store, output, tmp_path, name):
    (tmp_path / "weights.pt").touch()
    code, out, err = called(
        capsys, name, "--output", output, "--data.store", tiny_store, "--config", "backbone/vit", "--dry_run",
        "--axes.seed.values", "[1]", "--data.task", "superdiagnostic", "--min_train_records", "20",
        *(["--axes.start.values.pretrained.flags.model.weights", tmp_path / "weights.pt"] * (name.endswith("isation"))),
    ) if name != "experiment/main" else called(
        capsys, name, "--output", output, "--data.store", tiny_store, "--config", "backbone/vit", "--dry_run",
        "--axes.task.values", "[superdiagnostic]",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert re.search(r"^\d+ runs in .*: \d+ to do; time left: unknown$", out, re.MULTILINE)
    assert not output.exists()


@pytest.mark.parametrize("name", shipped_grids())
def test_every_shipped_grid_says_what_it_is_its_score_its_size_and_its_command(name):
    text = (config_folder() / f"{name}.yaml").read_text()
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    for words in (f"experiment {name} --output", "Reproduces" if "validation" not in name else "comparable", "Score: "):
        assert words in header
    content, number = yaml.safe_load(text), 1
    for axis in content["axes"].values():
        number *= len(axis.get("values") or axis["folds"])
    assert f"{number} runs" in header


def test_too_small_a_fraction_is_left_out_for_all_seeds_and_said(capsys, tiny_store, output):
    code, out, err = called(
        capsys, "experiment/data_efficiency", "--output", output, "--data.store", tiny_store, "--dry_run",
        "--config", "backbone/vit", "--data.task", "superdiagnostic", "--axes.recipe.values", "[plain]",
        "--axes.fraction.values", "[0.1, 0.5, 1.0]", "--axes.seed.values", "[1, 2]",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert re.findall(r"left out: (\S+): \d+ training records with one of the seeds, fewer than 30", out) == [
        "plain-fraction0.1-seed1",
        "plain-fraction0.1-seed2",
    ]
    assert out.count("to do ") == 4


# --- refused before the first run ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.colour", "red"], r"all runs: unrecognized arguments: --data\.colour=red"),
        (["--parralel", "2"], r"all runs: unrecognized arguments: --parralel=2"),
        (["--axes.seed.values", "[1, x]"], r"2 runs \(the first is method-x\): .*seed_everything"),
        (["--data.task", "rythm"], r"all runs: .*rythm"),
        (["--data.val_folds", "[8]"], r"all runs: .*fold\(s\) \[8\] are in both"),
        (
            ["--axes.recipe.values.method.flags.post_training.drop_path_rate", "2"],
            r"method-seed1: .*drop_path_rate is 2",
        ),
        (["--post_training.drop_path_rate", "0.2"], r"--post_training\.drop_path_rate would change nothing"),
        (["--post_training.fine_tune.epochs", "0"], r"plain-seed1: .*nothing to train"),
        (["--run", "x"], r"--run cannot be set for all runs: each run has its own folder below --output"),
        (["--resume", "auto"], r"--resume cannot be set for all runs: runs are resumed by themselves"),
        (["--parallel", "0"], r"--parallel is 0"),
        (["--runs", "other-*"], r"--runs other-\*: the grid has no such run; it has method-seed1"),
        (["--runs", "2"], r"--runs 2: the grid has no such run; .*or 0 to 1"),
        (["--data.task="], r"--data\.task has no value"),
        (["--config", "recipe/best"], r"neither a file nor a shipped config"),
        (["--parallel", "2", "--trainer.devices", "2"], r"--parallel gives each run one device"),
        (["--write", "runs.txt"], r"--write runs\.txt: a name in \.yaml becomes"),
        (["--write", "runs.yaml"], r"a sweep needs runs that report .*: add --config logger/wandb"),
    ],
)
def test_a_wrong_flag_is_code_2_before_the_first_run(capsys, tiny_store, tmp_path, output, arguments, message):
    store = [] if "--data.store" in arguments else ["--data.store", tiny_store]
    code, _, err = called(capsys, write_grid(tmp_path), *store, "--output", output, *arguments)
    assert code == 2
    assert err.startswith("ecg-lightning experiment: ")
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.store", "none.h5"], r"all runs: .*none\.h5 does not exist"),
        (["--data.test_folds", "[42]"], r"all runs: .* lies in test_folds \[42\]"),
        (["--model.weights", "none.pt"], r"all runs: model\.weights is .*none\.pt, which is no file"),
        (["--model.backbone.num_time_points", "5000"], r"all runs: .* does not fit ViT"),
    ],
)
def test_what_cannot_be_used_is_code_1_before_the_first_run(capsys, tiny_store, tmp_path, output, arguments, message):
    store = [] if "--data.store" in arguments else ["--data.store", tiny_store]
    code, _, err = called(capsys, write_grid(tmp_path), *store, "--output", output, *arguments)
    assert code == 1
    assert re.search(message, err)
    assert not output.exists()


def test_a_missing_store_and_a_missing_backbone_are_told_with_their_flag(capsys, tiny_store, tmp_path, output):
    code, _, err = called(capsys, write_grid(tmp_path), "--output", output)
    assert code == 2
    assert "add --data.store STORE" in err
    flags = {"data.batch_size": 16}
    code, _, err = called(
        capsys, write_grid(tmp_path, configs=[], flags=flags), "--data.store", tiny_store, "--output", output
    )
    assert code == 2
    assert "--config backbone/vit" in err


# --- runs ---


def test_each_run_is_a_fit_and_a_test_in_a_folder_of_its_own(finished):
    for name in ("method-seed1", "plain-seed1"):
        assert standing_of(finished / name) == "complete"
        environment = json.loads((finished / name / "environment.json").read_text())
        assert environment["command"][:2] == ["ecg-lightning", "fit"]
        assert environment["command"][-4:] == ["--run", str(finished / name), "--resume", "auto"]
    assert json.loads((finished / "experiment.json").read_text())["runs"][1]["name"] == "plain-seed1"


def test_what_is_complete_is_left_alone(capsys, finished, tiny_store):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    code, out, _ = called(capsys, *again(finished, tiny_store))
    assert code == 0
    assert out.endswith(f"2 of 2 runs are complete in {finished}\n")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_dry_run_tells_where_each_run_stands_and_the_time_of_the_others(capsys, finished, tiny_store):
    code, out, _ = called(capsys, *again(finished, tiny_store), "--axes.seed.values", "[1, 2]", "--dry_run")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[1] for line in lines[:4]] == ["method-seed1", "method-seed2", "plain-seed1", "plain-seed2"]
    assert [line[2] for line in lines[:4:2]] == ["complete", "complete"]
    assert [line[2:4] for line in lines[1:4:2]] == [["to", "do"]] * 2
    assert "about" in lines[1]
    assert re.match(r"4 runs in .*: 2 complete, 2 to do; time left: about \d+ s", out.splitlines()[4])


def test_the_flags_of_a_grid_cannot_change_under_its_runs(capsys, finished, tiny_store):
    code, _, err = called(capsys, *again(finished, tiny_store), "--data.min_likelihood", "50", "--dry_run")
    assert code == 1
    assert "method-seed1 has data.min_likelihood 'unset' there, 50 here" in err


def test_a_run_that_is_not_tested_is_tested_and_not_trained_again(capsys, tiny_store, tmp_path, output):
    given = [write_grid(tmp_path), "--data.store", tiny_store, "--output", output, "--runs", "plain-*"]
    assert called(capsys, *given)[0] == 0
    assert standing_of(output / "method-seed1") == "to do"
    log = (output / "plain-seed1" / "log.txt").read_bytes()
    (output / "plain-seed1" / "metrics_test.json").unlink()
    assert called(capsys, *given)[0] == 0
    assert standing_of(output / "plain-seed1") == "complete"
    assert (output / "plain-seed1" / "log.txt").read_bytes() == log


FAILING = {
    "deep": {"flags": {"post_training.fine_tune.freeze_layers": 9}},
    "fine": {"flags": {"data.keep": "labelled"}},
}


@pytest.mark.parametrize(("on_error", "second"), [("continue", "complete"), ("stop", "to do")])
def test_a_run_that_fails_is_told_at_the_end_and_does_not_take_the_others_along(
    capsys, tiny_store, tmp_path, output, on_error, second
):
    grid = write_grid(tmp_path, axes={"part": {"values": FAILING}})
    code, out, _ = called(capsys, grid, "--data.store", tiny_store, "--output", output, "--on_error", on_error)
    assert code == 1
    assert standing_of(output / "fine") == second
    assert re.search(r"^failed: deep: post_training\.fine_tune\.freeze_layers is 9", out, re.MULTILINE)
    number = int(second == "complete")
    assert out.endswith(f"{number} of 2 runs are complete in {output}; the same command goes on with the others\n")


def test_an_unexpected_error_leaves_its_traceback_in_a_file(capsys, tiny_store, tmp_path, output, monkeypatch):
    from ecg_lightning import training

    def broken(arguments):
        raise RuntimeError("a wire is loose")

    monkeypatch.setattr(training, "fit", broken)
    given = [write_grid(tmp_path), "--data.store", tiny_store, "--output", output, "--runs", "0"]
    code, out, err = called(capsys, *given)
    log = output / "logs" / "method-seed1.txt"
    assert code == 1
    assert f"failed: method-seed1: RuntimeError: a wire is loose ({log} shows where)" in out
    assert "Traceback" not in out + err
    assert "in broken" in log.read_text()


def test_a_run_that_another_process_trains_is_left_to_it(capsys, tiny_store, tmp_path, output):
    from ecg_lightning.runs import RunFolder

    given = [write_grid(tmp_path), "--data.store", tiny_store, "--output", output, "--runs", "plain-seed1"]
    run = RunFolder(output / "plain-seed1")
    run.claim("never")
    code, out, _ = called(capsys, *given)
    run.release()
    assert code == 1
    assert "left to the process that trains it: plain-seed1" in out


# --- the same runs by other means ---


def test_a_sweep_names_every_run_and_passes_wandbs_own_check(capsys, tiny_store, tmp_path, output):
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution

    given = [write_grid(tmp_path), "--data.store", tiny_store, "--output", output, "--config", "logger/wandb"]
    code, _, err = called(capsys, *given, "--write", tmp_path / "sweep.yaml")
    assert (code, err) == (0, "")
    content = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert _validate_config_and_fill_distribution(content) == content
    assert content["method"] == "grid"
    assert content["parameters"] == {"runs": {"values": ["method-seed1", "plain-seed1"]}}
    assert content["command"][:3] == ["ecg-lightning", "experiment", str(tmp_path / "grid.yaml")]
    assert content["command"][-1] == "${args}"
    assert not output.exists()
    # what an agent makes of it
    assert called(capsys, *content["command"][2:-1], "--runs=plain-seed1", "--dry_run")[0] == 0


def test_an_array_script_runs_each_run_by_its_number(capsys, tiny_store, tmp_path, output):
    script = tmp_path / "array.sh"
    given = [write_grid(tmp_path), "--output", output, "--data.store", tiny_store]
    assert called(capsys, *given, "--write", script)[0] == 0
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "#SBATCH --array=0-1\n" in script.read_text()
    fake = tmp_path / "bin" / "ecg-lightning"  # says how it was called
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\nprintf "%q " "$@"\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    for number, name in enumerate(["method-seed1", "plain-seed1"]):
        environment["SLURM_ARRAY_TASK_ID"] = str(number)
        done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
        assert shlex.split(done.stdout) == ["experiment", *map(str, given), "--runs", name]
    del environment["SLURM_ARRAY_TASK_ID"]
    done = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "is set by sbatch" in done.stderr


def test_a_script_that_is_there_is_replaced_only_when_asked(capsys, tiny_store, tmp_path, output):
    script = tmp_path / "array.sh"
    script.write_text("mine")
    given = [write_grid(tmp_path), "--data.store", tiny_store, "--output", output, "--write", script]
    code, _, err = called(capsys, *given)
    assert code == 1
    assert "choose another name, or add --overwrite" in err
    assert script.read_text() == "mine"
    assert called(capsys, *given, "--overwrite")[0] == 0
    assert script.read_text().startswith("#!/bin/bash")


def test_a_run_behind_another_is_the_run_that_was_alone(capsys, tiny_store, tmp_path, output):
    """The first one changes what torch keeps for a whole process."""
    from processes import differences

    first = {"trainer.deterministic": True, "trainer.precision": "bf16-mixed", "data.num_workers": 1}
    parts = {"a": {"flags": first}, "b": {"flags": {"post_training.drop_path_rate": 0.5}}}
    grid = write_grid(tmp_path, flags=with_flags(model__dropout=0.2), axes={"part": {"values": parts}})
    common = [grid, "--data.store", tiny_store, "--output"]
    code, out, _ = called(capsys, *common, output)
    assert code == 0, out
    assert called(capsys, *common, tmp_path / "alone", "--runs", "b")[0] == 0
    assert differences(output / "b", tmp_path / "alone" / "b") == []

from dataclasses import replace

import pytest
from made_runs import METHOD, PROBE, write_experiment, write_grid_of_runs, write_run

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.judged import judge
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped

FAST = Options(draws=100)


def groups_of(*paths):
    return grouped(read_runs([str(path) for path in paths]))[0]


def judged_of(*paths, split="test"):
    return judge(groups_of(*paths), FAST, split)


def test_an_experiment_is_read_with_all_its_cells_and_single_runs_beside_it(tmp_path):
    folder = write_grid_of_runs(tmp_path / "grid")
    alone = write_run(tmp_path / "alone", METHOD, 3)
    runs = read_runs([str(folder), str(alone)])
    assert [run.name for run in runs][:3] == ["method-seed1", "method-seed2", "plain-seed1"]
    assert (runs[0].source, runs[-1].source, len(runs)) == ("grid", "", 7)


def test_a_folder_that_is_neither_run_nor_experiment_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"neither a run .* nor an experiment's folder"):
        read_runs([str(tmp_path)])


def test_a_run_that_is_named_twice_is_refused(tmp_path):
    folder = write_grid_of_runs(tmp_path / "grid")
    with pytest.raises(UsageError, match=r"method-seed1: named twice, as itself or through its experiment"):
        read_runs([str(folder), str(folder / "method-seed1")])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"state": "interrupted"}, "state interrupted: go on with it by `ecg-lightning fit --run"),
        ({"splits": ("val",)}, "no test predictions: write them with `ecg-lightning test --run"),
    ],
)
def test_what_is_missing_of_a_run_is_told_with_the_command_that_makes_it(tmp_path, arguments, told):
    (run,) = read_runs([str(write_run(tmp_path / "run", METHOD, **arguments))])
    assert told in run.problems[0]


def test_a_cell_that_is_not_complete_is_gone_on_with_by_its_experiment(tmp_path):
    write_run(tmp_path / "method-seed1", METHOD, state="interrupted")
    folder = write_experiment(tmp_path, {"method-seed1": {"recipe": "method", "seed": 1}})
    (run,) = read_runs([str(folder)])
    assert f"go on with it by the `ecg-lightning experiment` that wrote {folder}" in run.problems[0]
    assert "ecg-lightning fit" not in run.problems[0]


def test_a_damaged_record_of_an_experiment_is_to_be_taken_away(tmp_path):
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(InputError, match="take it away, then let `ecg-lightning experiment` write it anew"):
        read_runs([str(tmp_path)])


@pytest.mark.parametrize(
    ("recipe", "checkpoint", "kept"),
    [
        (METHOD, "probe-best.ckpt", False),
        (METHOD, "finetune-best.ckpt", True),
        (PROBE, "probe-best.ckpt", True),
    ],
)
def test_predictions_from_before_its_fine_tuning_are_not_judged_as_the_recipe(tmp_path, recipe, checkpoint, kept):
    path = write_run(tmp_path / "run", recipe, 2)
    for split in ("test", "val"):
        file = path / "predictions" / f"{split}.npz"
        predictions = Predictions.load(file)
        replace(predictions, meta={**predictions.meta, "checkpoint": checkpoint}).save(file)
    (run,) = read_runs([str(path)])
    told = f"judged with probe-best.ckpt, before its fine-tuning: ecg-lightning test --run {path} --overwrite"
    assert run.problems == (() if kept else (told,))
    assert [one is not None for one in (run.test, run.validation)] == [kept, kept]
    ((*judged,), _) = judged_of(path, write_run(tmp_path / "other", recipe, 1))
    assert [one.seeds for one in judged] == [(1, 2) if kept else (1,)]


def test_damaged_files_of_a_run_are_told(tmp_path):
    path = write_run(tmp_path / "run", METHOD)
    (path / "config.yaml").write_text("a: [")
    (path / "environment.json").write_text("[]")
    (path / "predictions" / "test.npz").write_bytes(b"no npz")
    (run,) = read_runs([str(path)])
    assert [problem.split()[0].rsplit("/")[-1] for problem in run.problems] == [
        "config.yaml",
        "environment.json",
        "test.npz",
    ]
    assert "trust the file" not in run.problems[2]


def test_predictions_of_other_stores_are_told_not_to_be_shown(tmp_path):
    path = write_run(tmp_path / "run", METHOD)
    (path / "predictions" / "test-cinc.npz").write_bytes((path / "predictions" / "test.npz").read_bytes())
    (run,) = read_runs([str(path)])
    assert "also holds test-cinc.npz, not shown here" in run.problems[0]


def test_a_cell_that_was_not_started_is_told(tmp_path):
    folder = write_experiment(tmp_path / "grid", {"method-seed1": {"recipe": "method", "seed": 1}})
    assert read_runs([str(folder)])[0].problems == ("not started",)

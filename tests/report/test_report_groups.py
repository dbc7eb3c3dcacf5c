import json
from dataclasses import replace

import pytest
import yaml
from made_runs import METHOD, PLAIN, PROBE, write_experiment, write_grid_of_runs, write_run

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.compare import Difference, compare
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.judged import judge
from ecg_lightning.report.main_table import in_one_sentence, is_sure, main_sheets, relative_gain
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped, plain_of

FAST = Options(draws=100)


def groups_of(*paths):
    return grouped(read_runs([str(path) for path in paths]))[0]


def judged_of(*paths, split="test"):
    return judge(groups_of(*paths), FAST, split)


# --- what is found ---


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


# --- what belongs together ---


def test_runs_that_differ_in_their_seed_alone_are_one_group_called_by_the_axis(tmp_path):
    groups = groups_of(write_grid_of_runs(tmp_path / "grid"))
    assert [(group.label, group.seeds) for group in groups] == [
        ("method", (1, 2)),
        ("plain", (1, 2)),
        ("probe", (1, 2)),
    ]


def test_single_runs_are_called_by_what_they_do_and_told_apart(tmp_path):
    other = {**METHOD, "probe": {"epochs": 2, "keep": "last"}}
    paths = [write_run(tmp_path / name, recipe) for name, recipe in (("a", METHOD), ("b", other), ("c", PROBE))]
    labels = [group.label for group in groups_of(*paths)]
    assert labels == [
        "probe + fine-tuning (drop path 0.3)",
        "probe + fine-tuning (drop path 0.3) (keep last)",
        "linear probe",
    ]


def test_the_same_run_in_two_experiments_counts_once_and_is_told(tmp_path):
    one, two = (write_grid_of_runs(tmp_path / name) for name in ("one", "two"))
    groups, repeats = grouped(read_runs([str(one), str(two)]))
    assert [group.seeds for group in groups] == [(1, 2)] * 3
    assert repeats[0].startswith("6 run(s) share setting, recipe and seed with another, which is judged: ")
    assert "two/method-seed1 repeats one/method-seed1" in repeats[0]


@pytest.mark.parametrize(
    "changes", [{"train_fraction": 0.3}, {"backbone": "mine.Net"}, {"task": "form"}, {"weights": "w.pt"}]
)
def test_plain_fine_tuning_of_another_setting_is_no_baseline(tmp_path, changes):
    method = write_run(tmp_path / "method", METHOD)
    same, other = write_run(tmp_path / "same", PLAIN), write_run(tmp_path / "other", PLAIN, **changes)
    groups = groups_of(method, other)
    assert plain_of(groups[0], groups) is None
    groups = groups_of(method, other, same)
    assert plain_of(groups[0], groups) is groups[2]
    assert plain_of(groups[2], groups) is None


@pytest.mark.parametrize(
    ("changes", "plain"),
    [({}, True), ({"drop_path_rate": 0.1}, False), ({"probe": {"epochs": 1}}, False), ({"fine_tune": {}}, False)],
)
def test_plain_fine_tuning_has_neither_probe_nor_stochastic_depth(tmp_path, changes, plain):
    (group,) = groups_of(write_run(tmp_path / "run", {**PLAIN, **changes}))
    assert group.is_plain is plain


def test_folds_that_test_in_turn_are_pooled(tmp_path):
    cells = {}
    for fold in (1, 2, 3):
        arguments = {"first_id": 1000 * fold, "seed": fold}
        folds = {"train_folds": [4, 5, fold % 3 + 1], "val_folds": [6], "test_folds": [fold]}
        write_run(tmp_path / f"fold{fold}", METHOD, arguments=arguments, **folds)
        cells[f"fold{fold}"] = {"recipe": "method", "fold": fold, "seed": 1}
    ((one,), _) = judged_of(write_experiment(tmp_path, cells))
    assert one.group.is_cross_validation
    assert one.evaluation.num_records == 180
    assert one.files[0].meta["folds"] == [1, 2, 3]
    assert "predictions of test folds 1; 2; 3 pooled" in one.notes[0]


def changed(path, **values):
    """The run with other values in its config, by dotted name; ``weights_sha256`` is of its environment."""
    if "weights_sha256" in values:
        environment = json.loads((path / "environment.json").read_text())
        environment["weights_sha256"] = values.pop("weights_sha256")
        (path / "environment.json").write_text(json.dumps(environment))
    config = yaml.safe_load((path / "config.yaml").read_text())
    for name, value in values.items():
        *rooms, last = name.split(".")
        room = config
        for one in rooms:
            room = room[one]
        room[last] = value
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [("data.residency", "device"), ("model.compile", "default"), ("post_training.probe.precompute", False)],
)
def test_where_and_how_it_is_computed_parts_neither_seeds_nor_baseline(tmp_path, name, value):
    one = write_run(tmp_path / "one", METHOD, 1)
    two = changed(write_run(tmp_path / "two", METHOD, 2), **{name: value})
    plain = changed(write_run(tmp_path / "plain", PLAIN, 1), **{name: value})
    groups = groups_of(one, two, plain)
    assert [group.seeds for group in groups] == [(1, 2), (1,)]
    assert plain_of(groups[0], groups) is groups[1]


def write_folds(folder, seeds=(1,), name="fold"):
    """An experiment over folds that are tested in turn."""
    cells = {}
    for seed in seeds:
        for fold in (1, 2, 3):
            called = f"{name}{fold}-seed{seed}"
            folds = {"train_folds": [4, 5, fold % 3 + 1], "val_folds": [6], "test_folds": [fold]}
            arguments = {"first_id": 1000 * fold, "seed": fold}
            write_run(folder / called, METHOD, seed, arguments=arguments, **folds)
            cells[called] = {"recipe": "method", "fold": fold, "seed": seed}
    return write_experiment(folder, cells)


def test_runs_of_other_weights_are_no_repeats_beside_a_cross_validation(tmp_path):
    folds = write_folds(tmp_path / "grid")
    one = changed(write_run(tmp_path / "one", METHOD, weights="a.pt"), weights_sha256="a" * 64)
    two = changed(write_run(tmp_path / "two", METHOD, weights="b.pt"), weights_sha256="b" * 64)
    groups, repeats = grouped(read_runs([str(path) for path in (folds, one, two)]))
    assert repeats == []
    assert [len(group.runs) for group in groups] == [3, 1, 1]


def test_recipes_of_one_experiment_that_differ_in_their_weights_are_no_repeats(tmp_path):
    for name in ("aaa", "bbb"):
        write_folds(tmp_path, name=name)
    for path in tmp_path.glob("*1"):
        changed(path, weights_sha256=path.name[0] * 64)
    cells = {path.name: {"recipe": path.name[:3], "fold": int(path.name[3]), "seed": 1} for path in tmp_path.glob("*1")}
    groups, repeats = grouped(read_runs([str(write_experiment(tmp_path, dict(sorted(cells.items()))))]))
    assert repeats == []
    assert [len(group.runs) for group in groups] == [3, 3]


def test_each_fold_of_a_cross_validation_may_start_from_weights_of_its_own(tmp_path):
    folder = write_folds(tmp_path)
    for fold in (1, 2, 3):
        changed(folder / f"fold{fold}-seed1", weights_sha256=str(fold) * 64)
    assert [len(group.runs) for group in groups_of(folder)] == [3]


def test_runs_without_an_axis_of_folds_are_never_pooled(tmp_path):
    one = write_run(tmp_path / "a", METHOD, train_folds=[1, 2, 3], test_folds=[9])
    two = write_run(tmp_path / "b", METHOD, train_folds=[4, 5, 6], test_folds=[8])
    assert [group.is_cross_validation for group in groups_of(one, two)] == [False, False]


@pytest.mark.parametrize("last", [[10], [9, 10], [10, 11]])
def test_folds_of_which_one_is_tested_twice_are_not_pooled(tmp_path, last):
    for name, train, test in (("a", [1, 2], [9]), ("b", [3, 4], [10]), ("c", [5, 6], last)):
        write_run(tmp_path / name, METHOD, train_folds=train, val_folds=[7], test_folds=test)
    folder = write_experiment(tmp_path, {name: {"fold": name, "seed": 1} for name in "abc"})
    groups, repeats = grouped(read_runs([str(folder)]))
    assert repeats == []
    assert [group.is_cross_validation for group in groups] == [False] * 3


def test_the_same_cross_validation_in_two_experiments_counts_once(tmp_path):
    one, two = write_folds(tmp_path / "one"), write_folds(tmp_path / "two")
    groups, repeats = grouped(read_runs([str(one), str(two)]))
    assert [len(group.runs) for group in groups] == [3]
    assert repeats[0].startswith("3 run(s) share")


def test_a_fold_that_no_seed_has_is_not_said_to_be_tested(tmp_path):
    folder = write_folds(tmp_path, seeds=(1, 2))
    for seed in (1, 2):
        (folder / f"fold3-seed{seed}" / "predictions" / "test.npz").unlink()
    ((one,), _) = judged_of(folder)
    assert "predictions of test folds 1; 2 pooled" in one.notes[1]
    assert "without test fold(s) 3, of which no seed has usable test predictions" in one.notes[0]
    assert "every record" not in " ".join(one.notes)


def test_a_seed_that_has_some_folds_is_left_out_and_its_folds_are_told(tmp_path):
    folder = write_folds(tmp_path, seeds=(1, 2))
    (folder / "fold3-seed1" / "predictions" / "test.npz").unlink()
    ((one,), _) = judged_of(folder)
    assert one.seeds == (2,)
    assert "without seed 1, whose usable test predictions are of test folds 1; 2 alone" in one.notes
    assert one.evaluation.num_records == 180


# --- what is judged ---


def test_the_gain_is_the_paired_comparison_over_the_seeds_that_both_have(tmp_path):
    folder = write_grid_of_runs(tmp_path / "grid", seeds=(1, 2, 3))
    (folder / "plain-seed2" / "predictions" / "test.npz").unlink()
    judged, problems = judged_of(folder)
    method, plain = judged[0], judged[1]
    assert problems == []
    assert method.shared == (1, 3)
    expected = compare(
        [method.files[0], method.files[2]],
        plain.files,
        [group for group, _ in method.evaluation.groups],
        names=(["m"] * 2, ["p"] * 2),
        draws=100,
    )
    assert method.comparison.groups[0][1]["auroc"] == expected.groups[0][1]["auroc"]
    assert "by seed 1, 3 alone, which both have" in method.notes[-1]
    assert "without seed 2, which has no usable test predictions" in plain.notes
    base = sum(groups[0]["auroc"] for groups in plain.evaluation.per_file) / 2
    assert relative_gain(method) == pytest.approx(100 * method.comparison.groups[0][1]["auroc"].value / base)


def test_the_main_table_has_a_row_for_each_recipe_and_the_baseline_no_gain(tmp_path):
    judged, _ = judged_of(write_grid_of_runs(tmp_path / "grid"))
    sheet = main_sheets(judged, [])[0]
    rows = {row[1]: dict(zip(sheet.head, row, strict=True)) for row in sheet.rows}
    assert [*rows] == ["method", "plain", "probe"]
    assert rows["plain"]["AUROC gain [95 %]"] == "(baseline)"
    figure = judged[0].evaluation.groups[0][1]["auroc"]
    assert rows["method"]["AUROC [95 %]"][:3] == (figure.value, figure.low, figure.high)
    assert rows["method"]["AUROC gain [95 %]"].value > 0 > rows["probe"]["AUROC gain [95 %]"].value
    assert rows["method"]["p"].value == judged[0].comparison.groups[0][1]["auroc"].p_permutation


def test_without_plain_fine_tuning_there_is_no_column_of_gains_and_that_is_told(tmp_path):
    judged, _ = judged_of(write_run(tmp_path / "run", METHOD))
    sheet = main_sheets(judged, [])[0]
    assert sheet.head == ("task", "recipe", "labels", "seeds", "AUROC [95 %]", "SD", "AUPRC [95 %]")
    assert "there is no plain fine-tuning of the same setting among the runs" in sheet.caption


def test_figures_of_other_protocols_or_folds_stand_in_tables_of_their_own(tmp_path):
    here = write_run(tmp_path / "here", METHOD)
    there = write_run(tmp_path / "there", METHOD, test_folds=[5, 6], arguments={"first_id": 500})
    judged, _ = judged_of(here, there)
    sheets = [sheet for sheet in main_sheets(judged, []) if "frequent" not in sheet.name]
    assert [len(sheet.rows) for sheet in sheets] == [1, 1]
    assert "fold(s) 10" in sheets[0].caption
    assert "fold(s) 5, 6" in sheets[1].caption


def test_a_gain_is_only_called_one_where_the_permutation_test_says_so(tmp_path):
    judged, _ = judged_of(write_grid_of_runs(tmp_path / "grid", num_records=200))
    assert "no difference" not in in_one_sentence(judged[0])
    judged, _ = judged_of(
        write_run(tmp_path / "a", METHOD, 1, shift=1.2), write_run(tmp_path / "b", PLAIN, 1, shift=1.2)
    )
    assert in_one_sentence(judged[0]).endswith("no difference that these patients can show.")


@pytest.mark.parametrize(
    ("p", "holm", "sure"), [(0.01, None, True), (0.2, None, False), (0.01, 0.3, False), (0.01, 0.04, True)]
)
def test_the_permutation_test_decides_corrected_where_it_is_of_a_label(p, holm, sure):
    difference = Difference(0.1, 0.05, 0.2, p_bootstrap=0.002, p_permutation=p, p_permutation_holm=holm)
    assert is_sure(difference) is sure


def test_a_group_that_cannot_be_judged_is_told_and_the_others_are(tmp_path):
    folder = write_grid_of_runs(tmp_path / "grid", seeds=(1,))
    one = write_run(tmp_path / "one_class", METHOD, task="mine", arguments={"prevalence": 0.0})
    judged, problems = judged_of(folder, one)
    assert [one.group.label for one in judged] == ["method", "plain", "probe"]
    assert "mine: not judged:" in problems[0]
    assert "no label has both classes" in problems[0]

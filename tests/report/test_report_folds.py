import json

import pytest
import yaml
from made_runs import METHOD, PLAIN, write_experiment, write_run

from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.report.judged import judge
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped, plain_of

FAST = Options(draws=100)


def groups_of(*paths):
    return grouped(read_runs([str(path) for path in paths]))[0]


def judged_of(*paths, split="test"):
    return judge(groups_of(*paths), FAST, split)


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
    assert "test folds 1; 2; 3, each predicted by a network of its own" in " ".join(one.notes)


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


@pytest.mark.parametrize("in_one", [True, False])
def test_each_start_of_a_cross_validation_is_held_against_its_own_plain_fine_tuning(tmp_path, in_one):
    """As a grid over the backbones that each fold's training records have pre-trained, or as a grid for each."""
    cells = {}
    for start in "ab":
        for recipe, phases in (("method", METHOD), ("plain", PLAIN)):
            for fold in (1, 2, 3):
                name = f"{start}/{recipe}{fold}" if not in_one else f"{start}-{recipe}{fold}"
                folds = {"train_folds": [4, 5, fold % 3 + 1], "val_folds": [6], "test_folds": [fold]}
                run = write_run(tmp_path / name, phases, arguments={"first_id": 1000 * fold, "seed": fold}, **folds)
                changed(run, weights_sha256=f"{start}{fold}" * 32)
                cells[name] = {**({"start": start} if in_one else {}), "recipe": recipe, "fold": fold, "seed": 1}
    if in_one:
        read = [write_experiment(tmp_path, cells)]
    else:
        of = {start: {name[2:]: cell for name, cell in cells.items() if name[0] == start} for start in "ab"}
        read = [write_experiment(tmp_path / start, of[start]) for start in "ab"]
    groups, repeats = grouped(read_runs([str(path) for path in read]))
    assert repeats == []
    assert [len(group.runs) for group in groups] == [3] * 4
    for group in groups:
        plain = plain_of(group, groups)
        if not group.is_plain:
            assert plain is not None
            assert [one.environment["weights_sha256"] for one in plain.runs] == [
                one.environment["weights_sha256"] for one in group.runs
            ]


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
    assert "test folds 1; 2, each predicted by a network of its own" in one.notes[1]
    assert "without test fold(s) 3, of which no seed has usable test predictions" in one.notes[0]
    assert "every record" not in " ".join(one.notes)


def test_a_seed_that_has_some_folds_is_left_out_and_its_folds_are_told(tmp_path):
    folder = write_folds(tmp_path, seeds=(1, 2))
    (folder / "fold3-seed1" / "predictions" / "test.npz").unlink()
    ((one,), _) = judged_of(folder)
    assert one.seeds == (2,)
    assert "without seed 1, whose usable test predictions are of test folds 1; 2 alone" in one.notes
    assert one.evaluation.num_records == 180

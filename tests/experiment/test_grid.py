import pytest
import yaml
from small_grid import GRID, write_grid

from ecg_lightning.errors import UsageError
from ecg_lightning.experiment.grid import load_grid

SEEDS = {"flag": "seed_everything", "values": [1, 2]}


def test_values_by_name_hold_their_configs_and_flags(tmp_path):
    values = {"uniform": {"configs": ["recipe/default"], "flags": {"post_training.drop_path_over_depth": "uniform"}}}
    grid = load_grid(str(write_grid(tmp_path, axes={"recipe": {"values": values}})))
    setting = grid.axes["recipe"]["uniform"]
    assert setting.configs == ("recipe/default",)
    assert setting.flags == {"post_training.drop_path_over_depth": "uniform"}


def test_values_of_a_flag_keep_their_type(tmp_path):
    axis = {"flag": "data.train_fraction", "values": [0.1, 1.0]}
    grid = load_grid(str(write_grid(tmp_path, axes={"fraction": axis})))
    assert [one.value for one in grid.axes["fraction"].values()] == [0.1, 1.0]
    assert [one.flags for one in grid.axes["fraction"].values()] == [
        {"data.train_fraction": 0.1},
        {"data.train_fraction": 1.0},
    ]


def test_each_fold_tests_once_the_next_validates_and_the_others_train(tmp_path):
    folds = [1, 2, 3, 4]
    grid = load_grid(str(write_grid(tmp_path, axes={"fold": {"folds": folds}})))
    flags = [one.flags for one in grid.axes["fold"].values()]
    assert [one["data.test_folds"] for one in flags] == [[1], [2], [3], [4]]
    assert [one["data.val_folds"] for one in flags] == [[2], [3], [4], [1]]
    for one in flags:
        used = one["data.train_folds"] + one["data.val_folds"] + one["data.test_folds"]
        assert sorted(used) == folds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, r"axis is no key here, known are configs, flags, axes"),
        ({"axes": {}}, r"axes is \{\}, it must name one axis or more"),
        ({"axes": {"seed": {**SEEDS, "value": 1}}}, r"axes\.seed\.value is no key here"),
        ({"axes": {"seed": {"values": [1, 2]}}}, r"axes\.seed\.values is \[1, 2\], it must give each value a name"),
        ({"axes": {"seed": {"flag": "seed_everything", "values": 3}}}, r"axes\.seed\.values is 3, it must be a list"),
        ({"axes": {"seed": {"flag": "seed_everything", "values": [1, 1]}}}, r"axes\.seed\.values has 1 twice"),
        ({"axes": {"Seed": SEEDS}}, r"axes\.Seed: an axis is named in small letters"),
        ({"axes": {"run": {"flag": "run", "values": ["a"]}}}, r"axes\.run\.flag: flags has run, which a grid cannot"),
        ({"axes": {"fold": {"folds": [1, 2]}}}, r"axes\.fold\.folds is \[1, 2\], it must be a list of three"),
        ({"axes": {"fold": {"folds": [1, 2, 2]}}}, r"axes\.fold\.folds is .* each once"),
        ({"axes": {"fold": {"folds": [1, 2, 3], "flag": "x"}}}, r"axes\.fold has folds, it can have no flag"),
        ({"axes": {"part": {"values": {"a": None}}}}, r"axes\.part\.values\.a is None, it must have configs"),
        ({"axes": {"part": {"values": {"a": {"flag": 1}}}}}, r"axes\.part\.values\.a\.flag is no key here"),
        ({"axes": {"part": {"values": {"a": {"configs": "x"}}}}}, r"axes\.part\.values\.a\.configs is 'x', it must"),
        ({"configs": "recipe/default"}, r"configs is 'recipe/default', it must be a list"),
        ({"flags": ["data.task"]}, r"flags is \['data.task'\], it must give flags"),
        ({"flags": {"--data.task": "all"}}, r"flags has '--data\.task', a flag is named without --"),
        ({"flags": {"resume": "auto"}}, r"flags has resume, which a grid cannot set: runs are resumed by themselves"),
        ({"exclude": {"seed": 1}}, r"exclude is .*, it must be a list"),
        ({"exclude": [{"sead": 1}]}, r"exclude\[0\]\.sead is no key here, known are recipe, seed"),
        ({"exclude": [{"seed": 7}]}, r"exclude\[0\]\.seed has 7, the axis has 1"),
        ({"min_train_records": -1}, r"min_train_records is -1, it must be a whole number"),
    ],
)
def test_a_broken_rule_is_told_with_the_path_of_its_key(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        load_grid(str(write_grid(tmp_path, **changes)))


def test_all_broken_rules_are_told_at_once(tmp_path):
    with pytest.raises(UsageError) as raised:
        load_grid(str(write_grid(tmp_path, colour="red", min_train_records="few")))
    assert "colour" in str(raised.value)
    assert "min_train_records" in str(raised.value)


@pytest.mark.parametrize("text", ["axes: {seed: [}", "- a list", "axes: {}\naxes: {}"])
def test_a_file_that_is_no_grid_is_refused(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"is no YAML|holds no mapping"):
        load_grid(str(tmp_path / "grid.yaml"))


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "grid.yaml").write_text("axes:\n  seed: {flag: a, values: [1]}\n  seed: {flag: a, values: [2]}\n")
    with pytest.raises(UsageError, match="seed stands twice"):
        load_grid(str(tmp_path / "grid.yaml"))


def test_an_unknown_grid_is_refused_with_the_shipped():
    with pytest.raises(UsageError, match=r"shipped are experiment/ablation, experiment/cross_validation"):
        load_grid("experiment/best")


@pytest.mark.parametrize(
    ("key", "text", "axis", "labels"),
    [
        ("axes.seed.values", "[3, 4]", "seed", ["3", "4"]),
        ("axes.recipe.values", "[plain]", "recipe", ["plain"]),
        ("axes.task", "{flag: data.task, values: [form]}", "task", ["form"]),
    ],
)
def test_the_command_line_changes_an_axis(tmp_path, key, text, axis, labels):
    assert [*load_grid(str(write_grid(tmp_path)), [(key, text)]).axes[axis]] == labels


def test_the_command_line_changes_a_flag_of_one_value(tmp_path):
    key = "axes.recipe.values.method.flags.post_training.drop_path_rate"
    grid = load_grid(str(write_grid(tmp_path)), [(key, "0.2")])
    assert grid.axes["recipe"]["method"].flags == {"post_training.drop_path_rate": 0.2}
    assert grid.axes["recipe"]["plain"].flags == {}


def test_a_value_that_the_grid_does_not_have_cannot_be_picked(tmp_path):
    with pytest.raises(UsageError, match=r"has other, the grid's values are method, plain"):
        load_grid(str(write_grid(tmp_path)), [("axes.recipe.values", "[method, other]")])


def test_an_exclusion_may_name_a_value_that_the_command_line_took_out(tmp_path):
    path = write_grid(tmp_path, exclude=[{"recipe": "plain", "seed": 1}])
    assert [*load_grid(str(path), [("axes.recipe.values", "[method]")]).axes["recipe"]] == ["method"]


def test_the_example_of_the_documentation_is_a_grid(tmp_path):
    from ecg_lightning.experiment import grid

    example = (grid.__doc__ or "").split("```yaml\n")[1].split("```")[0]
    (tmp_path / "grid.yaml").write_text(example)
    assert [*load_grid(str(tmp_path / "grid.yaml")).axes] == [*yaml.safe_load(example)["axes"]]
    assert GRID["axes"].keys() <= yaml.safe_load(example)["axes"].keys()

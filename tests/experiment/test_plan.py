import pytest
from small_grid import with_flags, write_grid

from ecg_lightning.errors import UsageError
from ecg_lightning.experiment.grid import Setting, load_grid
from ecg_lightning.experiment.plan import overridden, runs_of

NOTHING = Setting()


def planned(tmp_path, command_line=NOTHING, changes=(), **keys):
    return runs_of(load_grid(str(write_grid(tmp_path, **keys)), changes), command_line)


def axes(**values):
    return {name: {"flag": f"data.{name}", "values": list(those)} for name, those in values.items()}


def test_every_combination_is_a_run_the_last_axis_fastest(tmp_path):
    names = [run.name for run in planned(tmp_path, axes=axes(task=["all", "form"], seed=[1, 2]))]
    assert names == ["all-seed1", "all-seed2", "form-seed1", "form-seed2"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0.1, "value0.1"),
        ("1e-3", "value1e-3"),
        (True, "value_true"),
        (None, "value_null"),
        ([1, 2], "value1+2"),
        ("a/b c", "a_b_c"),
    ],
)
def test_a_folder_is_named_by_words_and_by_numbers_behind_their_axis(tmp_path, value, name):
    assert planned(tmp_path, axes=axes(value=[value]))[0].name == name


def test_values_that_give_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"would both be a_b.*give the values other names"):
        planned(tmp_path, axes=axes(value=["a/b", "a b"]))


def test_an_excluded_combination_is_no_run(tmp_path):
    exclude = [{"task": ["all", "form"], "seed": 2}, {"task": "form", "seed": 1}]
    names = [run.name for run in planned(tmp_path, axes=axes(task=["all", "form"], seed=[1, 2]), exclude=exclude)]
    assert names == ["all-seed1"]


def test_a_grid_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="exclude leaves no run"):
        planned(tmp_path, exclude=[{"seed": 1}])


def test_what_an_axis_sets_wins_over_what_is_common_to_all(tmp_path):
    method, plain = planned(tmp_path, flags=with_flags(post_training__probe__epochs=7))
    assert "--post_training.probe.epochs=7" in method.arguments
    assert not [part for part in plain.arguments if "probe.epochs" in part]  # its recipe says 0
    assert plain.settings["post_training.probe.epochs"] == 0


def test_a_later_axis_wins_over_an_earlier_one(tmp_path):
    both = {
        "part": {"values": {"a": {"flags": {"post_training.drop_path_rate": 0.7}}}},
        "recipe": {"values": {"b": {"configs": ["recipe/default"]}}},
    }
    assert planned(tmp_path, axes=both)[0].settings["post_training.drop_path_rate"] == 0.3
    assert not [part for part in planned(tmp_path, axes=both)[0].arguments if "drop_path_rate" in part]
    turned = dict(reversed(both.items()))
    assert "--post_training.drop_path_rate=0.7" in planned(tmp_path, axes=turned)[0].arguments


def test_a_flag_for_all_runs_reaches_those_that_do_not_set_it_and_the_others_are_told(tmp_path):
    command_line = Setting(flags={"post_training.probe.epochs": "4", "data.min_likelihood": "50"})
    runs = planned(tmp_path, command_line)
    assert "--post_training.probe.epochs=4" in runs[0].arguments
    assert all("--data.min_likelihood=50" in run.arguments for run in runs)
    assert overridden(command_line, runs) == {"post_training.probe.epochs": ["plain-seed1"]}


@pytest.mark.parametrize("seed", ["1", "9"])
def test_a_flag_that_every_run_sets_itself_is_refused(tmp_path, seed):
    with pytest.raises(UsageError, match=r"--seed_everything would change nothing.*--axes\.NAME\.values"):
        planned(tmp_path, Setting(flags={"seed_everything": seed}))


def test_a_class_comes_before_its_arguments_whichever_named_it_first(tmp_path):
    backbone = {"backbone": {"flag": "model.backbone", "values": ["vit"]}}
    arguments = planned(tmp_path, configs=[], axes=backbone)[0].arguments
    assert arguments.index("--model.backbone=vit") < arguments.index("--model.backbone.depth=1")


def test_the_label_of_an_axis_is_put_into_a_flag(tmp_path):
    command_line = Setting(flags={"model.weights": "hf://me/mine/fold{fold}.pt"})
    runs = planned(tmp_path, command_line, axes={"fold": {"folds": [1, 2, 3]}})
    assert [run.settings["model.weights"] for run in runs] == [f"hf://me/mine/fold{fold}.pt" for fold in (1, 2, 3)]


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ("a.h5", "{0}/a.h5"),
        ("/b/a.h5", "/b/a.h5"),
        ("shards/*.h5", "{0}/shards/*.h5"),
        ("[a.h5, /c.h5]", '["{0}/a.h5", "/c.h5"]'),
    ],
)
def test_stores_are_named_by_absolute_paths(tmp_path, monkeypatch, given, there):
    monkeypatch.chdir(tmp_path)
    run = planned(tmp_path, Setting(flags={"data.store": given}))[0]
    assert f"--data.store={there.format(tmp_path)}" in run.arguments


def test_a_config_file_of_ones_own_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {keep: all}")
    run = planned(tmp_path, Setting(configs=("mine.yaml",)))[0]
    assert str(tmp_path / "mine.yaml") in run.arguments
    assert run.settings["data.keep"] == "all"


def test_a_flag_for_a_whole_group_cannot_cover_a_part_that_an_axis_sets(tmp_path):
    with pytest.raises(UsageError, match=r"flag post_training\.probe sets a whole group.*set its parts one by one"):
        planned(tmp_path, Setting(flags={"post_training.probe": "{epochs: 3}"}))

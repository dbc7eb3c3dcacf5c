"""Configs, shipped and of one's own: what they hold, how they merge, how they are found."""

import itertools

import pytest
import yaml
from command_line import SHORT, configs, parsed
from tiny import of_lightning_cli

from ecg_lightning.backbones import list_backbones
from ecg_lightning.config_names import config_folder, find_config, settled_arguments, shipped_configs, shipped_grids
from ecg_lightning.errors import UsageError

pytestmark = of_lightning_cli


CONFIGS = shipped_configs()
BACKBONES = [name for name in CONFIGS if name.startswith("backbone/")]
RECIPES = [name for name in CONFIGS if name.startswith("recipe/")]
OTHERS = [name for name in CONFIGS if not name.startswith(("backbone/", "recipe/", "pretrain/"))]


def test_there_are_configs_for_every_backbone():
    assert [name.removeprefix("backbone/") for name in BACKBONES] == list_backbones()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_config_says_what_it_is_its_score_and_its_command(name):
    header = [line for line in (config_folder() / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    text = " ".join(header)
    assert f"--config {name}" in text or f"--config {name.split('/')[0]}/" in text
    if name.startswith(("backbone/", "recipe/")):
        assert "Score" in text


@pytest.mark.parametrize(("backbone", "recipe"), [*itertools.product(BACKBONES, RECIPES)])
def test_every_backbone_goes_with_every_recipe(capsys, here, backbone, recipe):
    config = parsed(capsys, *configs(backbone, recipe))
    own = yaml.safe_load(find_text(recipe))
    for key, value in flat(own).items():
        assert flat(config)[key] == value, key
    assert not any(here.iterdir())


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_config_goes_with_a_backbone_and_a_recipe(capsys, here, name):
    config = flat(parsed(capsys, *configs(name, "backbone/vit", "recipe/default")))
    for key, value in flat(yaml.safe_load(find_text(name))).items():
        assert config[key] == value, key


def find_text(name):
    return (config_folder() / f"{name}.yaml").read_text()


def flat(config, prefix=""):
    pairs = {}
    for key, value in config.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return pairs


def test_a_recipe_overrides_the_backbones_rates_and_keeps_its_sizes(capsys):
    config = parsed(capsys, *configs("backbone/mtecg_ti", "recipe/paper_v1"))
    assert config["post_training"]["fine_tune"]["layer_decay"] == 1.0
    assert config["model"]["backbone"]["class_path"] == "ecg_lightning.backbones.MTECGTi"


def test_two_configs_merge_group_by_group(capsys, here):
    (here / "one.yaml").write_text(
        "model: {backbone: {class_path: ecg_lightning.backbones.ViT, init_args: {depth: 3}}}"
    )
    (here / "two.yaml").write_text("model: {backbone: {init_args: {dim: 96}}}")
    sizes = parsed(capsys, *configs("one.yaml", "two.yaml"))["model"]["backbone"]["init_args"]
    assert (sizes["depth"], sizes["dim"]) == (3, 96)


@pytest.mark.parametrize("flag", [["--post_training.drop_path_rate=0.25"], ["--post_training.drop_path_rate", "0.25"]])
@pytest.mark.parametrize("first", [True, False])
def test_a_flag_wins_over_a_config_wherever_it_stands(capsys, flag, first):
    given = configs("backbone/vit", "recipe/default")
    config = parsed(capsys, *(flag + given if first else given + flag))
    assert config["post_training"]["drop_path_rate"] == 0.25


@pytest.mark.parametrize(
    ("spelled", "folds"), [("8", [8]), ("[8]", [8]), ("1,2,3", [1, 2, 3]), ("1, 2", [1, 2]), ("[]", [])]
)
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_folds_are_a_number_numbers_or_a_list(capsys, spelled, folds, joined, split):
    flag = f"--data.{split}_folds"
    config = parsed(capsys, "--model.backbone=vit", *([f"{flag}={spelled}"] if joined else [flag, spelled]))
    assert config["data"][f"{split}_folds"] == folds


@pytest.mark.parametrize(
    "spelled", [["--model.backbone", "vit"], ["--model.backbone=vit"], ["--model.backbone", "ViT"]]
)
def test_a_backbone_is_named_as_in_the_registry_or_by_its_class(capsys, spelled):
    config = parsed(capsys, *spelled, "--model.backbone.depth=2")
    assert config["model"]["backbone"]["class_path"].endswith("ViT")
    assert config["model"]["backbone"]["init_args"]["depth"] == 2


def test_the_epochs_of_both_phases_make_up_the_trainers(capsys):
    with pytest.raises(KeyError):  # a linked value is not printed: it cannot be set
        parsed(capsys, "--model.backbone=vit", *SHORT)["trainer"]["max_epochs"]


def test_a_config_of_ones_own_comes_before_a_shipped_one(here):
    (here / "recipe").mkdir()
    (here / "recipe" / "default").write_text("post_training: {}")
    assert find_config("recipe/default") == "recipe/default"


@pytest.mark.parametrize("name", ["recipe/default", "recipe/default.yaml"])
def test_a_shipped_config_is_found_from_anywhere(here, name):
    assert find_config(name) == str(config_folder() / "recipe" / "default.yaml")


@pytest.mark.parametrize("name", ["recipe/best", "", ".", "..", "recipe", "../pyproject"])
def test_an_unknown_config_is_refused_with_the_shipped(here, name):
    with pytest.raises(UsageError) as raised:
        find_config(name)
    assert all(shipped in str(raised.value) for shipped in CONFIGS)


def test_a_grid_of_runs_is_no_config_of_one(here):
    assert not {*shipped_grids()} & {*CONFIGS}
    with pytest.raises(UsageError, match="is a grid of runs: ecg-lightning experiment experiment/main"):
        find_config("experiment/main")


def test_configs_keep_their_order_in_front_of_the_flags():
    given = ["--a=1", "--config=recipe/default", "--b", "2", "-c", "backbone/vit", "--model.backbone=vit"]
    assert [part.rpartition("/")[2] for part in settled_arguments(given)] == [
        "--config", "default.yaml", "--config", "vit.yaml", "--a=1", "--b", "2",
        "--model.backbone", "ecg_lightning.backbones.vit.ViT",
    ]  # fmt: skip

import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from published import FOLDER, NETWORKS
from torch import Tensor

from ecg_lightning.backbones import (
    Backbone,
    Card,
    ViT,
    backbone_card,
    backbone_class,
    backbone_signal,
    create_backbone,
    list_backbones,
    meta_backbone,
    register,
)
from ecg_lightning.errors import InputError
from ecg_lightning.signals import SignalSpec

TEXTS = {field.name: "unknown" for field in fields(Card) if field.type in (str, "str")}


class OwnBackbone(Backbone):
    """What a user would write."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.signal = SignalSpec(100, 50)
        self.feature_dim, self.num_layers = width, 0
        self.linear = torch.nn.Linear(50, width)

    def tokens(self, ecg: Tensor) -> Tensor:
        return self.linear(ecg)

    def forward(self, ecg: Tensor) -> Tensor:
        return self.tokens(ecg).mean(dim=1)

    def layer_of(self, name: str) -> int:
        return 0


def card(name: str) -> Card:
    return Card(**(TEXTS | {"name": name}), ptbxl_in_pretraining=None)


def test_names_are_listed_in_order():
    assert list_backbones() == sorted(list_backbones())
    assert {"vit", "mtecg_ti", "ecgfounder", "ecgfounder_1lead"} <= set(list_backbones())


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"'resnet'.*ecgfounder, .*vit.*package\.module\.Class"):
        create_backbone("resnet")


def test_a_name_registered_twice_is_an_error_that_names_both_classes():
    with pytest.raises(ValueError, match=r"'vit' is registered twice.*ViT.*OwnBackbone"):
        register(card("vit"))(OwnBackbone)
    assert backbone_class("vit") is ViT


def test_a_dotted_path_builds_the_users_own_class():
    backbone = create_backbone(f"{__name__}.OwnBackbone", width=5)
    assert isinstance(backbone, OwnBackbone)
    assert backbone.feature_dim == 5


@pytest.mark.parametrize("path", ["no_such_package.Net", f"{__name__}.NoSuchClass"])
def test_a_dotted_path_that_leads_nowhere_is_refused_with_the_reason(path):
    with pytest.raises(InputError, match=r"cannot be imported \(.*package\.module\.Class"):
        create_backbone(path)


@pytest.mark.parametrize("path", ["torch.nn.Linear", "math.pi"])
def test_a_dotted_path_to_something_else_is_refused(path):
    with pytest.raises(InputError, match="no subclass of ecg_lightning"):
        create_backbone(path)


def test_a_class_without_a_card_is_told_how_to_get_one():
    with pytest.raises(InputError, match="@register"):
        backbone_card("somewhere.Net")


def test_an_unknown_argument_lists_the_arguments():
    with pytest.raises(InputError, match=r"'vit' takes no width, its arguments are depth, dim"):
        create_backbone("vit", width=3)


def test_sizes_reach_the_network():
    assert create_backbone("vit", depth=2, dim=48).num_layers == 3


@pytest.mark.parametrize("name", list_backbones())
def test_a_meta_backbone_holds_no_numbers(name):
    assert all(tensor.is_meta for tensor in meta_backbone(name).state_dict().values())


def test_the_signal_is_that_of_the_sizes_asked_for():
    assert backbone_signal("vit", num_time_points=250).num_time_points == 250


@pytest.mark.parametrize("name", list_backbones())
def test_cards_are_complete(name):
    entry = backbone_card(name)
    assert entry.name == name
    assert all(getattr(entry, text).strip() for text in TEXTS)
    assert entry.ptbxl_in_pretraining in (True, False, None)
    for figures in entry.published:
        assert figures.metric
        assert figures.protocol
        assert figures.source
        assert all(0 < value < 1 for value in figures.values.values())


def test_importing_backbones_stays_light():
    heavy = ["lightning", "scipy", "h5py", "wfdb", "pandas"]
    code = f"import sys, ecg_lightning.backbones; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_reference_says_which_network_it_is_of_and_how_far_that_may_be_from_it():
    """A reference without an entry would be missing from the table of `benchmarks/references.py`."""
    full = {"ecgfounder_12lead_full_nobn", "ecgfounder_1lead_nobn"}  # too large for the tests' own folder
    assert {path.stem for path in FOLDER.glob("*.npz")} == NETWORKS.keys() - full
    assert {network.backbone for network in NETWORKS.values()} <= set(list_backbones())

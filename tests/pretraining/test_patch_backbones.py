"""A backbone over patches: the tokens of some patches are those of a network that sees no others."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_vit

from ecg_lightning.backbones import STMEM, PatchBackbone, backbone_class, list_backbones


def small_st_mem():
    torch.manual_seed(0)
    return STMEM(depth=2, dim=24, heads=3, num_time_points=300)


NETWORKS = {
    "vit": tiny_vit,
    "vit, several rows": lambda: tiny_vit(patch=(4, 100)),
    "vit, mean": lambda: tiny_vit(readout="mean"),
    "st_mem": small_st_mem,
}


def ecgs(network, count=3):
    shape = (count, len(network.signal.leads), network.signal.num_time_points)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def test_the_backbones_over_patches_are_these_four():
    found = {name for name in list_backbones() if issubclass(backbone_class(name), PatchBackbone)}
    assert found == {"vit", "mtecg_ti", "st_mem_base", "st_mem_small"}


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_cut_and_put_together_are_the_ecg(name):
    network = NETWORKS[name]()
    ecg = ecgs(network)
    values = network.patch_values(ecg)
    leads, points = network.patch_size
    assert values.shape == (3, network.num_patches, leads * points)
    assert torch.equal(network.ecg_of(values), ecg)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_all_patches_visible_the_tokens_are_those_of_the_whole_encoder(name):
    network = NETWORKS[name]().eval()
    ecg = ecgs(network)
    everything = torch.arange(network.num_patches).expand(3, -1)
    got = network.visible_tokens(ecg, everything)
    assert got.shape == (3, network.num_patches, network.feature_dim)
    torch.testing.assert_close(got, whole_tokens(network, ecg), rtol=0, atol=1e-5)


def whole_tokens(network, ecg):
    tokens = network.tokens(ecg)
    if isinstance(network, STMEM):
        return network.norm(tokens.view(3, 12, -1, network.feature_dim)[:, :, 1:-1].flatten(1, 2))
    return network.fc_norm(tokens[:, 1:])


@pytest.mark.parametrize("name", NETWORKS)
@given(data=st.data())
def test_what_lies_in_the_other_patches_changes_no_token(name, data):
    network = NETWORKS[name]().eval()
    places = data.draw(st.permutations(range(network.num_patches)))
    kept = data.draw(st.integers(1, network.num_patches - 1))
    visible = torch.tensor([sorted(places[:kept])] * 3)
    ecg = ecgs(network)
    values = network.patch_values(ecg).clone()
    values[:, torch.tensor(places[kept:])] = 1e3
    got = network.visible_tokens(ecg, visible)
    torch.testing.assert_close(network.visible_tokens(network.ecg_of(values), visible), got, rtol=0, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_come_in_the_order_that_was_asked_for_with_their_own_places(name):
    network = NETWORKS[name]().eval()
    ecg = ecgs(network)
    visible = torch.tensor([[0, 2, 5]] * 3)
    turned = network.visible_tokens(ecg, visible.flip(1)).flip(1)
    torch.testing.assert_close(turned, network.visible_tokens(ecg, visible), rtol=0, atol=1e-5)
    same = network.ecg_of(network.patch_values(ecg)[:, :1].expand(-1, network.num_patches, -1))
    tokens = network.visible_tokens(same, visible)
    assert not torch.allclose(tokens[:, 0], tokens[:, 1], atol=1e-4)

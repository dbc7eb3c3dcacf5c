from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import norm_net, tiny_vit
from torch import nn

from ecg_lightning.optim import HEAD, layer_scale, parameter_groups, scheduled, set_rates

backbones = pytest.mark.parametrize("build", [tiny_vit, norm_net, lambda: tiny_vit(readout="mean")])


def groups_of(backbone):
    return parameter_groups(backbone, nn.Linear(backbone.feature_dim, 5))


@backbones
def test_every_parameter_is_in_exactly_one_group(build):
    backbone = build()
    head = nn.Linear(backbone.feature_dim, 5)
    grouped = [id(p) for group in parameter_groups(backbone, head) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in [*backbone.parameters(), *head.parameters()])


@backbones
def test_groups_name_their_parameters_in_order(build):
    backbone = build()
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(backbone.feature_dim, 5)})
    named = dict(model.named_parameters())
    for group in parameter_groups(backbone, model["head"]):
        assert [id(named[name]) for name in group["names"]] == [id(p) for p in group["params"]]


@backbones
def test_tensors_of_one_axis_take_no_weight_decay_and_matrices_do(build):
    for group in groups_of(build()):
        for name, parameter in zip(group["names"], group["params"], strict=True):
            token = name.endswith(("cls_token", "pos_embed"))
            assert group["decay"] == (parameter.ndim > 1 and not token), name


def test_tokens_and_positions_take_no_weight_decay():
    decayed = {
        group["decay"] for group in groups_of(tiny_vit()) for n in group["names"] if n.endswith(("_token", "embed"))
    }
    assert decayed == {False}


@backbones
def test_groups_run_from_the_stem_to_the_head(build):
    layers = [group["layer"] for group in groups_of(build())]
    head = layers.index(HEAD)
    assert layers[:head] == sorted(layers[:head])
    assert layers[0] == 0
    assert set(layers[head:]) == {HEAD}


@backbones
def test_groups_are_the_same_each_time(build):
    def described():
        return [(group["layer"], group["decay"], group["names"]) for group in groups_of(build())]

    assert described() == described()


def test_a_constant_schedule_stays_at_the_peak_behind_the_warm_up():
    rates = [scheduled(step, 6, peak=0.4, warmup_steps=3) for step in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_a_cosine_is_halfway_in_the_middle():
    assert scheduled(5, 11, peak=1.0, floor=0.2, shape="cosine") == pytest.approx(0.6)


@given(
    num_steps=st.integers(2, 400),
    warmup=st.integers(0, 100),
    peak=st.floats(1e-6, 1.0),
    share=st.floats(0, 1),
    shape=st.sampled_from(["constant", "cosine"]),
)
def test_a_schedule_rises_to_its_peak_then_never_rises_and_stays_within_its_bounds(
    num_steps, warmup, peak, share, shape
):
    rates = [
        scheduled(s, num_steps, peak=peak, floor=share * peak, warmup_steps=warmup, shape=shape)
        for s in range(num_steps)
    ]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates[:warmup])
    assert rates[:warmup] == sorted(rates[:warmup])
    behind = rates[warmup:]
    assert all(one >= other for one, other in pairwise(behind))
    assert all(share * peak * (1 - 1e-12) <= rate <= peak * (1 + 1e-12) for rate in behind)


@given(num_steps=st.integers(2, 1000), warmup=st.integers(0, 900), peak=st.floats(1e-6, 1.0), share=st.floats(0, 1))
def test_a_cosine_starts_at_its_peak_and_its_last_step_reaches_the_floor(num_steps, warmup, peak, share):
    warmup = min(warmup, num_steps - 2)
    at = [
        scheduled(s, num_steps, peak=peak, floor=share * peak, warmup_steps=warmup, shape="cosine")
        for s in (warmup, num_steps - 1)
    ]
    assert at == pytest.approx([peak, share * peak], rel=1e-9, abs=1e-12)


def test_layer_decay_leaves_head_and_last_layer_alone_and_multiplies_per_layer_below():
    assert [layer_scale(layer, 3, 0.5) for layer in (HEAD, 3, 2, 1, 0)] == [1, 1, 0.5, 0.25, 0.125]


def test_without_layer_decay_every_layer_has_the_same_rate():
    assert {layer_scale(layer, 12, 1.0) for layer in [HEAD, *range(13)]} == {1.0}


def test_set_rates_follows_the_layer_and_spares_what_takes_no_decay():
    vit = tiny_vit()
    optimizer = torch.optim.AdamW(groups_of(vit), lr=0.0)
    rates = {HEAD: 9.0, **{layer: float(layer) for layer in range(vit.num_layers + 1)}}
    set_rates(optimizer, rates, 0.3)
    assert {(g["layer"], g["lr"]) for g in optimizer.param_groups} == set(rates.items())
    assert {(g["decay"], g["weight_decay"]) for g in optimizer.param_groups} == {(True, 0.3), (False, 0.0)}


def steps(vit, head, optimizer, num_steps, seed):
    random = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        optimizer.zero_grad()
        head(vit(torch.randn(4, 12, 1000, generator=random))).square().mean().backward()
        optimizer.step()


def test_a_cleared_optimizer_with_rates_per_group_equals_a_new_adamw_bit_for_bit():
    ends = []
    for brand_new in (False, True):
        vit = tiny_vit()
        head = nn.Linear(vit.feature_dim, 5)
        torch.nn.init.ones_(head.weight)
        torch.nn.init.zeros_(head.bias)
        optimizer = torch.optim.AdamW(parameter_groups(vit, head), lr=0.0, weight_decay=0.0)
        rates = {HEAD: 1e-2, **{layer: 1e-3 * (layer + 1) for layer in range(vit.num_layers + 1)}}
        set_rates(optimizer, rates, 0.1)
        vit.requires_grad_(False)
        steps(vit, head, optimizer, 3, seed=1)
        vit.requires_grad_(True)
        optimizer.state.clear()
        if brand_new:
            optimizer = torch.optim.AdamW(parameter_groups(vit, head), lr=0.0, weight_decay=0.0)
        rates = {layer: rate / 3 for layer, rate in rates.items()}
        set_rates(optimizer, rates, 0.05)
        steps(vit, head, optimizer, 3, seed=2)
        ends.append([p.detach() for p in [*vit.parameters(), *head.parameters()]])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))

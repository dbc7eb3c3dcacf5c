import logging
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import norm_net, tiny_vit
from torch import nn

from ecg_lightning.optim import HEAD, adamw, layer_scale, parameter_groups, scheduled, set_rates

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


def one_step(optimizer, parameters):
    for parameter, gradient in zip(
        parameters, torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)), strict=True
    ):
        parameter.grad = gradient.clone()
    optimizer.step()


def three_parameters():
    return [nn.Parameter(torch.ones(4, 5)) for _ in range(3)]


def plain_group(parameters):
    return [{"params": parameters, "lr": 0.1}]


def test_the_optimizer_is_fused_where_the_device_has_the_kernel_and_steps_as_the_plain_one():
    ours, theirs = three_parameters(), three_parameters()
    optimizer = adamw(plain_group(ours))
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    plain = torch.optim.AdamW(plain_group(theirs), weight_decay=0.0, foreach=False)
    for _ in range(3):
        one_step(optimizer, ours)
        one_step(plain, theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_network_that_the_kernel_cannot_take_is_trained_unfused_and_said_so(caplog):
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        optimizer = adamw(plain_group([nn.Parameter(torch.ones(2, dtype=torch.complex64))]))
    assert optimizer.param_groups[0]["fused"] is False
    assert "AdamW is not fused: the network holds torch.complex64 on cpu" in caplog.text


@pytest.mark.parametrize("fused", [True, False, None])
def test_a_checkpoint_does_not_bring_the_kernel_of_the_machine_that_wrote_it(fused):
    theirs, ours = three_parameters(), three_parameters()
    written = torch.optim.AdamW(plain_group(theirs), fused=fused)
    one_step(written, theirs)
    optimizer = adamw(plain_group(ours))
    optimizer.load_state_dict(written.state_dict())
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    assert written.param_groups[0]["fused"] is fused
    one_step(optimizer, ours)


@pytest.mark.parametrize("unscales", [True, False])
def test_only_an_optimizer_whose_gradients_are_not_clipped_divides_scaled_ones_itself(unscales):
    parameters = three_parameters()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = adamw(plain_group(parameters), unscales=unscales)
    plain = three_parameters()
    expected = adamw(plain_group(plain))
    one_step(expected, plain)
    scaler.scale(torch.zeros(()))
    for parameter, gradient in zip(
        parameters, torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)), strict=True
    ):
        parameter.grad = gradient * 1024
    if not unscales:
        scaler.unscale_(optimizer)
        assert max(float(parameter.grad.abs().max()) for parameter in parameters) < 10
    scaler.step(optimizer)
    for ours, theirs in zip(parameters, plain, strict=True):  # the step itself is the same at any scale
        torch.testing.assert_close(optimizer.state[ours]["exp_avg"], expected.state[theirs]["exp_avg"])
        torch.testing.assert_close(ours, theirs)

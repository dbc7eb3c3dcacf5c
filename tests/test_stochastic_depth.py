import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_vit
from torch import nn

from ecg_lightning.stochastic_depth import (
    StochasticDepth,
    branches,
    draw_coins,
    drop_path_rates,
    forget_coins,
    set_drop_path,
)

RECORDS = 6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def record_batch(num_records=RECORDS):
    return torch.randn(num_records, 5, 4, generator=seeded())


def branch():
    torch.manual_seed(0)
    return nn.Linear(4, 4)


def dropped_rows(drop_prob, num_records=RECORDS, seed=0):
    """True where a record's branch was dropped."""
    torch.manual_seed(seed)
    return StochasticDepth(0, drop_prob)(torch.ones(num_records, 3), lambda x: x).eq(0).all(dim=1)


def test_linear_rates_rise_evenly_from_0_to_the_rate_of_the_last_block():
    assert drop_path_rates(0.4, 5) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_uniform_rates_are_the_same_in_every_block():
    assert drop_path_rates(0.4, 3, "uniform") == [0.4, 0.4, 0.4]


@pytest.mark.parametrize("over_depth", ["linear", "uniform"])
def test_a_single_block_takes_the_whole_rate(over_depth):
    assert drop_path_rates(0.4, 1, over_depth) == [0.4]


def test_an_unknown_mode_is_refused_with_the_known():
    with pytest.raises(ValueError, match=r"mode is 'skip', known are 'mask' and 'subset'"):
        StochasticDepth(0, mode="skip")


def test_an_unknown_shape_over_depth_is_refused_with_the_known():
    with pytest.raises(ValueError, match=r"over_depth is 'square', known are 'linear' and 'uniform'"):
        drop_path_rates(0.1, 3, "square")


@given(rate=st.floats(0, 1), num_blocks=st.integers(1, 60), over_depth=st.sampled_from(["linear", "uniform"]))
def test_rates_never_fall_over_depth_and_end_at_the_rate(rate, num_blocks, over_depth):
    rates = drop_path_rates(rate, num_blocks, over_depth)
    assert len(rates) == num_blocks
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(rate)
    assert rates[0] == (rate if over_depth == "uniform" or num_blocks == 1 else 0)


def test_set_drop_path_gives_both_branches_of_a_block_the_rate_of_its_depth():
    vit = tiny_vit(depth=3)
    set_drop_path(vit, 0.3, mode="subset")
    assert [drop.drop_prob for drop in branches(vit)] == pytest.approx([0, 0, 0.15, 0.15, 0.3, 0.3])
    assert {drop.mode for drop in branches(vit)} == {"subset"}


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_rates_outside_0_to_1_are_refused_with_the_value_and_the_rule(rate):
    for attempt in (lambda: StochasticDepth(0, rate), lambda: set_drop_path(tiny_vit(), rate)):
        with pytest.raises(ValueError, match=rf"is {rate}, it must lie in 0\.\.1"):
            attempt()


def test_a_model_without_branches_is_refused_with_both_ways_out():
    with pytest.raises(ValueError, match=r"Linear has no StochasticDepth.*set post_training\.drop_path_rate=0"):
        set_drop_path(nn.Linear(2, 2), 0.1)


def test_a_model_without_branches_may_have_rate_0():
    set_drop_path(nn.Linear(2, 2), 0.0)


def test_rate_0_is_the_branch_itself():
    x, layer = record_batch(), branch()
    assert torch.equal(StochasticDepth(0, 0.0)(x, layer), layer(x))


def test_evaluation_is_the_branch_itself_at_any_rate():
    x, layer = record_batch(), branch()
    assert torch.equal(StochasticDepth(0, 0.9).eval()(x, layer), layer(x))


@pytest.mark.parametrize("mode", ["mask", "subset"])
def test_rate_1_drops_every_branch(mode):
    assert torch.equal(StochasticDepth(0, 1.0, mode)(record_batch(), branch()), torch.zeros(RECORDS, 5, 4))


def test_rate_0_and_evaluation_leave_the_global_random_stream_alone():
    before = torch.get_rng_state()
    StochasticDepth(0, 0.0)(record_batch(), lambda x: x)
    StochasticDepth(0, 0.5).eval()(record_batch(), lambda x: x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("drop_prob", [0.1, 0.5, 0.8])
def test_a_branch_is_dropped_as_often_as_its_rate_says(drop_prob):
    draws = 20_000
    share = dropped_rows(drop_prob, draws).double().mean().item()
    assert abs(share - drop_prob) < 5 * math.sqrt(drop_prob * (1 - drop_prob) / draws)


@pytest.mark.parametrize("drop_prob", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("mode", ["mask", "subset"])
def test_scaling_keeps_the_expectation(drop_prob, mode):
    draws = 20_000
    torch.manual_seed(1)
    mean = StochasticDepth(0, drop_prob, mode)(torch.ones(draws, 1), lambda x: x).double().mean().item()
    assert abs(mean - 1) < 5 * math.sqrt(drop_prob / (1 - drop_prob) / draws)


def test_every_record_has_a_coin_of_its_own():
    assert 0 < dropped_rows(0.5, 64).sum() < 64


def test_a_record_is_dropped_whole():
    torch.manual_seed(0)
    y = StochasticDepth(0, 0.5)(torch.ones(64, 5, 4), lambda x: x)
    assert set(y.sum(dim=(1, 2)).tolist()) == {0.0, 40.0}


def output_and_gradients(mode, keep):
    x, layer = record_batch(len(keep)).requires_grad_(), branch()
    drop = StochasticDepth(0, 0.4, mode)
    drop.coins = torch.tensor(keep)
    y = x + drop(x, layer)
    (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
    return y.detach(), x.grad, layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("keep", [[True, False, True], [True] * 3, [False] * 3, [False]])
def test_mask_and_subset_give_the_same_output_and_gradients(keep):
    for mask, subset in zip(output_and_gradients("mask", keep), output_and_gradients("subset", keep), strict=True):
        torch.testing.assert_close(mask, subset, rtol=1e-6, atol=1e-5)


def test_a_whole_network_gives_the_same_gradients_by_mask_and_subset():
    gradients = []
    for mode in ("mask", "subset"):
        vit = tiny_vit().double()
        set_drop_path(vit, 0.6, "uniform", mode)
        draw_coins(vit, RECORDS, slice(None), seeded(3), torch.device("cpu"))
        ecg = torch.randn(RECORDS, 12, 1000, generator=seeded(), dtype=torch.float64)
        vit(ecg).square().sum().backward()
        gradients.append([p.grad for p in vit.parameters()])
    for mask, subset in zip(*gradients, strict=True):
        torch.testing.assert_close(mask, subset, rtol=1e-9, atol=1e-12)


def test_subset_computes_the_kept_records_only():
    seen = []
    drop = StochasticDepth(0, 0.4, "subset")
    drop.coins = torch.tensor([True, False, False, True])
    drop(record_batch(4), lambda x: seen.append(len(x)) or x)
    assert seen == [2]


def coins(rows, num_records=RECORDS, seed=5):
    model = nn.ModuleList(StochasticDepth(block, 0.5) for block in range(6))
    draw_coins(model, num_records, rows, seeded(seed), torch.device("cpu"))
    return torch.stack([drop.coins for drop in branches(model)])


@given(cuts=st.lists(st.integers(0, RECORDS), max_size=3).map(lambda c: [0, *sorted(c), RECORDS]))
def test_a_global_batch_has_the_same_coins_however_many_processes_slice_it(cuts):
    parts = [coins(slice(first, end)) for first, end in pairwise(cuts)]
    assert torch.equal(torch.cat(parts, dim=1), coins(slice(None)))


@pytest.mark.parametrize("rows", [slice(None), slice(2, 5), slice(6, 6)])
def test_places_of_kept_records_are_where_the_coins_fell(rows):
    """So that subset mode need not ask the device for them."""
    model = nn.ModuleList(StochasticDepth(block, 0.5, "subset") for block in range(6))
    draw_coins(model, RECORDS, rows, seeded(5), torch.device("cpu"))
    assert torch.equal(torch.stack([drop.coins for drop in branches(model)]), coins(rows))
    for drop in branches(model):
        assert torch.equal(drop.kept, drop.coins.nonzero().squeeze(1))
    forget_coins(model)
    assert {drop.kept for drop in branches(model)} == {None}


def test_subset_mode_with_places_known_equals_the_mask():
    ends = []
    for mode in ("mask", "subset"):
        vit = tiny_vit()
        set_drop_path(vit, 0.6, "uniform", mode)
        draw_coins(vit, RECORDS, slice(None), seeded(3), torch.device("cpu"))
        ends.append(vit(torch.randn(RECORDS, 12, 1000, generator=seeded())))
    torch.testing.assert_close(*ends)


def test_coins_of_another_seed_are_others():
    assert not torch.equal(coins(slice(None), 64), coins(slice(None), 64, seed=6))


def test_branches_of_one_network_have_coins_of_their_own():
    rows = coins(slice(None), 64)
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_drawn_coins_decide_which_records_are_dropped():
    drop = StochasticDepth(0, 0.5)
    drop.coins = torch.tensor([True, False, True])
    assert drop(torch.ones(3, 1), lambda x: x).squeeze(1).tolist() == [2.0, 0.0, 2.0]


def test_coins_for_another_number_of_records_are_refused():
    drop = StochasticDepth(0, 0.5)
    drop.coins = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"drawn for 3 records, the batch holds 6: draw_coins per batch"):
        drop(record_batch(), branch())


def test_forgotten_coins_are_drawn_anew_in_every_call():
    vit = tiny_vit()
    set_drop_path(vit, 0.5)
    draw_coins(vit, 3, slice(None), seeded(), torch.device("cpu"))
    forget_coins(vit)
    assert {drop.coins for drop in branches(vit)} == {None}
    vit(torch.randn(RECORDS, 12, 1000))


def test_drawing_coins_leaves_the_global_random_stream_alone():
    vit = tiny_vit()
    before = torch.get_rng_state()
    draw_coins(vit, RECORDS, slice(None), seeded(), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_of_which_all_records_are_kept_is_scaled_as_well():
    drop = StochasticDepth(0, 0.5, "subset")
    draw_coins(nn.ModuleList([drop]), 2, slice(None), seeded(4), torch.device("cpu"))
    assert drop.coins.tolist() == [True, True]
    assert drop(torch.ones(2, 1), lambda x: x).tolist() == [[2.0], [2.0]]

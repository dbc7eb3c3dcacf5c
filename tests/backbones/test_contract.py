"""What every registered backbone keeps; a new one needs a row in CASES and nothing else."""

from typing import Any

import pytest
import torch

from ecg_lightning.backbones import Backbone, create_backbone, list_backbones
from ecg_lightning.post_training import freeze
from ecg_lightning.stochastic_depth import StochasticDepth, branches, draw_coins, set_drop_path

NET1D: dict[str, Any] = {"base_filters": 16, "filters": (16, 32), "blocks": (2, 1), "num_time_points": 250}

ST_MEM: dict[str, Any] = {"depth": 2, "dim": 32, "heads": 2, "num_time_points": 150}
WAV2VEC: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "conv_channels": 16}

CASES: dict[str, dict[str, Any]] = {
    "chimera": {"depth": 2, "dim": 8, "state": 2, "patch": 20, "leads": ("I", "V4"), "num_time_points": 160},
    "ecg_fm_base": WAV2VEC,
    "ecg_jepa_base": {"depth": 2, "dim": 32, "heads": 2, "leads": ("I", "V4")},
    "ecgfounder": NET1D,
    "ecgfounder_1lead": NET1D,
    "hubert_ecg_base": WAV2VEC,
    "hubert_ecg_large": WAV2VEC,
    "hubert_ecg_small": WAV2VEC,
    "inception1d": {"bottleneck": 4, "filters": 4, "kernels": (5, 3), "num_time_points": 50},
    "mtecg_ti": {},
    "multiresnet": {"depth": 2, "dim": 16, "dropout": 0.0, "num_time_points": 100},
    "s4": {"depth": 2, "dim": 16, "num_time_points": 50, "dropout": 0.0},
    "st_mem_base": ST_MEM,
    "st_mem_small": ST_MEM,
    "vit": {"depth": 2, "dim": 32, "heads": 2, "num_time_points": 100},
    "xresnet1d101": {"stem": (4, 4, 8), "blocks": (2, 1, 1, 1), "width": 4, "num_time_points": 100},
}
"""Arguments that make each backbone small."""

WITH_STATISTICS: dict[str, dict[str, Any]] = {
    "ecgfounder": {"norm": True, "dropout": 0.5},
    "multiresnet": {"dropout": 0.5},
    "s4": {"dropout": 0.5},
}
"""Arguments that switch on what must rest in a frozen backbone, where it is off by default or above."""

every_backbone = pytest.mark.parametrize("name", CASES)
every_backbone_compiled = pytest.mark.parametrize(
    "name",
    # Tracing them takes 10 s: mtecg_ti's 12 blocks are fixed, chimera scans over time in two heads and directions.
    [pytest.param(name, marks=pytest.mark.slow) if name in ("chimera", "mtecg_ti") else name for name in CASES],
)
RECORDS = 3


def build(name: str, **others: Any) -> Backbone:
    torch.manual_seed(0)
    return create_backbone(name, **CASES[name] | others)


def ecg_for(backbone: Backbone) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(RECORDS, len(backbone.signal.leads), backbone.signal.num_time_points, generator=random)


def batch_norms(backbone: Backbone) -> list[torch.nn.Module]:
    return [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm1d)]


def blocks_of(backbone: Backbone) -> dict[int, torch.nn.Module]:
    """The modules that hold the branches, by the index of their block."""
    holders = {
        module.block: name.rpartition(".")[0]
        for name, module in backbone.named_modules()
        if isinstance(module, StochasticDepth)
    }
    return {index: backbone.get_submodule(name) for index, name in holders.items()}


def test_every_backbone_has_a_row_here():
    assert sorted(CASES) == list_backbones()


@every_backbone
def test_each_parameter_lies_in_one_layer_and_no_layer_is_empty(name):
    backbone = build(name)
    layers = {backbone.layer_of(parameter) for parameter, _ in backbone.named_parameters()}
    assert layers == set(range(backbone.num_layers + 1))


@every_backbone
def test_tokens_and_features_have_the_promised_shapes(name):
    backbone = build(name).eval()
    with torch.no_grad():
        tokens, features = backbone.tokens(ecg_for(backbone)), backbone(ecg_for(backbone))
    assert tokens.ndim == 3
    assert tokens.shape[0] == RECORDS
    assert features.shape == (RECORDS, backbone.feature_dim)
    assert torch.isfinite(features).all()


@every_backbone
def test_evaluation_is_deterministic_whatever_the_drop_rate(name):
    backbone = build(name).eval()
    ecg = ecg_for(backbone)
    with torch.no_grad():
        plain = backbone(ecg)
        set_drop_path(backbone, 0.9)
        assert torch.equal(backbone(ecg), plain)


@every_backbone
def test_evaluation_without_gradient_leaves_all_buffers(name):
    backbone = build(name).eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with torch.no_grad():
        backbone(ecg_for(backbone))
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@every_backbone
def test_a_frozen_backbone_changes_no_bit_of_its_tensors_even_where_it_is_told_to_train(name):
    backbone = build(name, **WITH_STATISTICS.get(name, {})).train()
    freeze(backbone, backbone.num_layers + 1)
    before = {key: value.clone() for key, value in [*backbone.named_parameters(), *backbone.named_buffers()]}
    first, second = backbone(ecg_for(backbone)), backbone(ecg_for(backbone))
    assert torch.equal(first, second)
    assert not first.requires_grad
    after = dict([*backbone.named_parameters(), *backbone.named_buffers()])
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@every_backbone
def test_a_record_does_not_depend_on_the_others_of_its_batch(name):
    backbone = build(name).eval()
    ecg = ecg_for(backbone)
    with torch.no_grad():
        torch.testing.assert_close(backbone(ecg)[1:2], backbone(ecg[1:2]), atol=1e-5, rtol=1e-5)


@every_backbone
def test_every_drop_is_called_once_and_blocks_count_from_zero(name):
    backbone = build(name)
    called: list[StochasticDepth] = []
    for drop in branches(backbone):
        drop.register_forward_hook(lambda module, *_: called.append(module))
    backbone(ecg_for(backbone))
    assert called == branches(backbone)
    assert {drop.block for drop in called} == set(range(max(drop.block for drop in called) + 1))


@every_backbone
def test_rate_one_leaves_the_shortcut_that_the_backbone_states_of_every_block(name):
    backbone = build(name).train()
    added: list[torch.Tensor] = []
    passed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for drop in branches(backbone):
        drop.register_forward_hook(lambda module, args, output: added.append(output))
    for index, block in blocks_of(backbone).items():
        block.register_forward_hook(lambda _, args, output, index=index: passed.update({index: (args[0], output)}))
    set_drop_path(backbone, 1.0, "uniform")
    ecg = ecg_for(backbone).requires_grad_()
    tokens = backbone.tokens(ecg)
    (gradient,) = torch.autograd.grad((tokens * torch.randn_like(tokens)).sum(), ecg)
    assert len(added) == len(branches(backbone))
    assert not any(output.any() for output in added)
    assert gradient.any()
    for index, (before, after) in passed.items():
        torch.testing.assert_close(after, backbone.shortcut(index, before), atol=1e-6, rtol=0)


@every_backbone
def test_the_mean_of_a_branch_over_many_draws_is_that_of_evaluation(name):
    """Per draw the branch adds nothing or its value over the keep probability; the share kept is binomial."""
    backbone, rate = build(name).train(), 0.3
    set_drop_path(backbone, rate, "uniform")
    shares: list[float] = []

    def compare(module: StochasticDepth, args: tuple[Any, ...], added: torch.Tensor) -> None:
        evaluated = args[1](args[0])  # the branch, without its coin
        for one, whole in zip(added, evaluated, strict=True):
            shares.append((one * whole).sum().item() / (whole * whole).sum().item())
            torch.testing.assert_close(one, whole * shares[-1], atol=1e-5, rtol=1e-4)

    for drop in branches(backbone):
        drop.register_forward_hook(compare)
    while len(shares) < 200:
        with torch.no_grad():
            backbone(ecg_for(backbone))
    assert all(min(abs(share), abs(share - 1 / (1 - rate))) < 1e-4 for share in shares)
    deviation = (rate / (1 - rate) / len(shares)) ** 0.5
    assert abs(sum(shares) / len(shares) - 1) < 4 * deviation


@every_backbone
@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_subset_mode_equals_mask_mode_with_the_same_coins(name, rate):
    backbone = build(name).train()
    for norm in batch_norms(backbone):
        norm.eval()  # in training they would take the statistics of the kept records alone
    outputs = []
    for mode in ("mask", "subset"):
        set_drop_path(backbone, rate, "uniform", mode)
        draw_coins(backbone, RECORDS, slice(None), torch.Generator().manual_seed(2), torch.device("cpu"))
        outputs.append(backbone(ecg_for(backbone)))
    torch.testing.assert_close(outputs[0], outputs[1], atol=2e-5, rtol=1e-5)


@every_backbone
def test_all_parameters_get_a_gradient(name):
    backbone = build(name).train()
    features = backbone(ecg_for(backbone))
    (features * torch.randn_like(features)).sum().backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@every_backbone
def test_own_names_pass_the_reading_of_checkpoints_unchanged(name):
    backbone = build(name)
    assert [backbone.own_name(key) for key in backbone.state_dict()] == list(backbone.state_dict())


@every_backbone
def test_names_without_weight_decay_exist(name):
    backbone = build(name)
    last_parts = {key.rpartition(".")[2] for key, _ in backbone.named_parameters()}
    assert backbone.no_weight_decay <= last_parts


@pytest.fixture
def traced_anew():
    """What was compiled for another network must not count towards the limit of recompilations."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@every_backbone_compiled
@pytest.mark.usefixtures("traced_anew")
def test_evaluation_compiles_without_graph_breaks(name):
    backbone = build(name).eval()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(ecg_for(backbone)), backbone(ecg_for(backbone)))


@every_backbone_compiled
@pytest.mark.usefixtures("traced_anew")
@pytest.mark.parametrize("mode", ["mask", "subset"])
def test_training_compiles_without_graph_breaks_and_takes_the_coins_of_each_step(name, mode):
    backbone = build(name).train()
    if mode == "subset" and batch_norms(backbone):
        pytest.skip("torch.compile does not trace batch norm over a number of records that the coins decide")
    set_drop_path(backbone, 0.5, "uniform", mode)
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    for step in range(2):
        draw_coins(backbone, RECORDS, slice(None), torch.Generator().manual_seed(step), torch.device("cpu"))
        features = compiled(ecg_for(backbone))
        torch.testing.assert_close(features, backbone(ecg_for(backbone)))
        features.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@every_backbone_compiled
def test_evaluation_exports_for_any_number_of_records(name):
    backbone = build(name).eval()
    ecg = ecg_for(backbone)
    program = torch.export.export(backbone, (ecg,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(ecg[:2]), backbone(ecg[:2]))

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from published import MULTIRESNET_REDUCED, NORMED_TOKENS, Reference, is_equal
from torch import Tensor, nn

from ecg_lightning.backbones import MultiResNet, backbone_signal, load_weights, multiresnet
from ecg_lightning.backbones.multiresnet import Block, MultiResolution, num_levels
from ecg_lightning.chains import run_batch_chain, run_record_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

SIZES = {
    "multiresnet_ptbxl": {},
    "multiresnet_reduced": MULTIRESNET_REDUCED,
}
TINY = {"depth": 2, "dim": 8, "num_time_points": 50}

every_reference = pytest.mark.parametrize("name", SIZES)


def loaded(name: str, folder, state: dict[str, Tensor] | None = None) -> tuple[MultiResNet, Reference]:
    backbone, reference = MultiResNet(**SIZES[name]), Reference.read(name)
    reference.load_into(backbone, folder, state)
    return backbone.eval(), reference


@every_reference
def test_the_network_equals_the_published_code(name, tmp_path):
    backbone, reference = loaded(name, tmp_path)
    differences = reference.differences(backbone)
    assert differences.keys() >= {"pooled", "logits"}
    assert is_equal(differences, NORMED_TOKENS), differences


def test_the_tokens_have_the_published_statistics_at_full_size(tmp_path):
    backbone, reference = loaded("multiresnet_ptbxl", tmp_path)
    with torch.no_grad():
        tokens = backbone.tokens(reference.ecg)
    assert tokens.shape == (2, 1000, 128)
    measured = (tokens.std().item(), tokens.mean().item(), tokens.abs().max().item())
    assert measured == pytest.approx((1.0157257318, 0.0065437681, 4.8024716377), abs=1e-5)


# --- slips that both references must tell ---


@pytest.fixture
def level_by_level(monkeypatch):
    """The layer as published, so that a slip inside it is that slip and nothing else."""
    monkeypatch.setattr(MultiResolution, "forward", MultiResolution.tree)


@every_reference
@pytest.mark.usefixtures("level_by_level")
def test_the_tree_itself_equals_the_published_code(name, tmp_path):
    backbone, reference = loaded(name, tmp_path)
    assert is_equal(reference.differences(backbone), NORMED_TOKENS)


def fine_first(weights: Tensor) -> Tensor:
    return torch.cat([weights[:, :1], weights[:, 1:-1].flip(1), weights[:, -1:]], dim=1)


def input_first(weights: Tensor) -> Tensor:
    return torch.cat([weights[:, -1:], weights[:, 1:-1], weights[:, :1]], dim=1)


@every_reference
@pytest.mark.parametrize("order", [fine_first, input_first])
def test_another_order_of_the_levels_weights_breaks_equality(order, name, tmp_path):
    state = Reference.read(name).state
    slipped = {key: order(tensor) if key.endswith(".w") else tensor for key, tensor in state.items()}
    backbone, reference = loaded(name, tmp_path, slipped)
    assert not is_equal(reference.differences(backbone), NORMED_TOKENS)


def padded(sides: float):
    """Filters with this share of the padding on the right."""

    def filtered(x: Tensor, filters: Tensor, dilation: int) -> Tensor:
        total = dilation * (filters.shape[-1] - 1)
        right = math.ceil(sides * total)
        return F.conv1d(F.pad(x, (total - right, right)), filters, dilation=dilation, groups=len(filters))

    return filtered


def unpadded(x: Tensor, filters: Tensor, dilation: int) -> Tensor:
    """No padding: what is missing at the end is taken for zero."""
    y = F.conv1d(F.pad(x, (0, 0)), filters, dilation=dilation, groups=len(filters))
    return F.pad(y, (0, x.shape[-1] - y.shape[-1]))


def backwards(x: Tensor, filters: Tensor, dilation: int) -> Tensor:
    return padded(0.0)(x, filters.flip(-1), dilation)


def other_filters_at_each_level(x: Tensor, filters: Tensor, dilation: int) -> Tensor:
    return padded(0.0)(x, filters.roll(int(math.log2(dilation)), dims=0), dilation)


@every_reference
@pytest.mark.usefixtures("level_by_level")
@pytest.mark.parametrize(
    "slip",
    [
        pytest.param(padded(1.0), id="padding on the right"),
        pytest.param(padded(0.5), id="padding on both sides"),
        pytest.param(unpadded, id="no padding"),
        backwards,
        other_filters_at_each_level,
    ],
)
def test_other_filters_break_equality(slip, name, tmp_path, monkeypatch):
    backbone, reference = loaded(name, tmp_path)
    monkeypatch.setattr(multiresnet, "filtered", slip)
    assert not is_equal(reference.differences(backbone), NORMED_TOKENS)


def normed_before(block: Block, x: Tensor) -> Tensor:
    return x + block.branch(block.shortcut(x))


def normed_before_the_sum(block: Block, x: Tensor) -> Tensor:
    return x + block.shortcut(block.branch(x))


@every_reference
@pytest.mark.parametrize("slip", [normed_before, normed_before_the_sum])
def test_a_norm_elsewhere_breaks_equality(slip, name, tmp_path, monkeypatch):
    backbone, reference = loaded(name, tmp_path)
    monkeypatch.setattr(Block, "forward", slip)
    assert not is_equal(reference.differences(backbone), NORMED_TOKENS)


@every_reference
def test_the_tanh_gelu_breaks_equality(name, tmp_path):
    backbone, reference = loaded(name, tmp_path)
    for block in backbone.blocks:
        block.act.approximate = "tanh"
    assert not is_equal(reference.differences(backbone), NORMED_TOKENS)


@every_reference
def test_the_gate_in_the_first_half_breaks_equality(name, tmp_path, monkeypatch):
    backbone, reference = loaded(name, tmp_path)
    monkeypatch.setattr(multiresnet.F, "glu", lambda x, dim: x.chunk(2, dim)[1] * x.chunk(2, dim)[0].sigmoid())
    assert not is_equal(reference.differences(backbone), NORMED_TOKENS)


# --- the layer ---


@given(length=st.integers(1, 70), kernel=st.integers(2, 5), levels=st.integers(0, 7), records=st.integers(0, 3))
def test_the_response_to_an_impulse_gives_what_the_tree_gives(length, kernel, levels, records):
    layer = MultiResolution(3, kernel, levels).double()
    x = torch.randn(records, 3, length, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.tree(x), atol=1e-10, rtol=0)


def test_gradients_are_those_of_the_tree():
    layer = MultiResolution(4, kernel=3, levels=5).double()
    x = torch.randn(2, 4, 60, dtype=torch.float64, requires_grad=True)
    along, tensors = torch.randn_like(x), [x, *layer.parameters()]
    ours, trees = (torch.autograd.grad((way(x) * along).sum(), tensors) for way in (layer, layer.tree))
    for gradient, published in zip(ours, trees, strict=True):
        torch.testing.assert_close(gradient, published, atol=1e-9, rtol=0)


def test_no_time_point_sees_a_later_one():
    layer = MultiResolution(2, kernel=2, levels=6)
    x = torch.randn(1, 2, 50)
    later = x.clone()
    later[..., 30:] += 1
    with torch.no_grad():
        change = (layer(later) - layer(x)).abs().amax((0, 1))
    assert change[:30].max() < 1e-6
    assert change[30] > 1e-3


def test_the_last_time_point_sees_the_first_at_the_default_size():
    layer = MultiResNet().blocks[0].layer
    with torch.no_grad():
        layer.low.fill_(1.0)
        response = layer.tree(F.pad(torch.ones(1, 128, 1), (0, 999)))
    assert response[..., -1].all()


def test_the_layer_is_as_precise_under_autocast():
    layer, x = MultiResolution(4, kernel=2, levels=6), torch.randn(2, 4, 60)
    with torch.no_grad():
        expected = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer(x), expected)
            assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("points", "kernel", "levels"), [(1000, 2, 10), (250, 4, 7), (1024, 2, 10), (1025, 2, 11)])
def test_levels_are_as_many_as_published(points, kernel, levels):
    assert num_levels(points, kernel) == levels


@given(points=st.integers(1, 10_000), kernel=st.integers(2, 64))
def test_the_levels_are_the_fewest_that_reach_over_the_window(points, kernel):
    def reach(levels: int) -> int:
        return 1 + (kernel - 1) * (2**levels - 1)

    levels = num_levels(points, kernel)
    assert reach(levels) >= points
    assert levels == 0 or reach(levels - 1) < points


def test_initial_values_are_spread_as_published():
    torch.manual_seed(0)
    layer = MultiResolution(4000, kernel=4, levels=7)
    for tensor, bound in ((layer.low, 0.5), (layer.high, 0.5), (layer.weights, math.sqrt(2 / (2 * 8 + 2)))):
        assert tensor.abs().max().item() == pytest.approx(bound, rel=1e-3)
        assert tensor.mean().item() == pytest.approx(0, abs=0.02 * bound)
        assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


# --- dropout ---


def test_dropout_is_a_fifth_unless_asked_for_and_acts_in_training_alone():
    backbone, ecg = MultiResNet(**TINY), torch.randn(2, 12, 50)
    assert {m.p for m in backbone.modules() if isinstance(m, nn.Dropout1d)} == {0.2}
    assert not torch.equal(backbone.train()(ecg), backbone(ecg))
    assert torch.equal(backbone.eval()(ecg), backbone(ecg))


def test_whole_channels_drop_out_behind_the_gelu_and_behind_the_gate():
    torch.manual_seed(0)
    block = Block(0, 8, kernel=2, levels=6, dropout=0.5).train()
    seen: list[tuple[Tensor, Tensor]] = []
    block.dropout.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    x = torch.randn(4, 8, 50)
    branch = block.branch(x)
    assert len(seen) == 2
    torch.testing.assert_close(seen[0][0], F.gelu(block.layer(x)))
    torch.testing.assert_close(seen[1][0], F.glu(block.mix(seen[0][1]), dim=1))
    assert torch.equal(branch, seen[1][1])
    for before, after in seen:
        dropped = (after == 0).all(dim=-1)
        assert 0 < dropped.sum() < dropped.numel()
        torch.testing.assert_close(after, torch.where(dropped.unsqueeze(-1), 0.0, 2 * before))


# --- files and sizes ---


def test_a_checkpoint_of_the_authors_training_loads_and_its_head_is_dropped_by_name(tmp_path):
    reference = Reference.read("multiresnet_reduced")
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters())
    entries = {
        "model": {f"module.{name}": tensor for name, tensor in reference.state.items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3).state_dict(),
        **{name: 0.5 for name in ("train_loss", "train_acc", "val_acc", "test_acc")},
        "epoch": 3,
    }
    torch.save(entries, tmp_path / "ckpt.pth")
    backbone = MultiResNet(**SIZES["multiresnet_reduced"])
    report = load_weights(backbone, tmp_path / "ckpt.pth")
    assert set(report.dropped) == {"module.output_mapping.weight", "module.output_mapping.bias"}
    assert is_equal(reference.differences(backbone), NORMED_TOKENS)


def test_a_checkpoint_of_another_length_is_refused(tmp_path):
    sizes = SIZES["multiresnet_reduced"] | {"num_time_points": 1000}
    with pytest.raises(InputError, match=r"blocks\.0\.layer\.weights is 16 x 9, not 16 x 11"):
        Reference.read("multiresnet_reduced").load_into(MultiResNet(**sizes), tmp_path)


@every_reference
def test_the_references_table_of_names_is_the_networks(name):
    with torch.device("meta"):
        backbone = MultiResNet(**SIZES[name])
    translated = {backbone.own_name(published) for published in Reference.read(name).shapes}
    assert translated == backbone.state_dict().keys() | {None}


def test_parameters_are_as_many_as_published_with_a_head_of_71_labels():
    with torch.device("meta"):
        backbone = MultiResNet()
        head = nn.Linear(backbone.feature_dim, 71)
    assert sum(p.numel() for part in (backbone, head) for p in part.parameters()) == 222_791
    assert sum(p.numel() for p in backbone.blocks.parameters()) == 211_968


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"dim": 0, "depth": 0}, "dim is 0.*|depth is 0.*dim is 0"), ({"kernel": 1}, "kernel is 1, it must be 2 or more")],
)
def test_sizes_that_do_not_fit_are_refused(sizes, words):
    with pytest.raises(InputError, match=words):
        MultiResNet(**sizes)


def test_input_of_another_length_is_refused_with_both_lengths():
    with pytest.raises(InputError, match=r"50 time points at 100 Hz.*\(2, 12, 40\)"):
        MultiResNet(**TINY)(torch.zeros(2, 12, 40))


# --- signal ---


@pytest.mark.parametrize("ecg_id", [1, 2, 3])
def test_preprocessing_equals_the_published_loader_on_real_records(ecg_id, shared):
    spec = backbone_signal("multiresnet")
    path = shared / "ptbxl" / "records100" / "00000" / f"{ecg_id:05d}_lr.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    stored = run_record_chain(spec.stored_chain, millivolts, spec.record_rate).astype(np.float32)
    ecg = run_batch_chain(spec.batch_chain, torch.from_numpy(stored))
    with np.load(shared / "preprocessing" / "multiresnet.npz") as published:
        torch.testing.assert_close(ecg, torch.from_numpy(published[f"ecg_{ecg_id}"]), atol=1e-4, rtol=0)


def test_the_whole_record_goes_in_unfiltered():
    spec = backbone_signal("multiresnet")
    assert (spec.record_rate, spec.sampling_rate, spec.num_time_points, spec.leads) == (100, 100, 1000, LEADS_12)
    assert spec.stored_chain == ()
    assert spec.windows.evaluation_starts(1000, spec.num_time_points) == [0]

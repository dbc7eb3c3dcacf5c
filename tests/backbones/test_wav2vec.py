import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ecg_lightning.backbones import Backbone, ECGFMBase, HuBERTECGBase, HuBERTECGSmall, wav2vec
from ecg_lightning.errors import InputError
from ecg_lightning.optim import parameter_groups
from ecg_lightning.post_training import freeze
from ecg_lightning.stochastic_depth import set_drop_path

TINY = {"dim": 32, "depth": 2, "heads": 2, "conv_channels": 16}


def block() -> wav2vec.PostNormBlock:
    torch.manual_seed(0)
    return wav2vec.PostNormBlock(0, 32, 2, dropout=0.0, activation_dropout=0.0).train()


def test_positions_equal_torchs_own_weight_norm():
    positions = wav2vec.ConvPositions(32, kernel=8, groups=4)
    with torch.no_grad():
        positions.bias.normal_()
        positions.magnitude.uniform_(0.5, 2)
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 32, 8, padding=4, groups=4), dim=2)
    own = (positions.bias, positions.magnitude, positions.direction)
    conv.load_state_dict(dict(zip(conv.state_dict(), own, strict=True)))
    x = torch.randn(3, 7, 32)
    expected = F.gelu(conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
    torch.testing.assert_close(positions(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kernel", [7, 8])
def test_positions_keep_the_number_of_tokens(kernel):
    assert wav2vec.ConvPositions(32, kernel=kernel)(torch.randn(2, 5, 32)).shape == (2, 5, 32)


def test_attention_equals_the_softmax_written_out():
    torch.manual_seed(0)
    attention = wav2vec.SelfAttention(32, 4, 0.0)
    x = torch.randn(2, 5, 32)
    q, k, v = (layer(x).view(2, 5, 4, 8).transpose(1, 2) for layer in (attention.q, attention.k, attention.v))
    mixed = torch.softmax(q * 8**-0.5 @ k.transpose(-1, -2), dim=-1) @ v
    expected = attention.out(mixed.transpose(1, 2).reshape(2, 5, 32))
    torch.testing.assert_close(attention(x), expected, atol=1e-6, rtol=1e-5)


def test_the_lengths_of_the_published_front_ends():
    assert HuBERTECGSmall(**TINY).tokens(torch.zeros(1, 12, 500)).shape == (1, 93, 32)
    assert ECGFMBase(**TINY).tokens(torch.zeros(1, 12, 2500)).shape == (1, 156, 32)


@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize("branch", ["drop1", "drop2"])
def test_the_mean_of_a_dropped_branch_over_many_draws_is_that_of_evaluation(branch, rate):
    seen, draws = [], 4000
    post_norm = block()
    getattr(post_norm, branch).drop_prob = rate
    getattr(post_norm, branch).register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    x = torch.randn(1, 3, 32).expand(draws, -1, -1)
    post_norm(x)
    ((before, added),) = seen
    whole = (post_norm.attn if branch == "drop1" else post_norm.mlp)(before[:1])
    kept = added.flatten(1).any(dim=1)
    torch.testing.assert_close(added[kept], (whole / (1 - rate)).expand(int(kept.sum()), -1, -1), atol=1e-5, rtol=1e-4)
    deviation = math.sqrt(draws * rate * (1 - rate))
    assert abs(int(kept.sum()) - draws * (1 - rate)) < 4 * deviation
    mean_error = (added.mean(dim=0) - whole[0]).abs().max() / whole.abs().max()
    assert mean_error < 4 * deviation / (draws * (1 - rate)) + 1e-5


def test_the_branch_is_dropped_before_the_norm_of_the_sum():
    post_norm = block()
    post_norm.drop1.drop_prob = post_norm.drop2.drop_prob = 1.0
    x = torch.randn(2, 3, 32) * 5
    torch.testing.assert_close(post_norm(x), F.layer_norm(F.layer_norm(x, (32,)), (32,)))
    assert not torch.allclose(post_norm(x), x)


def test_the_two_branches_of_a_block_share_its_rate_and_the_last_gets_the_whole():
    backbone = HuBERTECGSmall(**(TINY | {"depth": 3}))
    set_drop_path(backbone, 0.3)
    assert [(b.drop1.drop_prob, b.drop2.drop_prob) for b in backbone.blocks] == [(0, 0), (0.15, 0.15), (0.3, 0.3)]


def frozen_parts(backbone: Backbone) -> set[str]:
    freeze(backbone, 1)
    return {name.partition(".")[0] for name, parameter in backbone.named_parameters() if not parameter.requires_grad}


def test_one_frozen_layer_is_what_the_authors_froze():
    assert frozen_parts(HuBERTECGSmall(**TINY)) == {"front_end", "positions", "norm"}
    assert frozen_parts(ECGFMBase(**TINY)) == {"front_end"}


def test_what_lies_before_a_frozen_part_is_trained_through_it():
    backbone = HuBERTECGSmall(**TINY)
    freeze(backbone, 1)
    features = backbone(torch.randn(2, 12, 500))
    (features * torch.randn_like(features)).sum().backward()
    assert backbone.projection.weight.grad.any()
    assert backbone.positions.direction.grad is None


def test_the_magnitude_of_the_weight_norm_does_not_decay():
    groups = parameter_groups(HuBERTECGSmall(**TINY), nn.Linear(32, 2))
    decayed = {name for group in groups if group["decay"] for name in group["names"]}
    assert "backbone.positions.magnitude" not in decayed
    assert "backbone.positions.direction" in decayed


def test_initialisation_is_normal_with_deviation_002_for_linear_layers():
    torch.manual_seed(0)
    backbone = HuBERTECGSmall(dim=256, depth=1, heads=4, conv_channels=64)
    for tensor in (backbone.projection.weight, backbone.blocks[0].attn.q.weight, backbone.blocks[0].mlp.fc2.weight):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.05)
    assert backbone.positions.direction.std().item() == pytest.approx(math.sqrt(4 / (128 * 256)), rel=0.05)
    assert not backbone.blocks[0].attn.out.bias.any()


def test_dropout_acts_in_training_alone_and_inside_the_mlp_by_its_own_rate():
    backbone, ecg = ECGFMBase(**TINY, activation_dropout=0.5), torch.randn(2, 12, 2500)
    assert not torch.equal(backbone.train()(ecg), backbone(ecg))
    assert torch.equal(backbone.eval()(ecg), backbone(ecg))
    rates = {name: module.p for name, module in backbone.named_modules() if isinstance(module, nn.Dropout) and module.p}
    assert rates == {f"blocks.{index}.mlp.activation_dropout": 0.5 for index in range(2)}


def test_sizes_that_do_not_fit_are_refused_with_their_numbers():
    with pytest.raises(InputError, match=r"dim is 40, no multiple of heads.*16, the groups"):
        HuBERTECGBase(dim=40, heads=12)
    with pytest.raises(InputError, match="heads is 0, it must be 1 or more"):
        ECGFMBase(heads=0)


@pytest.mark.parametrize("shape", [(2, 12, 2500), (2, 6000), (2, 1, 6000)])
def test_an_input_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match=r"12 leads, 500 time points at 100 Hz"):
        HuBERTECGSmall(**TINY)(torch.zeros(shape))

from pathlib import Path

import pytest
import torch
from published import NORMED_TOKENS, TOKENS, Reference, is_equal
from torch import nn

from ecg_lightning.backbones import MTECGTi, ViT
from ecg_lightning.chains import Crop, ZScore
from ecg_lightning.errors import InputError

READOUTS = {"class_token": ("mtecg_ti_12_25", NORMED_TOKENS), "mean": ("mtecg_ti_12_25_gap", TOKENS)}
both_readouts = pytest.mark.parametrize("readout", READOUTS)


@pytest.fixture
def mtecg(readout: str, tmp_path: Path) -> tuple[MTECGTi, Reference, float]:
    name, tolerance = READOUTS[readout]
    backbone, reference = MTECGTi(readout=readout), Reference.read(name)
    reference.load_into(backbone, tmp_path)
    return backbone, reference, tolerance


@both_readouts
def test_mtecg_equals_the_published_network(mtecg):
    backbone, reference, tolerance = mtecg
    differences = reference.differences(backbone)
    assert is_equal(differences, tolerance), differences


@both_readouts
def test_mtecg_equals_the_published_network_on_all_tokens(readout, tmp_path, shared):
    name, tolerance = READOUTS[readout]
    backbone, reference = MTECGTi(readout=readout), Reference.read(name, shared / "references")
    reference.load_into(backbone, tmp_path)
    differences = reference.differences(backbone)
    assert is_equal(differences, tolerance), differences


@both_readouts
def test_the_framework_default_eps_breaks_equality(mtecg):
    backbone, reference, tolerance = mtecg
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    assert not is_equal(reference.differences(backbone), tolerance)


@both_readouts
def test_the_tanh_gelu_breaks_equality(mtecg):
    backbone, reference, tolerance = mtecg
    for block in backbone.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")
    assert not is_equal(reference.differences(backbone), tolerance)


def test_first_block_and_embedding_equal_the_published_ones(tmp_path):
    backbone, reference = MTECGTi(), Reference.read("mtecg_ti_12_25")
    reference.load_into(backbone, tmp_path)
    seen = {}
    backbone.blocks[0].register_forward_hook(lambda _, args, output: seen.update(before=args[0], after=output))
    with torch.no_grad():
        backbone.eval().tokens(reference.ecg)
    torch.testing.assert_close(seen["before"][:, :4], reference.outputs["embedded_slice"], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen["after"][:, :4], reference.outputs["first_block_slice"], atol=1e-5, rtol=0)


def test_mtecg_has_as_many_parameters_as_published():
    assert sum(parameter.numel() for parameter in MTECGTi().parameters()) == 5_435_328


def test_initialisation_is_normal_with_deviation_002_for_linear_layers_and_tables():
    torch.manual_seed(0)
    backbone = ViT(dim=192)
    for tensor in (backbone.blocks[0].mlp.fc1.weight, backbone.blocks[5].attn.qkv.weight, backbone.pos_embed):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(not p.any() for name, p in backbone.named_parameters() if name.endswith("bias") and "blocks" in name)
    assert backbone.patch_embed.proj.bias.any()


def test_signal_reads_unfiltered_stores():
    signal = ViT().signal
    assert signal.stored_chain == ()
    assert (signal.record_rate, signal.num_time_points, len(signal.leads)) == (100, 1000, 12)


@pytest.mark.parametrize(
    ("normalise", "chain"),
    [("record", (Crop(), ZScore("record"))), ("lead", (Crop(), ZScore("lead"))), ("none", (Crop(),))],
)
def test_normalise_chooses_what_follows_the_crop(normalise, chain):
    assert ViT(depth=1, normalise=normalise).signal.chain == chain


def test_patches_of_few_leads_give_one_token_per_group_of_leads():
    backbone = ViT(depth=1, dim=12, heads=3, patch=(3, 50), num_time_points=200)
    assert backbone.tokens(torch.zeros(2, 12, 200)).shape == (2, 1 + 4 * 4, 12)


def test_all_sizes_that_do_not_fit_are_named_with_their_numbers():
    with pytest.raises(InputError) as error:
        ViT(patch=(5, 30), dim=190)
    for number in ("1000", "30", "12", "5", "190", "3"):
        assert number in str(error.value)


def test_sizes_below_one_are_refused():
    with pytest.raises(InputError, match="heads is 0"):
        ViT(heads=0)


def test_unknown_readout_and_normalisation_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'max'.*'mean'.*'leads'.*'lead'"):
        ViT(readout="max", normalise="leads")


def test_input_of_another_length_is_refused_with_both_lengths():
    with pytest.raises(InputError, match=r"1000 time points at 100 Hz.*\(2, 12, 500\)"):
        ViT(depth=1)(torch.zeros(2, 12, 500))


def test_dropout_acts_in_training_alone():
    backbone = ViT(depth=1, dropout=0.5, num_time_points=100)
    ecg = torch.randn(2, 12, 100)
    assert not torch.equal(backbone.train()(ecg), backbone(ecg))
    assert torch.equal(backbone.eval()(ecg), backbone(ecg))

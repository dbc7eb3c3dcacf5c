import math
from pathlib import Path

import numpy as np
import pytest
import torch
from published import NORMED_TOKENS, Reference, is_equal
from torch import nn

from ecg_lightning.backbones import ECGJEPA, create_backbone, load_weights
from ecg_lightning.backbones.ecg_jepa import LEADS_8, cross_pattern, positions
from ecg_lightning.chains import run_batch_chain, run_record_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

TINY = {"depth": 2, "dim": 16, "heads": 2}
NAME = "ecg_jepa_base"


def first_block(folder: Path) -> tuple[ECGJEPA, Reference]:
    """Embedding and first block at full width, out of the published file's other tensors."""
    backbone, reference = ECGJEPA(depth=1), Reference.read(NAME)
    reference.shapes = {
        name: shape for name, shape in reference.shapes.items() if ".blocks." not in name or ".blocks.0." in name
    }
    reference.load_into(backbone, folder)
    return backbone.eval(), reference


def first_block_differences(backbone: ECGJEPA, reference: Reference) -> tuple[float, float]:
    seen = {}
    backbone.blocks[0].register_forward_hook(lambda _, args, output: seen.update(before=args[0], after=output))
    with torch.no_grad():
        backbone.tokens(reference.ecg)
    before = (seen["before"][:, :4] - reference.outputs["embedded_slice"]).abs().max().item()
    return before, (seen["after"][:, :4] - reference.outputs["first_block_slice"]).abs().max().item()


def test_embedding_and_first_block_equal_the_published_ones(tmp_path):
    assert max(first_block_differences(*first_block(tmp_path))) <= 1e-5


def test_attention_without_the_cross_pattern_breaks_equality(tmp_path):
    backbone, reference = first_block(tmp_path)
    backbone.mask.fill_(True)
    before, after = first_block_differences(backbone, reference)
    assert before <= 1e-5
    assert after > 1e-2


# --- the whole network, and slips that its reference must tell ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> ECGJEPA:
    """85 million parameters, loaded once; what a test slips in, it slips in by ``monkeypatch``."""
    backbone = ECGJEPA()
    Reference.read(NAME).load_into(backbone, tmp_path_factory.mktemp("jepa"))
    return backbone.eval()


@pytest.mark.slow
def test_the_network_equals_the_published_code(whole):
    differences = Reference.read(NAME).differences(whole)
    assert differences.keys() == {"tokens", "pooled"}
    assert is_equal(differences, NORMED_TOKENS), differences


@pytest.mark.slow
def test_the_network_equals_the_published_code_on_more_tokens(whole, shared):
    differences = Reference.read(NAME, shared / "references").differences(whole)
    assert is_equal(differences, NORMED_TOKENS), differences


@pytest.mark.slow
def test_another_eps_of_the_norms_breaks_equality(whole, monkeypatch):
    for module in whole.modules():
        if isinstance(module, nn.LayerNorm):
            monkeypatch.setattr(module, "eps", 1e-6)
    assert not is_equal(Reference.read(NAME).differences(whole), NORMED_TOKENS)


@pytest.mark.slow
def test_the_tanh_gelu_breaks_equality(whole, monkeypatch):
    for block in whole.blocks:
        monkeypatch.setattr(block.mlp.act, "approximate", "tanh")
    assert not is_equal(Reference.read(NAME).differences(whole), NORMED_TOKENS)


@pytest.mark.slow
def test_positions_added_before_the_first_block_alone_break_equality(whole, monkeypatch):
    table = whole.pos_embed
    handle = whole.blocks[0].register_forward_pre_hook(lambda _, args: (args[0] + table, *args[1:]))
    monkeypatch.setitem(whole._buffers, "pos_embed", torch.zeros_like(table))
    differences = Reference.read(NAME).differences(whole)
    handle.remove()
    assert not is_equal(differences, NORMED_TOKENS)


# --- files and sizes ---


def test_the_published_file_loads_whole_with_nothing_dropped(tmp_path):
    reference = Reference.read(NAME)
    with torch.device("meta"):
        backbone = ECGJEPA()
    assert {backbone.own_name(name) for name in reference.shapes} == backbone.state_dict().keys()
    backbone, reference = first_block(tmp_path)
    assert not reference.load_into(backbone, tmp_path).dropped
    assert torch.equal(backbone.pos_embed, reference.state["pos_embed"])


def test_parameters_are_as_many_as_published_the_positions_being_frozen():
    with torch.device("meta"):
        backbone = ECGJEPA()
    trained = sum(parameter.numel() for parameter in backbone.parameters())
    assert (trained, trained + backbone.pos_embed.numel()) == (85_067_520, 85_374_720)


def test_weights_of_eight_leads_fit_fewer(tmp_path):
    torch.save({"encoder": ECGJEPA(**TINY).state_dict()}, tmp_path / "eight.pth")
    backbone = ECGJEPA(**TINY, leads=("V2", "I"))
    assert not load_weights(backbone, tmp_path / "eight.pth").dropped
    assert backbone.tokens(torch.zeros(1, 2, 2500)).shape == (1, 100, 16)


def test_a_lead_keeps_its_position_whatever_the_others_are():
    """Without attention between leads a lead alone is what it is among eight; positions and lead rows tell."""
    torch.manual_seed(0)
    eight, one = ECGJEPA(**TINY).eval(), ECGJEPA(**TINY, leads=("v3",)).eval()
    one.load_state_dict(eight.state_dict())
    lead = LEADS_8.index("V3")
    eight.mask.copy_(torch.eye(8).bool().repeat_interleave(50, 0).repeat_interleave(50, 1))
    ecg = torch.randn(2, 8, 2500)
    with torch.no_grad():
        alone, among = one.tokens(ecg[:, lead : lead + 1]), eight.tokens(ecg)[:, 50 * lead : 50 * lead + 50]
    torch.testing.assert_close(alone, among)


def test_the_order_of_the_leads_does_not_change_the_features():
    torch.manual_seed(0)
    backbone, turned = ECGJEPA(**TINY).eval(), ECGJEPA(**TINY, leads=LEADS_8[::-1]).eval()
    turned.load_state_dict(backbone.state_dict())
    ecg = torch.randn(2, 8, 2500)
    with torch.no_grad():
        torch.testing.assert_close(turned(ecg.flip(1)), backbone(ecg))


def test_a_lead_that_the_network_does_not_know_is_refused_with_those_it_does():
    with pytest.raises(InputError, match=r"leads are I, aVR: leads missing: aVR \(found I, II, V1"):
        ECGJEPA(leads=("I", "aVR"))


def test_all_sizes_that_do_not_fit_are_named():
    with pytest.raises(InputError) as error:
        ECGJEPA(dim=10, heads=4)
    for words in ("dim is 10, no multiple of heads, 4", "no multiple of sines and cosines of two axes, 4"):
        assert words in str(error.value)


def test_input_of_twelve_leads_is_refused():
    with pytest.raises(InputError, match=r"8 leads, 2500 time points at 250 Hz.*\(2, 12, 2500\)"):
        ECGJEPA(**TINY)(torch.zeros(2, 12, 2500))


# --- the parts ---


def test_a_token_sees_its_lead_and_its_moment():
    mask = cross_pattern(8)
    assert mask.sum(dim=1).tolist() == [57] * 400
    lead, patch = 3, 20
    seen = {divmod(token, 50) for token in mask[50 * lead + patch].nonzero().flatten().tolist()}
    assert seen == {(lead, other) for other in range(50)} | {(other, patch) for other in range(8)}


@pytest.mark.parametrize(("lead", "patch", "wave"), [(0, 0, 0), (5, 17, 3), (7, 49, 191)])
def test_positions_are_sines_then_cosines_of_patch_and_of_lead(lead, patch, wave):
    row = positions(768)[50 * lead + patch]
    frequency = 10000 ** (-wave / 192)
    expected = [
        math.sin(patch * frequency), math.cos(patch * frequency), math.sin(lead * frequency), math.cos(lead * frequency)
    ]  # fmt: skip
    assert row[[wave, 192 + wave, 384 + wave, 576 + wave]].tolist() == pytest.approx(expected, abs=1e-5)


def test_positions_are_saved_but_never_trained():
    backbone = ECGJEPA(**TINY)
    assert "pos_embed" in backbone.state_dict()
    assert not {"pos_embed", "rows", "mask"} & {name for name, _ in backbone.named_parameters()}
    assert not {"rows", "mask"} & backbone.state_dict().keys()


def test_initialisation_is_normal_and_smaller_at_the_end_of_deeper_branches():
    torch.manual_seed(0)
    backbone = ECGJEPA(depth=3, dim=192, heads=3)
    for number, block in enumerate(backbone.blocks, start=1):
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
        for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.05)
    assert not any(p.any() for name, p in backbone.named_parameters() if name.endswith("bias"))


# --- signal ---


@pytest.mark.parametrize("ecg_id", [1, 4, 8])
@pytest.mark.parametrize(("filtered", "key"), [(False, "ecg"), (True, "finetune_ecg")])
def test_preprocessing_equals_the_published_steps_on_real_records(filtered, key, ecg_id, shared):
    spec = create_backbone(NAME, **TINY, filtered=filtered).signal
    path = shared / "ptbxl500" / "records500" / "00000" / f"{ecg_id:05d}_hr.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    leads = millivolts[spec.lead_indices(LEADS_12)]
    stored = run_record_chain(spec.stored_chain, leads, spec.record_rate).astype(np.float32)
    assert stored.shape[-1] == spec.num_time_points
    ecg = run_batch_chain(spec.batch_chain, torch.from_numpy(stored))
    with np.load(shared / "preprocessing" / "ecg_jepa.npz") as published:
        torch.testing.assert_close(ecg, torch.from_numpy(published[f"{key}_{ecg_id}"]), atol=1e-4, rtol=0)


def test_one_store_serves_both_chains_and_st_mem():
    raw, filtered = (create_backbone(NAME, **TINY, filtered=choice).signal for choice in (False, True))
    other = create_backbone("st_mem_base", depth=1, dim=8, heads=2).signal
    assert raw.stored_chain == filtered.stored_chain == other.stored_chain
    assert raw.leads == LEADS_8

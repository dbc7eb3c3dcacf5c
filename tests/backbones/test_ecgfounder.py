from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from published import ECGFOUNDER_REDUCED as REDUCED
from published import TOKENS, Reference, is_equal
from torch import nn

from ecg_lightning.backbones import ECGFounder, ECGFounder1Lead, backbone_signal, conv1d, ecgfounder
from ecg_lightning.chains import run_batch_chain, run_record_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

FULL = {"ecgfounder_12lead_full_nobn": ECGFounder, "ecgfounder_1lead_nobn": ECGFounder1Lead}


def reduced(norm: bool, folder: Path) -> tuple[ECGFounder, Reference]:
    backbone = ECGFounder(**REDUCED, norm=norm, dropout=0.5 if norm else 0.0)
    reference = Reference.read("ecgfounder_reduced_bn" if norm else "ecgfounder_reduced_nobn")
    reference.load_into(backbone, folder)
    return backbone, reference


@pytest.mark.parametrize("norm", [False, True])
def test_reduced_network_equals_the_published_code(norm, tmp_path):
    backbone, reference = reduced(norm, tmp_path)
    differences = reference.differences(backbone, time_last=True)
    assert is_equal(differences, TOKENS), differences


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_network_equals_the_published_code(name, tmp_path, shared):
    backbone, reference = FULL[name](), Reference.read(name, shared / "references")
    reference.load_into(backbone, tmp_path)
    differences = reference.differences(backbone, time_last=True)
    assert is_equal(differences, TOKENS), differences


def test_stem_first_block_and_first_stage_equal_the_published_ones(tmp_path):
    backbone, reference = reduced(False, tmp_path)
    seen = {}
    stage = backbone.stage_list[0]
    stage.register_forward_hook(lambda _, args, output: seen.update(stem=args[0], first_stage=output))
    stage.block_list[0].register_forward_hook(lambda _, args, output: seen.update(first_block=output))
    with torch.no_grad():
        backbone.eval().tokens(reference.ecg)
    for name, values in seen.items():
        torch.testing.assert_close(values[..., :8], reference.outputs[f"{name}_slice"], atol=1e-5, rtol=0)


def test_another_eps_of_the_norms_breaks_equality(tmp_path):
    backbone, reference = reduced(True, tmp_path)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = 1e-6
    assert not is_equal(reference.differences(backbone, time_last=True), TOKENS)


def test_padding_heavier_on_the_left_breaks_equality(tmp_path, monkeypatch):
    backbone, reference = reduced(False, tmp_path)
    right_heavy = conv1d.same_padding
    monkeypatch.setattr(conv1d, "same_padding", lambda *sizes: right_heavy(*sizes)[::-1])
    assert not is_equal(reference.differences(backbone, time_last=True), TOKENS)


@pytest.mark.parametrize("padding", [((0, 1), -np.inf), ((1, 0), 0.0)], ids=["minus infinity", "left"])
def test_other_padding_of_the_pool_breaks_equality(padding, tmp_path, monkeypatch):
    backbone, reference = reduced(False, tmp_path)
    sides, value = padding
    monkeypatch.setattr(ecgfounder, "halved", lambda x: F.max_pool1d(F.pad(x, sides, value=value), 2, 2))
    assert not is_equal(reference.differences(backbone, time_last=True), TOKENS)


def test_norms_of_the_file_are_dropped_by_name_when_they_are_off(tmp_path):
    reference = Reference.read("ecgfounder_reduced_nobn")
    report = reference.load_into(ECGFounder(**REDUCED), tmp_path)
    norms = {name for name in reference.shapes if "bn" in name}
    assert set(report.dropped) == norms | {"dense.weight", "dense.bias"}
    assert "142 dropped by name (dense; first_bn; stage_list.*.block_list.*.bn*)" in str(report)


def test_the_norm_that_is_never_called_is_not_built(tmp_path):
    backbone = ECGFounder(**REDUCED, norm=True)
    report = Reference.read("ecgfounder_reduced_bn").load_into(backbone, tmp_path)
    assert {name.rpartition(".")[0] for name in report.dropped} == {"dense", "stage_list.0.block_list.0.bn1"}


def test_parameters_are_as_many_as_published_without_norms_and_head():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in ECGFounder().parameters()) == 30_598_896
        assert sum(parameter.numel() for parameter in ECGFounder1Lead().parameters()) == 30_587_632


def test_blocks_are_counted_over_all_stages():
    backbone = ECGFounder(**REDUCED)
    assert [block.drop.block for stage in backbone.stage_list for block in stage.block_list] == list(range(9))


def test_a_dropped_block_leaves_pooled_and_widened_shortcut():
    block = ecgfounder.Net1DBlock(1, 16, 32, stride=2, kernel=16, groups_width=16, norm=False, dropout=0.0).train()
    block.drop.drop_prob = 1.0
    x = torch.randn(2, 16, 9)
    y = block(x)
    assert y.shape == (2, 32, 5)
    assert torch.equal(y[:, 8:24, :4], torch.maximum(x[..., 0:8:2], x[..., 1:8:2]))
    assert torch.equal(y[:, 8:24, 4], x[..., 8].clamp(min=0))
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_norm_statistics_stay_untouched_when_frozen():
    backbone = ECGFounder(base_filters=16, filters=(16, 32), blocks=(1, 1), norm=True).eval()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    with torch.no_grad():
        backbone(torch.randn(2, 12, 200))
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


def test_other_lengths_of_input_run():
    backbone = ECGFounder(**REDUCED)
    assert backbone.tokens(torch.randn(1, 12, 333)).shape == (1, 11, 80)


def test_input_with_other_leads_is_refused():
    with pytest.raises(InputError, match=r"takes \(batch, 1 leads.*\(2, 12, 500\)"):
        ECGFounder1Lead(**REDUCED)(torch.zeros(2, 12, 500))


def test_all_sizes_that_do_not_fit_are_named():
    with pytest.raises(InputError) as error:
        ECGFounder(base_filters=64, filters=(20, 16), blocks=(1, 0, 2), kernel=0)
    for words in ("2 stages and blocks 3", "each stage needs 1", "groups_width, 16", "[64, 20, 16]", "kernel is 0"):
        assert words in str(error.value)


@given(length=st.integers(1, 400), kernel=st.integers(1, 40), stride=st.integers(1, 4))
def test_same_padding_gives_the_length_over_the_stride_rounded_up(length, kernel, stride):
    left, right = conv1d.same_padding(length, kernel, stride)
    assert right - left in (0, 1)
    outputs = (length + left + right - kernel) // stride + 1
    assert outputs == -(-length // stride) or kernel < stride


def test_same_padding_of_the_published_lengths():
    assert conv1d.same_padding(2500, 16, 2) == (7, 7)
    assert conv1d.same_padding(625, 16, 2) == (7, 8)
    assert conv1d.same_padding(625, 16, 1) == (7, 8)


@pytest.mark.parametrize(("name", "key"), [("ecgfounder", "ecg"), ("ecgfounder_1lead", "one_lead_ecg")])
@pytest.mark.parametrize("ecg_id", [1, 4, 8])
def test_preprocessing_equals_the_published_functions_on_real_records(name, key, ecg_id, shared):
    spec = backbone_signal(name)
    path = shared / "ptbxl500" / "records500" / "00000" / f"{ecg_id:05d}_hr.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    leads = millivolts[spec.lead_indices(LEADS_12)]
    stored = run_record_chain(spec.stored_chain, leads, spec.record_rate).astype(np.float32)
    ecg = run_batch_chain(spec.batch_chain, torch.from_numpy(stored))
    with np.load(shared / "preprocessing" / "ecgfounder.npz") as published:
        torch.testing.assert_close(ecg, torch.from_numpy(published[f"{key}_{ecg_id}"]), atol=1e-4, rtol=0)

import numpy as np
import pytest
import torch
from published import FOLDER, TOKENS, Reference, is_equal
from torch import Tensor, nn

from ecg_lightning.backbones import STMEM, STMEMSmall, backbone_signal, load_weights
from ecg_lightning.chains import run_batch_chain, run_record_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

TINY = {"depth": 1, "dim": 8, "heads": 2, "num_time_points": 150}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.read("st_mem_small")


@pytest.fixture(scope="module")
def small(reference, tmp_path_factory) -> STMEMSmall:
    """Loaded once; what a test slips in, it slips in by ``monkeypatch``."""
    backbone = STMEMSmall()
    reference.load_into(backbone, tmp_path_factory.mktemp("st_mem"))
    return backbone.eval()


def test_the_small_network_equals_the_published_code(small, reference):
    differences = reference.differences(small)
    assert differences.keys() == {"tokens", "pooled", "logits"}
    assert is_equal(differences, TOKENS), differences


@pytest.mark.slow
def test_the_base_network_equals_the_published_code(tmp_path):
    backbone, reference = STMEM(), Reference.read("st_mem_base")
    reference.load_into(backbone, tmp_path)
    differences = reference.differences(backbone)
    assert is_equal(differences, TOKENS), differences


@pytest.mark.slow
@pytest.mark.parametrize(("name", "network"), [("st_mem_base", STMEM), ("st_mem_small", STMEMSmall)])
def test_the_networks_equal_the_published_code_on_more_tokens(name, network, tmp_path, shared):
    backbone, reference = network(), Reference.read(name, shared / "references")
    reference.load_into(backbone, tmp_path)
    differences = reference.differences(backbone)
    assert is_equal(differences, TOKENS), differences


def test_embedding_and_first_block_equal_the_published_ones(small, reference):
    seen = {}
    handle = small.blocks[0].register_forward_hook(lambda _, args, output: seen.update(before=args[0], after=output))
    with torch.no_grad():
        small.tokens(reference.ecg)
    handle.remove()
    torch.testing.assert_close(seen["before"][:, :4], reference.outputs["embedded_slice"], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen["after"][:, :4], reference.outputs["first_block_slice"], atol=1e-5, rtol=0)


# --- slips that the references must tell ---


def test_another_eps_of_the_norms_breaks_equality(small, reference, monkeypatch):
    for module in small.modules():
        if isinstance(module, nn.LayerNorm):
            monkeypatch.setattr(module, "eps", 1e-6)
    assert not is_equal(reference.differences(small), TOKENS)


def test_the_tanh_gelu_breaks_equality(small, reference, monkeypatch):
    for block in small.blocks:
        monkeypatch.setattr(block.mlp.act, "approximate", "tanh")
    assert not is_equal(reference.differences(small), TOKENS)


def norm_before_mean(backbone: STMEM, ecg: Tensor) -> Tensor:
    return backbone.norm(backbone.tokens(ecg).unflatten(1, (12, -1))[:, :, 1:-1]).mean(dim=(1, 2))


def separators_in_mean(backbone: STMEM, ecg: Tensor) -> Tensor:
    return backbone.norm(backbone.tokens(ecg).mean(dim=1))


@pytest.mark.parametrize("slip", [norm_before_mean, separators_in_mean])
def test_another_way_to_pool_breaks_equality(slip, small, reference, monkeypatch):
    monkeypatch.setattr(STMEM, "forward", slip)
    assert not is_equal(reference.differences(small), TOKENS)


def test_the_position_behind_the_patches_in_place_of_the_last_breaks_equality_for_short_windows():
    """The right separator takes the last row of the table, however few patches there are."""
    backbone = STMEM(**TINY).eval()
    ecg = torch.randn(1, 12, 150)
    with torch.no_grad():
        before = backbone.tokens(ecg)
        backbone.pos_embedding[0, 3:-1] += 1  # rows that no token of two patches takes
        assert torch.equal(backbone.tokens(ecg), before)
        backbone.pos_embedding[0, -1] += 1
        assert not torch.equal(backbone.tokens(ecg), before)


# --- files ---


def test_the_encoders_file_loads_and_its_head_is_dropped(reference, tmp_path):
    report = reference.load_into(STMEMSmall(), tmp_path)
    assert report.dropped == ("head.weight", "head.bias")


def test_the_whole_autoencoders_file_loads_and_the_decoder_is_dropped_by_name(reference, small, tmp_path):
    state = {name: tensor for name, tensor in reference.state.items() if not name.startswith("head.")}
    decoder = {
        "mask_embedding": torch.zeros(256),
        "decoder_pos_embed": torch.zeros(1, 32, 256),
        "decoder_blocks.0.attn.norm.weight": torch.zeros(256),
        "decoder_head.weight": torch.zeros(75, 256),
        "to_decoder_embedding.weight": torch.zeros(256, 384),
    }
    shared = {name: tensor for name, tensor in state.items() if name.startswith("to_patch_embedding")}
    whole = {f"encoder.{name}": tensor for name, tensor in state.items()} | shared | decoder
    backbone = STMEMSmall()
    report = reference.load_into(backbone, tmp_path, whole)
    assert set(report.dropped) == decoder.keys() | shared.keys()
    assert "dropped by name (decoder_blocks.*.attn.norm; decoder_head; decoder_pos_embed" in str(report)
    own = backbone.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in small.state_dict().items())


def test_a_decoder_without_its_encoder_is_refused(tmp_path):
    torch.save({"model": {"decoder_head.weight": torch.zeros(75, 256)}}, tmp_path / "decoder.pth")
    with pytest.raises(InputError, match="holds another network"):
        load_weights(STMEM(**TINY), tmp_path / "decoder.pth")


def test_weights_of_the_whole_length_fit_a_shorter_window(tmp_path):
    torch.save({"model": STMEM(**TINY | {"num_time_points": 2250}).state_dict()}, tmp_path / "long.pth")
    assert not load_weights(STMEM(**TINY), tmp_path / "long.pth").dropped


# --- sizes ---


@pytest.mark.parametrize(("network", "published"), [(STMEM, 85_154_459), (STMEMSmall, 21_343_643)])
def test_parameters_are_as_many_as_published_without_the_head(network, published):
    with torch.device("meta"):
        backbone = network()
        head = nn.Linear(backbone.feature_dim, 5)
    assert sum(p.numel() for part in (backbone, head) for p in part.parameters()) == published


@pytest.mark.parametrize("name", ["st_mem_base", "st_mem_small"])
def test_the_references_table_of_names_is_the_networks(name):
    reference = Reference.read(name, FOLDER)
    with torch.device("meta"):
        backbone = {"st_mem_base": STMEM, "st_mem_small": STMEMSmall}[name]()
    translated = {backbone.own_name(published) for published in reference.shapes}
    assert translated == backbone.state_dict().keys() | {None}


def test_all_sizes_that_do_not_fit_are_named():
    with pytest.raises(InputError) as error:
        STMEM(dim=10, heads=4, num_time_points=100)
    for words in ("dim is 10, no multiple of heads, 4", "num_time_points is 100, no multiple of the patch, 75"):
        assert words in str(error.value)


def test_a_window_beyond_the_positions_is_refused():
    with pytest.raises(InputError, match="num_time_points is 2325, it must be 2250 or less"):
        STMEM(num_time_points=2325)


def test_input_of_another_length_is_refused_with_both_lengths():
    with pytest.raises(InputError, match=r"150 time points at 250 Hz.*\(2, 12, 225\)"):
        STMEM(**TINY)(torch.zeros(2, 12, 225))


def test_dropout_acts_in_training_alone():
    backbone = STMEM(**TINY, dropout=0.5)
    ecg = torch.randn(2, 12, 150)
    assert not torch.equal(backbone.train()(ecg), backbone(ecg))
    assert torch.equal(backbone.eval()(ecg), backbone(ecg))


# --- signal ---


@pytest.mark.parametrize("ecg_id", [1, 4, 8])
def test_preprocessing_equals_the_published_transforms_on_real_records(ecg_id, shared):
    spec = backbone_signal("st_mem_base")
    path = shared / "ptbxl500" / "records500" / "00000" / f"{ecg_id:05d}_hr.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    stored = run_record_chain(spec.stored_chain, millivolts, spec.record_rate).astype(np.float32)
    starts = spec.windows.evaluation_starts(stored.shape[-1], spec.num_time_points)
    assert starts == [0, 125, 250]
    windows = torch.from_numpy(np.stack([stored[:, start : start + 2250] for start in starts]))
    with np.load(shared / "preprocessing" / "st_mem.npz") as published:
        expected = torch.from_numpy(published[f"ecg_{ecg_id}"])
    torch.testing.assert_close(run_batch_chain(spec.batch_chain, windows), expected, atol=1e-4, rtol=0)


def test_windows_are_random_in_training_and_three_averaged_in_evaluation():
    windows = backbone_signal("st_mem_base").windows
    assert (windows.train, windows.count, windows.aggregate) == ("random", 3, "mean")


def test_filters_run_per_window_and_the_rate_is_changed_in_the_store():
    spec = backbone_signal("st_mem_base")
    assert [step.name for step in spec.stored_chain] == ["resample"]
    assert [step.name for step in spec.batch_chain] == ["window_filter", "window_filter", "z_score"]
    assert (spec.record_rate, spec.sampling_rate, spec.leads) == (500, 250, LEADS_12)


def test_a_flat_window_becomes_zero():
    spec = backbone_signal("st_mem_base")
    assert not run_batch_chain(spec.batch_chain, torch.zeros(1, 12, 2250)).any()

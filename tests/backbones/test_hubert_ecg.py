import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import FOLDER, TOKENS, Reference, foreign_class, is_equal, shrunk
from safetensors.torch import save_file
from seed_recipe import seeded_state
from torch import Tensor, nn

from ecg_lightning.backbones import (
    HuBERTECGBase,
    HuBERTECGLarge,
    HuBERTECGSmall,
    LoadReport,
    backbone_signal,
    load_weights,
    meta_backbone,
    wav2vec,
)
from ecg_lightning.backbones.hubert_ecg import HuBERTECG
from ecg_lightning.chains import run_batch_chain, run_record_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

SIZES = {"hubert_ecg_small": HuBERTECGSmall, "hubert_ecg_base": HuBERTECGBase, "hubert_ecg_large": HuBERTECGLarge}
PUBLISHED_PARAMETERS = {"hubert_ecg_small": 30_209_664, "hubert_ecg_base": 92_798_848, "hubert_ecg_large": 187_644_736}
OLD_SPELLING = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
TINY: dict[str, Any] = {"dim": 32, "heads": 2, "conv_channels": 16}


def write_pt(path: Path, state: dict[str, Tensor], **entries: Any) -> Path:
    """As the authors save: beside the weights a configuration object, which torch's own reader refuses."""
    with foreign_class("hubert_ecg", "HuBERTECGConfig") as config_class:
        config = config_class()
        config.hidden_size, config.conv_dim, config.torch_dtype = 768, [512] * 5, torch.float32
        torch.save({"global_step": 9, "model_config": config, "model_state_dict": state, **entries}, path)
    return path


@pytest.fixture(scope="module")
def loaded_small(tmp_path_factory) -> tuple[HuBERTECGSmall, Reference]:
    backbone, reference = HuBERTECGSmall(), Reference.read("hubert_ecg_small")
    path = write_pt(tmp_path_factory.mktemp("hubert") / "hubert_ecg_small.pt", reference.state)
    load_weights(backbone, path)
    path.unlink()
    return backbone, reference


@pytest.fixture
def small(loaded_small) -> tuple[HuBERTECGSmall, Reference]:
    """The test's own copy, to damage at will."""
    backbone, reference = loaded_small
    return copy.deepcopy(backbone), reference


def test_the_small_network_equals_the_published_code(small):
    backbone, reference = small
    differences = reference.differences(backbone)
    assert is_equal(differences, TOKENS), differences


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("whole", [False, True], ids=["kept tokens", "all tokens"])
def test_the_networks_equal_the_published_code(name, whole, tmp_path, request):
    folder = request.getfixturevalue("shared") / "references" if whole else FOLDER
    backbone, reference = SIZES[name](), Reference.read(name, folder)
    save_file(reference.state, tmp_path / "model.safetensors")
    load_weights(backbone, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    differences = reference.differences(backbone)
    assert is_equal(differences, TOKENS), differences


def tanh_gelu_in_the_blocks(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in backbone.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")


def tanh_gelu_in_the_stem(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate="tanh": exact(x, approximate=approximate))


def smaller_eps(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


def first_position_left_out(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = wav2vec.ConvPositions.forward

    def shifted(self: wav2vec.ConvPositions, x: Tensor) -> Tensor:
        return forward(self, F.pad(x, (0, 0, 0, 1)))[:, 1:]

    monkeypatch.setattr(wav2vec.ConvPositions, "forward", shifted)


def weight_norm_per_output_channel(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    norm = torch.linalg.vector_norm(backbone.positions.direction, dim=(1, 2), keepdim=True).detach()
    monkeypatch.setattr(wav2vec.ConvPositions, "_norm", lambda self: norm)


def norm_behind_the_blocks(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    norm, backbone.norm = backbone.norm, nn.Identity()
    backbone.blocks.append(norm)


def pre_norm(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: wav2vec.PostNormBlock, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    monkeypatch.setattr(wav2vec.PostNormBlock, "forward", forward)


def swapped_norms(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in backbone.blocks:
        block.norm1, block.norm2 = block.norm2, block.norm1


def time_before_lead(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HuBERTECG, "channels", lambda self, ecg: ecg.transpose(1, 2).flatten(1).unsqueeze(1))


def another_number_of_heads(backbone: HuBERTECG, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in backbone.blocks:
        block.attn.heads = 4


SLIPS = (
    tanh_gelu_in_the_blocks,
    tanh_gelu_in_the_stem,
    smaller_eps,
    first_position_left_out,
    weight_norm_per_output_channel,
    norm_behind_the_blocks,
    pre_norm,
    swapped_norms,
    time_before_lead,
    another_number_of_heads,
)


@pytest.mark.slow
@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.__name__)
def test_a_slip_breaks_equality(slip, small, monkeypatch):
    backbone, reference = small
    slip(backbone, monkeypatch)
    assert not is_equal(reference.differences(backbone), TOKENS)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_as_many_as_published_but_for_the_unused_mask_embedding(name):
    backbone = meta_backbone(name)
    own = sum(parameter.numel() for parameter in backbone.parameters())
    assert own + backbone.feature_dim == PUBLISHED_PARAMETERS[name]
    state = Reference.read(name).shapes
    assert own == sum(int(np.prod(shape)) for key, shape in state.items() if not key.startswith(("classifier", "mask")))


# --- the files the authors publish, with weights of a tiny network ---


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, Tensor]:
    shapes = shrunk(Reference.read("hubert_ecg_base").shapes, {768: 32, 3072: 128, 512: 16, 48: 2})
    return {name: torch.from_numpy(array) for name, array in seeded_state(shapes).items()}


@pytest.fixture
def expected(tiny_state, tmp_path) -> dict[str, Tensor]:
    return loaded(save_flat(tiny_state, tmp_path / "model.safetensors"))[0].state_dict()


def save_flat(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path)
    return path


def loaded(path: Path) -> tuple[HuBERTECGBase, LoadReport]:
    backbone = HuBERTECGBase(**TINY)
    return backbone, load_weights(backbone, path)


def backbone_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}


def respelled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    new, old = zip(*OLD_SPELLING.items(), strict=True)
    return {name.replace(new[0], old[0]).replace(new[1], old[1]): tensor.clone() for name, tensor in state.items()}


def assert_loads_as(expected: dict[str, Tensor], path: Path) -> LoadReport:
    backbone, report = loaded(path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())
    return report


def test_every_published_name_has_its_place(tiny_state, expected):
    assert len(expected) == len(backbone_part(tiny_state)) - 1  # the mask embedding
    for name in ("blocks.11.attn.q.weight", "blocks.3.norm1.bias", "positions.magnitude", "front_end.norm.weight"):
        assert expected[name].ndim
    assert torch.equal(expected["blocks.2.norm2.weight"], tiny_state["encoder.layers.2.final_layer_norm.weight"])
    assert torch.equal(expected["blocks.2.norm1.weight"], tiny_state["encoder.layers.2.layer_norm.weight"])


def test_a_pretrained_flat_file_loads_and_its_heads_are_dropped_by_name(tiny_state, expected, tmp_path):
    heads = {"final_proj.0.weight": torch.ones(8, 32), "final_proj.0.bias": torch.ones(8)}
    heads |= {"label_embedding.0.weight": torch.ones(5, 8), "label_embedding.1.weight": torch.ones(5, 8)}
    report = assert_loads_as(expected, save_flat(backbone_part(tiny_state) | heads, tmp_path / "m.safetensors"))
    assert set(report.dropped) == heads.keys() | {"masked_spec_embed"}
    assert "final_proj.*; label_embedding.*; masked_spec_embed" in str(report)
    assert report.remark == ""


def test_a_file_with_a_configuration_object_loads_and_says_that_it_was_left_unread(tiny_state, expected, tmp_path):
    report = assert_loads_as(expected, write_pt(tmp_path / "m.pt", tiny_state))
    assert report.unread == ("hubert_ecg.HuBERTECGConfig",)
    assert "left unread: hubert_ecg.HuBERTECGConfig" in str(report)


@pytest.mark.parametrize("wrapper", ["hubert_ecg.", "module.hubert_ecg."])
def test_a_fine_tuned_file_loads_without_its_head_and_warns_of_ptbxl(wrapper, tiny_state, expected, tmp_path):
    outer = wrapper.removesuffix("hubert_ecg.")
    state = {
        (outer if name.startswith("classifier") else wrapper) + name: tensor for name, tensor in tiny_state.items()
    }
    path = write_pt(tmp_path / "m.pt", state, finetuning_vocab_size=71, linear=True, use_label_embedding=False)
    report = assert_loads_as(expected, path)
    heads = {f"{outer}classifier.weight", f"{outer}classifier.bias", f"{wrapper}masked_spec_embed"}
    assert set(report.dropped) == heads
    assert "never use them for PTB-XL scores" in str(report)


def test_both_spellings_of_the_weight_norm_load(tiny_state, expected, tmp_path):
    old = respelled(tiny_state)
    assert old.keys() != tiny_state.keys()
    assert_loads_as(expected, save_flat(old, tmp_path / "m.safetensors"))


def test_a_file_with_both_spellings_of_one_weight_norm_loads(tiny_state, expected, tmp_path):
    assert_loads_as(expected, save_flat(tiny_state | respelled(tiny_state), tmp_path / "m.safetensors"))


def test_a_file_with_spellings_that_differ_is_refused(tiny_state, tmp_path):
    twice = {name: tensor + 1 for name, tensor in respelled(tiny_state).items() if name.endswith("weight_g")}
    path = save_flat(tiny_state | twice, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"differ: encoder.*original0 and encoder.*weight_g for positions.magnitude"):
        loaded(path)


def test_a_checkpoint_of_this_package_loads(expected, tmp_path):
    state = {f"backbone.{name}": tensor for name, tensor in expected.items()}
    path = save_flat(state | {"head.weight": torch.ones(2, 32)}, tmp_path / "m.safetensors")
    assert assert_loads_as(expected, path).remark == ""


# --- signal ---


def test_the_signal_is_cut_at_500_hz_and_read_at_100(tmp_path):
    signal = backbone_signal("hubert_ecg_small")
    assert (signal.stored_rate, signal.window_points) == (500, 2500)
    assert (signal.sampling_rate, signal.num_time_points) == (100, 500)
    assert (signal.windows.count, signal.windows.aggregate) == (3, "max")


@pytest.mark.parametrize(("rate", "suffix"), [(500, ""), (100, "_from_100hz")])
@pytest.mark.parametrize("ecg_id", [1, 2, 3])
def test_preprocessing_equals_the_published_functions_on_real_records(ecg_id, rate, suffix, shared):
    spec = backbone_signal("hubert_ecg_base", record_rate=rate)
    folder, ending = ("ptbxl500/records500", "hr") if rate == 500 else ("ptbxl/records100", "lr")
    path = shared / folder / "00000" / f"{ecg_id:05d}_{ending}.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    stored = run_record_chain(spec.stored_chain, millivolts, rate).astype(np.float32)
    ecg = run_batch_chain(spec.batch_chain, torch.from_numpy(stored[None, :, : spec.window_points]))
    with np.load(shared / "preprocessing" / "hubert_ecg.npz") as published:
        wanted = torch.from_numpy(published[f"ecg_{ecg_id}{suffix}"])
    torch.testing.assert_close(ecg.flatten(), wanted, atol=1e-4, rtol=0)

import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import FOLDER, TOKENS, Reference, foreign_class, is_equal, shrunk
from seed_recipe import seeded_state
from torch import Tensor

from ecg_lightning.backbones import ECGFMBase, LoadReport, backbone_signal, load_weights, meta_backbone
from ecg_lightning.chains import run_batch_chain, run_record_chain
from ecg_lightning.errors import InputError
from ecg_lightning.signals import LEADS_12

TINY: dict[str, Any] = {"dim": 32, "heads": 2, "conv_channels": 16}
PRETRAINING = {
    "mask_emb": [32],
    "quantizer.vars": [1, 640, 8],
    "quantizer.weight_proj.weight": [640, 16],
    "quantizer.weight_proj.bias": [640],
    "project_q.weight": [16, 16],
    "project_q.bias": [16],
    "final_proj.weight": [16, 32],
    "final_proj.bias": [16],
}


def write_pt(path: Path, state: dict[str, Tensor], **entries: Any) -> Path:
    """As the present trainer saves: ``cfg`` is plain data."""
    cfg = {"model": {"_name": "ecg_transformer_classifier", "conv_feature_layers": "[(256, 2, 2)] * 4"}, "seed": 1}
    rest = {"args": Namespace(seed=1), "criterion": {}, "task_state": {}, "extra_state": {"epoch": 3, "best": 0.5}}
    torch.save({**rest, "cfg": cfg, "optimizer_history": [{"lr": 1e-4}], "model": state, **entries}, path)
    return path


def write_pt_with_dictconfig(path: Path, state: dict[str, Tensor]) -> Path:
    """As older trainers saved: ``cfg`` is an object of omegaconf, with the standard library's classes in its state."""
    with foreign_class("omegaconf.dictconfig", "DictConfig") as config_class:
        cfg = config_class()
        cfg.content, cfg.object_type, cfg.key_type = {"seed": 1}, dict, Any
        return write_pt(path, state, cfg=cfg)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["kept tokens", "all tokens"])
def test_the_network_equals_the_published_code(whole, tmp_path, request):
    folder = request.getfixturevalue("shared") / "references" if whole else FOLDER
    backbone, reference = ECGFMBase(), Reference.read("ecg_fm_base", folder)
    load_weights(backbone, write_pt(tmp_path / "ecg_fm.pt", reference.state))
    (tmp_path / "ecg_fm.pt").unlink()
    differences = reference.differences(backbone)
    assert is_equal(differences, TOKENS), differences


def test_parameters_are_as_many_as_published():
    # 90.9 million with the modules of the pre-training, which are no part of a backbone.
    assert sum(parameter.numel() for parameter in meta_backbone("ecg_fm_base").parameters()) == 90_373_248


def test_entries_of_exactly_zero_are_not_counted_in_the_mean(monkeypatch):
    tokens = torch.tensor([[[1.0, 0.0, 3.0], [3.0, 0.0, 0.0]]])
    monkeypatch.setattr(ECGFMBase, "tokens", lambda self, ecg: tokens)
    assert ECGFMBase(**TINY, depth=1)(torch.zeros(1)).tolist() == [[2.0, 0.0, 3.0]]


# --- the files the authors publish, with weights of a tiny network ---


@pytest.fixture(scope="module")
def tiny_state() -> dict[str, Tensor]:
    """Pre-trained: the backbone and the modules of the pre-training."""
    shapes = shrunk(Reference.read("ecg_fm_base").shapes, {768: 32, 3072: 128, 256: 16, 48: 2})
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("proj.")} | PRETRAINING
    return {name: torch.from_numpy(array) for name, array in seeded_state(shapes).items()}


@pytest.fixture
def expected(tiny_state, tmp_path) -> dict[str, Tensor]:
    return loaded(write_pt(tmp_path / "pretrained.pt", tiny_state))[0].state_dict()


def loaded(path: Path) -> tuple[ECGFMBase, LoadReport]:
    backbone = ECGFMBase(**TINY)
    return backbone, load_weights(backbone, path)


def assert_loads_as(expected: dict[str, Tensor], path: Path) -> LoadReport:
    backbone, report = loaded(path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())
    return report


def fine_tuned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the fine-tuning class names them: wrapped, with a head beside."""
    wrapped = {f"encoder.{name}": tensor for name, tensor in state.items() if name not in PRETRAINING}
    return wrapped | {"proj.weight": torch.ones(17, 32), "proj.bias": torch.ones(17)}


def test_a_pretrained_file_loads_and_what_belongs_to_pretraining_is_dropped_by_name(tiny_state, expected, tmp_path):
    report = assert_loads_as(expected, write_pt(tmp_path / "m.pt", tiny_state))
    assert set(report.dropped) == PRETRAINING.keys()
    assert report.unread == ()
    assert "fold 10 in part" in str(report)


def test_every_published_name_has_its_place(tiny_state, expected):
    assert len(expected) == len(tiny_state) - len(PRETRAINING)
    for own, published in {
        "projection_norm.weight": "layer_norm.weight",
        "norm.weight": "encoder.layer_norm.weight",
        "blocks.2.norm1.weight": "encoder.layers.2.self_attn_layer_norm.weight",
        "blocks.2.norm2.weight": "encoder.layers.2.final_layer_norm.weight",
        "blocks.11.mlp.fc2.bias": "encoder.layers.11.fc2.bias",
        "front_end.norm.bias": "feature_extractor.conv_layers.0.2.bias",
    }.items():
        assert torch.equal(expected[own], tiny_state[published])


def test_a_fine_tuned_file_loses_one_wrapper_and_its_head(tiny_state, expected, tmp_path):
    report = assert_loads_as(expected, write_pt(tmp_path / "m.pt", fine_tuned(tiny_state)))
    assert report.dropped == ("proj.weight", "proj.bias")


def test_a_head_beside_unwrapped_names_takes_nothing_off_them(tiny_state, expected, tmp_path):
    state = tiny_state | {"proj.weight": torch.ones(17, 32), "proj.bias": torch.ones(17)}
    assert_loads_as(expected, write_pt(tmp_path / "m.pt", state))


@pytest.mark.parametrize("is_fine_tuned", [False, True])
def test_both_spellings_of_the_weight_norm_load(is_fine_tuned, tiny_state, expected, tmp_path):
    state = fine_tuned(tiny_state) if is_fine_tuned else tiny_state
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    assert_loads_as(expected, write_pt(tmp_path / "m.pt", old))


def test_an_older_file_with_a_dictconfig_loads_and_says_that_it_was_left_unread(tiny_state, expected, tmp_path):
    report = assert_loads_as(expected, write_pt_with_dictconfig(tmp_path / "m.pt", tiny_state))
    assert report.unread == ("builtins.dict", "omegaconf.dictconfig.DictConfig", "typing.Any")


def test_a_file_of_hubert_ecg_is_refused(tmp_path):
    shapes = shrunk(Reference.read("hubert_ecg_base").shapes, {768: 32, 3072: 128, 512: 16, 48: 2})
    state = {name: torch.from_numpy(array) for name, array in seeded_state(shapes).items()}
    with pytest.raises(InputError, match=r"missing: .*unexpected: masked_spec_embed"):
        loaded(write_pt(tmp_path / "m.pt", state))


def test_a_wrapped_file_without_its_front_end_is_refused(tiny_state, tmp_path):
    state = {name: tensor for name, tensor in fine_tuned(tiny_state).items() if "feature_extractor" not in name}
    with pytest.raises(InputError, match="does not fit ECGFMBase; missing"):
        loaded(write_pt(tmp_path / "m.pt", state))


def test_a_damaged_file_is_refused_before_its_objects_are_looked_at(tiny_state, tmp_path):
    path = write_pt_with_dictconfig(tmp_path / "m.pt", tiny_state)
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("m/data.pkl").header_offset + 200
    contents = bytearray(path.read_bytes())
    contents[place] ^= 1
    path.write_bytes(contents)
    with pytest.raises(InputError, match="cut off or damaged"):
        loaded(path)


# --- signal ---


def test_evaluation_reads_both_halves_of_a_record_and_takes_their_mean():
    signal = backbone_signal("ecg_fm_base")
    assert signal.windows.evaluation_starts(5000, signal.window_points) == [0, 2500]
    assert signal.windows.aggregate == "mean"


@pytest.mark.parametrize(("rate", "suffix"), [(500, ""), (100, "_from_100hz")])
@pytest.mark.parametrize("ecg_id", [1, 2, 3])
def test_preprocessing_equals_the_published_functions_on_real_records(ecg_id, rate, suffix, shared):
    spec = backbone_signal("ecg_fm_base", record_rate=rate)
    folder, ending = ("ptbxl500/records500", "hr") if rate == 500 else ("ptbxl/records100", "lr")
    path = shared / folder / "00000" / f"{ecg_id:05d}_{ending}.dat"
    millivolts = np.fromfile(path, "<i2").reshape(-1, len(LEADS_12)).T / 1000
    stored = run_record_chain(spec.stored_chain, millivolts, rate).astype(np.float32)
    starts = spec.windows.evaluation_starts(stored.shape[-1], spec.window_points)
    windows = np.stack([stored[:, start : start + spec.window_points] for start in starts])
    ecg = run_batch_chain(spec.batch_chain, torch.from_numpy(windows))
    with np.load(shared / "preprocessing" / "ecg_fm.npz") as published:
        torch.testing.assert_close(ecg, torch.from_numpy(published[f"ecg_{ecg_id}{suffix}"]), atol=1e-4, rtol=0)

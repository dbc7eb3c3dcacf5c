import argparse
import logging
import os
import pickle
import re
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import norm_net

from ecg_lightning.backbones import ECGFounder, ViT, create_backbone, load_weights
from ecg_lightning.errors import InputError

TINY = {"depth": 2, "dim": 12, "heads": 3, "num_time_points": 100}


class RunsCode:
    """A pickle of this runs a command when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran_code",)


@pytest.fixture
def source() -> ViT:
    torch.manual_seed(1)
    return ViT(**TINY)


@pytest.fixture
def target() -> ViT:
    torch.manual_seed(2)
    return ViT(**TINY)


def are_equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in mine.items())


def saved(path: Path, contents: object) -> Path:
    torch.save(contents, path)
    return path


def refused(backbone: torch.nn.Module, path: Path, *words: str, **options: str) -> str:
    """The message with which the file is refused, nothing in the backbone having changed."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(backbone, path, **options)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    for word in words:
        assert word in str(error.value)
    return str(error.value)


def test_a_safetensors_state_dict_loads(source, target, tmp_path):
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    report = load_weights(target, tmp_path / "weights.safetensors")
    assert are_equal(source, target)
    assert (sorted(report.matched), report.dropped) == (sorted(source.state_dict()), ())


def test_the_kind_of_file_is_told_by_its_contents(source, target, tmp_path):
    save_file(source.state_dict(), tmp_path / "weights.bin")
    load_weights(target, tmp_path / "weights.bin")
    assert are_equal(source, target)


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
@pytest.mark.parametrize("new_format", [True, False])
def test_a_torch_file_loads_alone_and_under_the_known_keys(key, new_format, source, target, tmp_path):
    contents = {key: source.state_dict(), "epoch": 3} if key else source.state_dict()
    torch.save(contents, tmp_path / "weights.pth", _use_new_zipfile_serialization=new_format)
    load_weights(target, tmp_path / "weights.pth")
    assert are_equal(source, target)


def test_a_checkpoint_of_the_classifier_loads_and_its_head_is_dropped(source, target, tmp_path):
    state = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    state |= {"head.weight": torch.zeros(5, 12), "head.bias": torch.zeros(5), "loss.weights": torch.ones(5)}
    report = load_weights(target, saved(tmp_path / "last.ckpt", {"epoch": 1, "state_dict": state}))
    assert are_equal(source, target)
    assert report.dropped == ("head.weight", "head.bias", "loss.weights")


def test_decoder_and_mask_token_of_an_autoencoder_are_dropped(source, target, tmp_path):
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.bias": torch.zeros(8)}
    report = load_weights(target, saved(tmp_path / "mae.pth", {"model": source.state_dict() | decoder}))
    assert are_equal(source, target)
    assert set(report.dropped) == decoder.keys()


def test_plain_data_of_a_training_save_beside_the_weights_is_harmless(source, target, tmp_path):
    rest = {"args": argparse.Namespace(lr=1e-3), "best": np.float64(0.9), "step": np.int64(7)}
    load_weights(target, saved(tmp_path / "save.pth", {"model": source.state_dict(), **rest}))
    assert are_equal(source, target)


def test_weights_of_half_precision_become_those_of_the_backbone(source, target, tmp_path):
    load_weights(target, saved(tmp_path / "half.pth", source.half().state_dict()))
    assert target.cls_token.dtype is torch.float32
    assert torch.equal(target.cls_token, source.cls_token.float())


def test_the_report_reads_in_one_line(source, target, tmp_path):
    heads = {"head.weight": torch.zeros(5, 12), "head.bias": torch.zeros(5)}
    line = str(load_weights(target, saved(tmp_path / "m.pth", {"model": source.state_dict() | heads})))
    assert re.fullmatch(r"m\.pth \(sha256 [0-9a-f]{12}\): 30 tensors loaded; 2 dropped by name \(head\)", line)


def test_creating_with_weights_loads_them_and_logs_the_report(source, tmp_path, caplog):
    path = saved(tmp_path / "m.pth", source.state_dict())
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        assert are_equal(create_backbone("vit", path, **TINY), source)
    assert "30 tensors loaded" in caplog.text


def test_a_file_of_the_asked_hash_loads_and_another_is_refused(source, target, tmp_path):
    path = saved(tmp_path / "m.pth", source.state_dict())
    refused(target, path, "has sha256", "not 0123", "fetch it anew", sha256="0123")
    digest = load_weights(target, path).sha256
    assert load_weights(target, path, sha256=digest.upper()).sha256 == digest


def test_a_missing_file_and_a_folder_are_refused(target, tmp_path):
    refused(target, tmp_path / "none.pth", "none.pth is no file", "give the path")
    refused(target, tmp_path, "is no file")


def test_an_empty_file_is_refused(target, tmp_path):
    (tmp_path / "empty.pth").touch()
    refused(target, tmp_path / "empty.pth", "is empty", "again")


@pytest.mark.parametrize("contents", [b"epoch,loss\n1,0.5\n", b"\x89PNG\r\n\x1a\n123", b"{"])
def test_a_file_of_another_kind_is_refused(contents, target, tmp_path):
    (tmp_path / "other.pth").write_bytes(contents)
    refused(target, tmp_path / "other.pth", "is not a checkpoint", "safetensors")


@pytest.mark.parametrize("kept", [12, 1000, -200])
@pytest.mark.parametrize("form", ["safetensors", "torch", "old torch"])
def test_a_file_that_is_cut_off_is_refused(form, kept, source, target, tmp_path):
    path = tmp_path / "weights"
    if form == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path, _use_new_zipfile_serialization=form == "torch")
    path.write_bytes(path.read_bytes()[:kept])
    refused(target, path, "cut off or damaged", "again")


def test_a_flipped_byte_among_the_weights_of_a_torch_file_is_refused(source, target, tmp_path):
    path = saved(tmp_path / "m.pth", source.state_dict())
    contents = bytearray(path.read_bytes())
    place = contents.find(source.pos_embed.detach().numpy().tobytes())
    contents[place + 5] ^= 1
    path.write_bytes(contents)
    refused(target, path, "damaged")


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(new_format, source, target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {"model": source.state_dict(), "hook": RunsCode()}
    torch.save(contents, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format)
    refused(target, tmp_path / "evil.pth", "is refused: loading it could run code", "convert it to safetensors")
    assert not (tmp_path / "ran_code").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_with_code_is_refused_and_not_run(protocol, target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(RunsCode(), protocol=protocol))
    refused(target, tmp_path / "evil.pkl", "evil.pkl is refused: loading it could run code")
    assert not (tmp_path / "ran_code").exists()


@pytest.mark.parametrize("contents", [{}, [1, 2], {"epoch": 3}, {"state_dict": {}}, {"model": {"a": "text"}}])
def test_a_checkpoint_without_weights_is_refused_with_what_it_holds(contents, target, tmp_path):
    refused(target, saved(tmp_path / "none.pth", contents), "holds no weights (found: ", "one of model, state_dict")


def test_contents_with_keys_of_any_kind_are_told_without_being_written_out(target, tmp_path):
    contents = {("a",): 1, 7: 2, "x" * 500: 3}
    message = refused(target, saved(tmp_path / "odd.pth", contents), "(found: tuple; int; xxx")
    assert len(message) < 500
    deep = b"\x80\x02})" + b"\x85" * 20_000 + b"K\x01s."
    refused(target, archive_of(tmp_path / "deep.pth", deep), "(found: tuple)")


def test_weights_under_a_number_are_no_weights(source, target, tmp_path):
    refused(target, saved(tmp_path / "m.pth", {**source.state_dict(), 7: torch.zeros(1)}), "holds no weights (found: ")


UNUSUAL = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "float8_e4m3fn": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "without values": lambda tensor: tensor.to("meta"),
    "larger than the file": lambda tensor: torch.zeros(1).expand(10**12),
}


@pytest.mark.parametrize("told", UNUSUAL)
def test_a_tensor_that_is_no_plain_numbers_is_refused_by_name(told, source, target, tmp_path):
    state = source.state_dict()
    state["norm.weight"] = UNUSUAL[told](state["norm.weight"])
    refused(target, saved(tmp_path / "m.pth", state), "holds what is not plain weights: norm.weight is ", told, "dense")


def test_complex_numbers_in_place_of_weights_are_refused(source, target, tmp_path):
    state = source.state_dict() | {"norm.weight": torch.ones(12, dtype=torch.complex64)}
    refused(target, saved(tmp_path / "m.pth", state), "norm.weight is 12 (torch.complex64), not 12")
    network = norm_net()
    state = network.state_dict()
    counter = next(name for name in state if name.endswith("num_batches_tracked"))
    state[counter] = torch.tensor(1j)
    refused(
        network, saved(tmp_path / "counter.pth", state), f"{counter} is one number (torch.complex64), not one number"
    )


def archive_of(path: Path, pickled: bytes) -> Path:
    """A torch file whose contents are this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"m/{name}", content)
    return path


@pytest.mark.parametrize("module", ["builtins", "__builtin__"])
def test_a_file_that_makes_memory_of_a_number_is_refused(module, target, tmp_path):
    gibibytes = (3 << 30).to_bytes(8, "little")
    pickled = b"\x80\x02c%s\nbytearray\n\x8a\x08%s\x85R." % (module.encode(), gibibytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(target, archive_of(tmp_path / "m.pth", pickled), "it asks for a bytearray", "convert it to safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_tuples_so_deep_that_python_dies_of_them_are_refused(target, tmp_path):
    pickled = b"\x80\x02})" + b"\x85" * 3_000_000 + b"K\x01s."
    refused(target, archive_of(tmp_path / "m.pth", pickled), "it asks for more than 50000 tuples")


def test_a_packed_archive_is_not_unpacked_into_any_amount_of_memory(source, target, tmp_path):
    whole = saved(tmp_path / "m.pth", {name: torch.zeros_like(value) for name, value in source.state_dict().items()})
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member), zipfile.ZIP_DEFLATED)
    refused(target, tmp_path / "packed.pth", "cut off or damaged")


def test_more_memory_than_there_is_names_the_file_and_both_ways_out(source, target, tmp_path, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    path = saved(tmp_path / "m.pth", source.state_dict())
    monkeypatch.setattr("torch.load", load)
    refused(target, path, "m.pth (0 MiB) asks for more memory than there is", "weights_sha256", "copy it again")


def test_another_networks_file_is_refused(target, tmp_path):
    other = ECGFounder(base_filters=16, filters=(16,), blocks=(1,))
    path = saved(tmp_path / "net1d.pth", {"state_dict": other.state_dict()})
    refused(target, path, "holds another network", "first_conv.conv.weight", "ViT", "give a file of ViT")


def test_another_size_is_refused_with_both_shapes(target, tmp_path):
    path = saved(tmp_path / "wide.pth", ViT(**(TINY | {"num_time_points": 200})).state_dict())
    refused(target, path, "of another size: pos_embed is 1 x 9 x 12, not 1 x 5 x 12", "sizes")


def test_missing_unexpected_and_mis_shaped_names_come_in_one_message(source, target, tmp_path):
    state = source.state_dict()
    state["norm.extra"] = state.pop("norm.weight")
    state["cls_token"] = torch.zeros(1, 1, 13)
    path = saved(tmp_path / "m.pth", state)
    refused(target, path, "missing: norm.weight", "unexpected: norm.extra", "cls_token is 1 x 1 x 13, not 1 x 1 x 12")


def test_whole_numbers_in_place_of_weights_are_refused(source, target, tmp_path):
    state = source.state_dict() | {"norm.weight": torch.ones(12, dtype=torch.int8)}
    refused(target, saved(tmp_path / "int8.pth", state), "norm.weight is 12 (torch.int8), not 12")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value, source, target, tmp_path):
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    state["blocks.1.mlp.fc1.weight"][3, 4] = value
    refused(target, saved(tmp_path / "nan.pth", state), "NaN or infinite weights in blocks.1.mlp.fc1.weight")

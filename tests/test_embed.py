"""Features of a store's records through the real command line."""

import json

import numpy as np
import pytest
import torch
from tiny import of_lightning_cli
from trained_runs import FilteredNet

import ecg_lightning
from ecg_lightning.backbones import ViT
from ecg_lightning.cli import main
from ecg_lightning.data.store import Store
from ecg_lightning.runs import NO_DEVICE, file_sha256

pytestmark = of_lightning_cli
SMALL = '{"depth": 1, "dim": 6, "heads": 2}'


def embedded(output, *arguments):
    """What the command writes."""
    assert main(["embed", "--output", str(output), *map(str, arguments)]) == 0
    with np.load(output) as file:
        return dict(file)


def test_features_of_a_run_are_the_mean_of_its_backbones_over_the_windows(filtered_run, tmp_path):
    path = filtered_run.parent / "moved.h5"
    found = embedded(tmp_path / "f.npz", "--run", filtered_run, "--store", path, "--batch_size", 7)
    store, backbone = Store(path), FilteredNet().eval()
    content = torch.load(filtered_run / "checkpoints" / "finetune-best.ckpt", weights_only=True)["state_dict"]
    backbone.load_state_dict({name[9:]: each for name, each in content.items() if name.startswith("backbone.")})
    signals = torch.from_numpy(np.array(store.signals()))
    expected = torch.zeros(80, 8)
    for start in (0, 300, 600):
        window = signals[:, :, start : start + 400]
        scaled = (window - window.mean(-1, keepdim=True)) / (window.std(-1, keepdim=True, unbiased=False) + 1e-8)
        expected += backbone(scaled).detach() / 3
    np.testing.assert_allclose(found["features"], expected, atol=1e-5)
    assert found["features"].dtype == np.float32
    assert found["features"].std(axis=0).min() > 1e-3
    for name, column in (("record_id", "ecg_id"), ("patient_id", "patient_id"), ("fold", "strat_fold")):
        assert np.array_equal(found[name], store.records[column])


def test_the_file_says_where_its_features_come_from(filtered_run, tmp_path):
    store = filtered_run.parent / "moved.h5"
    meta = json.loads(str(embedded(tmp_path / "f.npz", "--run", filtered_run, "--store", store)["meta"]))
    assert meta["checkpoint_sha256"] == file_sha256(filtered_run / "checkpoints" / "finetune-best.ckpt")
    assert meta["store_sha256"] == Store(store).attributes["sha256"]
    assert (meta["backbone"], meta["note"]) == ("trained_runs.FilteredNet", NO_DEVICE)
    assert meta["ecg_lightning"] == ecg_lightning.__version__


def test_a_store_without_labels_is_embedded(ptbxl, tmp_path):
    store = tmp_path / "files.h5"
    assert main(["prepare", "--source", str(ptbxl), "--kind", "files", "--output", str(store)]) == 0
    found = embedded(tmp_path / "f.npz", "--backbone", "vit", "--sizes", SMALL, "--store", store)
    assert found["features"].shape == (80, 6)


def test_a_backbone_without_weights_has_the_same_random_ones_each_time_and_says_so(tiny_store, tmp_path, capsys):
    flags = ["--backbone", "vit", "--sizes", SMALL, "--store", tiny_store]
    one, two = (embedded(tmp_path / f"{number}.npz", *flags) for number in (1, 2))
    assert np.array_equal(one["features"], two["features"])
    assert "no --weights, so its random initialisation" in capsys.readouterr().err
    network = ViT(depth=1, dim=6, heads=2)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    loaded = embedded(tmp_path / "3.npz", *flags, "--weights", tmp_path / "weights.pt")
    assert not np.allclose(loaded["features"], one["features"])
    assert json.loads(str(loaded["meta"]))["weights_sha256"] == file_sha256(tmp_path / "weights.pt")


def test_several_stores_are_embedded_one_after_another(tiny_store, ptbxl, tmp_path):
    other = tmp_path / "other.h5"
    assert main(["prepare", "--source", str(ptbxl), "--output", str(other)]) == 0
    flags = ["--backbone", "vit", "--sizes", SMALL]
    both = embedded(tmp_path / "both.npz", *flags, "--store", tiny_store, other, "--batch_size", 33)
    each = [embedded(tmp_path / f"{one.stem}.npz", *flags, "--store", one)["features"] for one in (tiny_store, other)]
    np.testing.assert_allclose(both["features"], np.concatenate(each), atol=1e-6)
    assert both["store"].tolist() == [0] * 80 + [1] * 80


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--backbone", "ecgfounder"], 1, "Make the right one: ecg-lightning prepare"),
        ([], 2, "--run RUN or --backbone NAME, one of them"),
        (["--run", "r", "--backbone", "vit"], 2, "--run RUN or --backbone NAME, one of them"),
        (["--run", "r", "--weights", "w.pt"], 2, "--weights and --sizes belong to --backbone"),
        (["--backbone", "vit", "--checkpoint", "last"], 2, "--checkpoint belongs to --run"),
        (["--backbone", "vit", "--batch_size", "0"], 2, "--batch_size is 0"),
        (["--backbone", "vit", "--output", "f.csv"], 2, "features are written as .npz: --output f.npz"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_written(
    tiny_store, tmp_path, capsys, monkeypatch, flags, code, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "--store", str(tiny_store), "--output", "f.npz", *flags]) == code
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_file_is_replaced_only_when_asked(tiny_store, tmp_path, capsys):
    output = tmp_path / "f.npz"
    output.write_text("mine")
    flags = ["embed", "--backbone", "vit", "--sizes", SMALL, "--store", str(tiny_store), "--output", str(output)]
    assert main(flags) == 1
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert main([*flags, "--overwrite"]) == 0
    assert np.load(output)["features"].shape == (80, 6)

"""A run as one file: it says what the run says, to programs that know nothing but its metadata."""

import json
import sys

import numpy as np
import pandas
import pytest
import torch
from made_up_ptbxl import LEADS, wfdb
from safetensors import safe_open
from scipy.signal import butter, decimate, filtfilt, resample_poly
from tiny import of_lightning_cli
from trained_runs import FilteredNet, train_by_commands

from ecg_lightning.backbones import backbone_signal, load_weights
from ecg_lightning.chains import run_batch_chain
from ecg_lightning.cli import main
from ecg_lightning.export import files
from ecg_lightning.runs import NO_DEVICE, file_sha256

pytestmark = of_lightning_cli


def exported(run, output, *arguments, code=0):
    assert main(["export", "--run", str(run), "--output", str(output), *map(str, arguments)]) == code
    return output


def checkpoint_hash(run):
    return file_sha256(run / "checkpoints" / "finetune-best.ckpt")


@pytest.fixture
def runtime():
    pytest.importorskip("onnx", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    return pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture
def fast_table(ptbxl, tmp_path):
    """A made-up ECG of 10 s at 250 Hz as a csv in uV, its leads the other way round."""
    ecg = wfdb.rdrecord(str(ptbxl / "records100/00000/00001_lr")).p_signal
    fast = 1000 * resample_poly(ecg, 5, 2, axis=0)[:, ::-1]
    np.savetxt(tmp_path / "fast.csv", fast, delimiter=",", header=",".join(LEADS[::-1]), comments="", fmt="%.6f")
    return tmp_path / "fast.csv"


def ask_onnx(runtime, model, table, rate):
    """Probabilities by label of a csv in uV, by the file and its metadata alone."""
    session = runtime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map
    about = {name: json.loads(text[name]) for name in ("leads", "steps_before_window", "windows", "label_names")}
    columns = pandas.read_csv(table).rename(columns=str.upper)
    ecg = columns[[lead.upper() for lead in about["leads"]]].to_numpy().T / 1000
    record_rate = float(text["record_rate_hz"])
    assert text["other_rates"] == "scipy.signal.resample_poly, padtype='line'"
    ecg = resample_poly(ecg, int(record_rate), rate, axis=1, padtype="line")
    for step in about["steps_before_window"]:
        assert step["step"] == "bandpass"
        cut = [step["low"], step["high"]]
        ecg = filtfilt(*butter(step["order"], cut, btype="bandpass", fs=record_rate), ecg, axis=1)
    points, count = int(text["window_points"]), about["windows"]["count"]
    starts = np.linspace(0, ecg.shape[1] - points, count).round().astype(int)
    windows = np.stack([ecg[:, start : start + points] for start in starts]).astype("float32")
    each = session.run(["probabilities"], {"ecg": windows})[0]
    return dict(zip(about["label_names"], getattr(each, about["windows"]["aggregate"])(axis=0), strict=True))


def test_onnx_and_its_metadata_alone_give_the_probabilities_of_predict(
    runtime, filtered_run, ptbxl, fast_table, tmp_path
):
    model = exported(filtered_run, tmp_path / "m.onnx", "--records", ptbxl)
    flags = ["--sampling_rate", "250", "--unit", "uV", "--output", str(tmp_path / "p.csv")]
    assert main(["predict", "--run", str(filtered_run), "--records", str(fast_table), *flags]) == 0
    row = pandas.read_csv(tmp_path / "p.csv").iloc[0]
    answer = ask_onnx(runtime, model, fast_table, 250)
    assert [*answer] == [*row.index[1:6]]
    np.testing.assert_allclose([*answer.values()], row.iloc[1:6].to_numpy(float), atol=1e-5)


def test_onnx_says_what_it_is(runtime, plain_run, tmp_path):
    session = runtime.InferenceSession(str(exported(plain_run, tmp_path / "m.onnx")))
    about = session.get_modelmeta().custom_metadata_map
    assert about["checkpoint_sha256"] == checkpoint_hash(plain_run)
    assert about["note"] == NO_DEVICE
    assert json.loads(about["label_names"]) == ["CD", "HYP", "MI", "NORM", "STTC"]
    assert about["longest_record_seconds"] == "10.0"
    assert json.loads(about["steps_in_network"])[0]["step"] == "standardise"
    assert str(plain_run.parent) not in " ".join(about.values())


def test_a_step_that_onnx_cannot_hold_is_left_to_whoever_asks(runtime, ptbxl, tmp_path):
    run = train_by_commands(ptbxl, tmp_path, "trained_runs.StrungNet")
    session = runtime.InferenceSession(str(exported(run, tmp_path / "m.onnx")))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["steps_on_window"]) == [{"step": "decimate_across_leads", "factor": 2}]
    assert [step["step"] for step in json.loads(about["steps_in_network"])] == ["z_score"]
    record = ptbxl / "records100/00000/00001_lr"
    ecg = wfdb.rdrecord(str(record)).p_signal.T
    strung = decimate(ecg.reshape(1, -1), 2, zero_phase=True).reshape(1, 12, 500)
    answer = session.run(["probabilities"], {"ecg": strung.astype("float32")})[0][0]
    flags = ["--records", f"{record}.hea", "--output", str(tmp_path / "p.csv")]
    assert main(["predict", "--run", str(run), *flags]) == 0
    np.testing.assert_allclose(answer, pandas.read_csv(tmp_path / "p.csv").iloc[0, 1:6].to_numpy(float), atol=1e-5)


def test_a_network_that_onnx_cannot_hold_is_refused_by_name(runtime, ptbxl, tmp_path, capsys):
    run = train_by_commands(ptbxl, tmp_path, "trained_runs.BranchingNet")
    exported(run, tmp_path / "out" / "m.onnx", code=1)
    assert "backbone trained_runs.BranchingNet cannot be exported to ONNX" in capsys.readouterr().err
    assert not any((tmp_path / "out").iterdir())
    exported(run, tmp_path / "out" / "m.safetensors")


def test_without_the_extra_onnx_says_what_to_install(plain_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    exported(plain_run, tmp_path / "m.onnx", code=1)
    assert "pip install 'ecg-lightning[export]'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_safetensors_hold_the_weights_and_what_a_program_needs(filtered_run, ptbxl, tmp_path):
    path = exported(filtered_run, tmp_path / "m.safetensors", "--records", ptbxl)
    state = torch.load(filtered_run / "checkpoints" / "finetune-best.ckpt", weights_only=True)["state_dict"]
    with safe_open(path, "pt") as file:
        about = file.metadata()
        assert set(file.keys()) == {name for name in state if name.startswith(("backbone.", "head."))}
        assert all(torch.equal(file.get_tensor(name), state[name]) for name in file.keys())  # noqa: SIM118
    assert about["checkpoint_sha256"] == checkpoint_hash(filtered_run)
    assert json.loads(about["steps_before_window"])[0]["step"] == "bandpass"
    assert load_weights(FilteredNet(), path).dropped == ("head.bias", "head.weight")
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_file_that_says_something_else_is_refused_with_the_difference(plain_run, tmp_path, capsys, monkeypatch):
    true_weights = files._weights

    def other_weights(trained):
        return {name: tensor + 0.1 * (name == "head.bias") for name, tensor in true_weights(trained).items()}

    monkeypatch.setattr(files, "_weights", other_weights)
    exported(plain_run, tmp_path / "m.safetensors", code=1)
    assert "would give other probabilities than the run, by up to 2." in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_card_tells_labels_figures_hash_and_that_it_is_no_device(plain_run, tmp_path):
    path = exported(plain_run, tmp_path / "m.safetensors")
    card = (tmp_path / "m.safetensors.md").read_text()
    metrics = json.loads((plain_run / "metrics_test.json").read_text())
    for part in (NO_DEVICE, "CD, HYP, MI, NORM, STTC", checkpoint_hash(plain_run), file_sha256(path)):
        assert part in card
    assert f"**test**: macro AUROC {metrics['auroc']:.4f}" in card
    assert "linear probe, 1 epochs; fine-tuning with stochastic depth 0.1, 1 epochs" in card


def test_a_run_without_its_store_asks_for_records_to_compare_on(filtered_run, ptbxl, tmp_path, capsys):
    exported(filtered_run, tmp_path / "m.safetensors", code=1)
    assert "name some with --records FOLDER" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    exported(filtered_run, tmp_path / "m.safetensors", "--records", ptbxl)
    assert "on 32 records of ptbxl" in capsys.readouterr().out


def test_thresholds_and_temperature_of_this_checkpoint_are_handed_on(plain_run, tmp_path, capsys):
    of = {"checkpoint_sha256": checkpoint_hash(plain_run)}
    chosen, calibration = plain_run / "thresholds.json", plain_run / "calibration.json"
    try:
        chosen.write_text(json.dumps({"thresholds": {"CD": 0.25}, **of}))
        calibration.write_text(json.dumps({"temperature": 1.5, "checkpoint_sha256": "another"}))
        with safe_open(exported(plain_run, tmp_path / "m.safetensors"), "pt") as file:
            about = file.metadata()
        assert json.loads(about["thresholds"]) == {"CD": 0.25}
        assert "temperature" not in about
        assert "calibration.json is of another checkpoint" in capsys.readouterr().err
        chosen.write_text("{}")
        exported(plain_run, tmp_path / "other.safetensors", code=1)
        assert "make it anew with `ecg-lightning evaluate`" in capsys.readouterr().err
    finally:
        chosen.unlink()
        calibration.unlink()


def test_files_are_replaced_only_when_asked(plain_run, tmp_path, capsys):
    (tmp_path / "m.safetensors.md").write_text("mine")
    exported(plain_run, tmp_path / "m.safetensors", code=1)
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]
    exported(plain_run, tmp_path / "m.safetensors", "--overwrite")
    exported(plain_run, tmp_path / "m.pt", code=2)
    assert "exported as .onnx or .safetensors: --output m.onnx" in capsys.readouterr().err


def test_onnx_holds_filters_of_long_windows_for_any_number_of_them(runtime, tmp_path):
    """Which are no single matrix there (`filter_products.py`); of st_mem, whose whole network takes minutes."""
    chain = backbone_signal("st_mem_small").batch_chain

    class Filters(torch.nn.Module):
        def forward(self, ecg):
            return run_batch_chain(chain, ecg)

    ecg = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 12, 2250))).float()
    expected = Filters()(ecg).numpy()  # and what they keep is made, as `write_onnx` wants it
    with files._quiet_exporter():
        program = torch.onnx.export(
            Filters(), (ecg[:2],), input_names=["ecg"], output_names=["filtered"], dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=files.OPSET,
        )  # fmt: skip
    written = program.model_proto.SerializeToString()
    assert len(written) < 2250**2 * 4 / 3
    session = runtime.InferenceSession(written, providers=["CPUExecutionProvider"])
    for number in (1, 3):
        got = session.run(["filtered"], {"ecg": ecg[:number].numpy()})[0]
        np.testing.assert_allclose(got, expected[:number], rtol=0, atol=2e-5)

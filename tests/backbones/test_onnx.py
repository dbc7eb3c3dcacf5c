"""Every registered backbone, made small, as an ONNX file."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_contract import CASES, RECORDS, build

from ecg_lightning.classifier import ECGClassifier
from ecg_lightning.export.files import write_onnx
from ecg_lightning.export.network import ProbabilityNetwork

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_computes_what_the_backbone_computes_for_any_number_of_records(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra `export` is not installed")
    backbone = build(name).eval()
    trained = SimpleNamespace(classifier=ECGClassifier(backbone, ("MI", "NORM")).eval(), signal=backbone.signal)
    generator = torch.Generator().manual_seed(1)
    windows = torch.randn(RECORDS, len(backbone.signal.leads), backbone.signal.window_points, generator=generator)
    with torch.no_grad():
        expected = ProbabilityNetwork(trained)(windows).numpy()
    asked = write_onnx(trained, {}, windows, tmp_path / "model.onnx")
    np.testing.assert_allclose(asked(windows), expected, atol=1e-6)
    np.testing.assert_allclose(asked(windows[:1]), expected[:1], atol=1e-6)

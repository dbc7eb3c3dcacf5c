"""What a command makes its user wait for: by what is imported, in fresh processes; times are in benchmarks/start.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trained_runs import SHORT

WATCH = """
import builtins, json, sys
from pathlib import Path

importers, plain = {}, builtins.__import__

def watched(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0:
        importers.setdefault(name.split(".")[0], set()).add((globals or {}).get("__name__", ""))
    return plain(name, globals, locals, fromlist, level)

builtins.__import__ = watched
from ecg_lightning.cli import main
code = main(sys.argv[2:])
found = {name: sorted(importers.get(name, ())) for name in sys.modules if "." not in name}
Path(sys.argv[1]).write_text(json.dumps([code, found]))
"""


def imported(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """Each package that a command brought into a fresh process, and the modules that asked for it."""
    report = folder / "imported.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", WATCH, str(report), *arguments], check=True, capture_output=True, env=environment
    )
    code, found = json.loads(report.read_text())
    assert code == 0
    return found


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_help_waits_for_nothing_large(tmp_path, flag):
    found = imported(tmp_path, flag)
    assert "ecg_lightning" in found
    assert {"torch", "lightning", "matplotlib", "numpy", "scipy", "h5py", "jsonargparse"}.isdisjoint(found)


@pytest.mark.parametrize("command", ["download", "prepare", "inspect", "predict", "embed", "export"])
def test_the_help_of_a_command_does_not_wait_for_torch(tmp_path, command):
    found = imported(tmp_path, command, "--help")
    assert "jsonargparse" in found
    assert {"torch", "lightning", "matplotlib", "scipy"}.isdisjoint(found)


def test_a_fit_imports_neither_tracker_nor_plots_nor_readers_of_sources(tiny_store, tmp_path):
    found = imported(
        tmp_path, "fit", "--model.backbone", "vit", "--model.backbone.depth", "1", "--model.backbone.dim", "12",
        "--data.store", str(tiny_store), "--run", str(tmp_path / "run"), *SHORT,
    )  # fmt: skip
    assert {"torch", "lightning", "h5py"} <= found.keys()
    assert {"wandb", "wfdb", "pandas", "sklearn", "onnx", "onnxruntime", "requests", "pydicom"}.isdisjoint(found)
    # torchmetrics, and with it lightning, imports matplotlib for itself; nothing of ours does.
    assert not [module for module in found.get("matplotlib", []) if module.startswith("ecg_lightning")]

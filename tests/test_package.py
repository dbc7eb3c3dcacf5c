"""The wheel, in an environment that has it but not the checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import ecg_lightning

CHECKOUT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory):
    """The scripts of an environment with the wheel; its dependencies are those of the environment that tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    # A path in a .pth file is appended, and its own .pth files, the editable install's among them, are not read.
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return folder / "bin"


@pytest.fixture
def ecg_lightning_command(bin_folder, tmp_path):
    """Runs the installed command in an empty folder, which the test gets as ``.folder``."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ECG_SHARED")}

    def run(*arguments, program="ecg-lightning"):
        command = [str(bin_folder / program), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = tmp_path
    return run


def test_the_wheel_holds_configs_excerpt_licences_and_types(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    configs = CHECKOUT / "configs"
    shipped = {path.relative_to(configs).as_posix() for path in configs.rglob("*") if path.is_file()}
    assert {"cluster/slurm.sbatch", "cluster/skypilot.yaml"} < shipped
    assert {f"ecg_lightning/configs/{name}" for name in shipped} <= set(names)
    demo = ("ptbxl_excerpt.tar.xz", "LICENSE-PTB-XL.txt", "CITATION-PTB-XL.txt", "backbone.safetensors", "backbone.md")
    assert {"ecg_lightning/py.typed", *(f"ecg_lightning/demo/{name}" for name in demo)} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or "__pycache__" in name]


def test_the_package_is_imported_from_the_wheel(ecg_lightning_command):
    code = "import ecg_lightning; print(ecg_lightning.__file__)"
    place = Path(ecg_lightning_command("-c", code, program="python").strip())
    assert "site-packages" in place.parts
    assert not place.is_relative_to(CHECKOUT)


def test_the_command_says_its_version(ecg_lightning_command):
    assert ecg_lightning_command("--version").strip() == f"ecg-lightning {ecg_lightning.__version__}"


def test_shipped_configs_are_found_from_an_empty_folder(ecg_lightning_command):
    flags = ("--data.store", "none.h5", "--run", "run", "--print_config")
    printed = ecg_lightning_command("fit", "--config", "backbone/vit", "--config", "recipe/default", *flags)
    assert "drop_path_rate: 0.3" in printed
    assert not list(ecg_lightning_command.folder.iterdir())


def test_the_demo_runs_from_the_wheel(ecg_lightning_command):
    shown = ecg_lightning_command("demo", "--probe_epochs", "1", "--fine_tune_epochs", "1")
    assert "test (fold 9)" in shown
    assert (ecg_lightning_command.folder / "demo_output" / "run-1" / "method" / "demo_picture.png").is_file()

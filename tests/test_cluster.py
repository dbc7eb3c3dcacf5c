"""The files for clusters: found, well formed, and their command lines are those of our own parser."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import of_lightning_cli

from ecg_lightning.cli import main
from ecg_lightning.config_names import config_folder, find_config, shipped_configs
from ecg_lightning.errors import UsageError

pytestmark = of_lightning_cli

SLURM, SKYPILOT = (config_folder() / "cluster" / name for name in ("slurm.sbatch", "skypilot.yaml"))
OF_THE_CLUSTER = {
    "STORE": "store.h5", "RUN": "run", "CONFIGS": "--config backbone/vit", "FLAGS": "--trainer.accelerator cpu",
    "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "0",
    "SKYPILOT_NUM_GPUS_PER_NODE": "4", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
}  # fmt: skip
"""What the shell finds in its environment there."""


def words_behind(script: str, command: str, folder: Path) -> list[str]:
    """The arguments that a script gives to a command, as bash expands them; nothing else in it is run."""
    line = next(line for line in script.replace("\\\n", " ").splitlines() if command in line).removesuffix(" &")
    arguments = line.partition(command)[2]
    given = [f"{name}={shlex.quote(value)}" for name, value in OF_THE_CLUSTER.items()]
    shown = subprocess.run(
        ["bash", "-c", f"{'; '.join(given)}; printf '%s\\n' {arguments}"],
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    return shown.stdout.splitlines()


def config_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    """The config that `fit` would have."""
    assert main(["fit", *arguments, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("path", [SLURM, SKYPILOT], ids=["slurm", "skypilot"])
def test_the_command_line_of_a_cluster_file_is_one_of_fit(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = yaml.safe_load(path.read_text())["run"] if path == SKYPILOT else path.read_text()
    command = "-m -- ecg_lightning fit" if path == SKYPILOT else "ecg-lightning fit"
    arguments = words_behind(script, command, tmp_path)
    assert arguments[arguments.index("--resume") + 1] == "auto"
    trainer = config_of(arguments, capsys)["trainer"]
    assert (trainer["num_nodes"], trainer["devices"], trainer["strategy"]) == (2, "4", "ddp")
    assert trainer["accelerator"] == "cpu"  # FLAGS come last


def test_the_config_of_one_node_is_merged_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config", "cluster/one_node", "--config", "backbone/xresnet1d101", "--config", "recipe/default"]
    trainer = config_of([*given, "--data.store", "store.h5", "--run", "run"], capsys)["trainer"]
    assert (trainer["strategy"], trainer["precision"], trainer["sync_batchnorm"]) == ("ddp", "bf16-mixed", True)
    assert trainer["gradient_clip_val"] == 1.0


def test_files_for_launchers_are_no_configs_and_say_how_they_are_launched() -> None:
    assert [name for name in shipped_configs() if name.startswith("cluster/")] == ["cluster/one_node"]
    for name, path in (("cluster/slurm", SLURM), ("cluster/slurm.sbatch", SLURM), ("cluster/skypilot", SKYPILOT)):
        launcher = "sbatch" if path == SLURM else "sky jobs launch"
        with pytest.raises(UsageError, match=re.escape(f"{launcher} {path}")):
            find_config(name)


def test_the_slurm_script_is_bash_and_asks_for_what_it_needs() -> None:
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    asked = [line.removeprefix("#SBATCH ") for line in SLURM.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@300"} <= {*asked}
    assert "trap requeue USR1" in SLURM.read_text()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_slurm_script_passes_shellcheck() -> None:
    done = subprocess.run(["shellcheck", str(SLURM)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_skypilot_task_recovers_spots_from_mounted_storage() -> None:
    task = yaml.safe_load(SKYPILOT.read_text())
    assert {"name", "resources", "num_nodes", "envs", "file_mounts", "setup", "run"} == {*task}
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["job_recovery"]["strategy"]
    assert task["file_mounts"]["/ecg"]["mode"] == "MOUNT_CACHED"
    assert '--run "/ecg/runs/$RUN" --resume auto' in task["run"]
    subprocess.run(["bash", "-n"], input=task["run"], text=True, check=True)


def test_the_skypilot_task_passes_its_own_parser() -> None:
    """With SkyPilot in this environment, or in the one whose python SKYPILOT_PYTHON names: it pins much."""

    python = os.environ.get("SKYPILOT_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import sky"], capture_output=True).returncode != 0:
        pytest.skip("SkyPilot is not installed (SKYPILOT_PYTHON names a python that has it)")
    code = "import sys, sky; [one] = sky.Task.from_yaml(sys.argv[1]).resources; print(one.use_spot, one.accelerators)"
    done = subprocess.run([python, "-c", code, str(SKYPILOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True {'L4': 4}"

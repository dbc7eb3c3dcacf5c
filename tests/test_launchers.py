"""Runs over nodes: two agents of torchrun on loopback, and the shipped script under a SLURM of one machine."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm
from processes import differences, environment, run_cli
from test_strategies import DOUBLE, FLAGS
from test_watch import processes_of

from ecg_lightning.backbones import backbone_signal
from ecg_lightning.config_names import config_folder
from ecg_lightning.data.prepare import prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SCRIPT = config_folder() / "cluster" / "slurm.sbatch"


@pytest.fixture(scope="session")
def store(make_ptbxl: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(make_ptbxl(num_records=38), path, backbone_signal("vit"), workers=1, progress=False)
    return path


# --- torchrun ---


def test_two_agents_of_torchrun_train_what_two_processes_of_one_node_do(store: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [*FLAGS, *DOUBLE, "--data.store", str(store), "--trainer.strategy", "ddp"]
    of_nodes = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--run", str(tmp_path / "two")]
    agents = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank)),
                *("--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port), "-m", "--"),
                *("ecg_lightning", "fit", *flags, *of_nodes),
            ],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(said)
    one = run_cli("fit", *flags, "--trainer.devices", "2", "--run", str(tmp_path / "one"))
    assert one.returncode == 0, one.stdout
    assert differences(tmp_path / "one", tmp_path / "two") == []


# --- SLURM ---


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Slurm]:
    if why := slurm.missing():
        pytest.skip(why)
    with slurm.Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def test_the_slurm_script_is_requeued_on_sigusr1_and_goes_on(cluster: slurm.Slurm, store: Path, tmp_path: Path) -> None:
    """The shipped file itself, with two tasks in place of two nodes of four GPUs, signalled as --signal=B:USR1 does."""
    run, programs = tmp_path / "run", tmp_path / "bin"
    programs.mkdir()
    script = f'#!/bin/sh\nexec {sys.executable} -m ecg_lightning "$@"\n'
    (programs / "ecg-lightning").write_text(script)
    (programs / "ecg-lightning").chmod(0o755)
    on_cpu = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.sync_batchnorm", "false"]
    epochs = ["--post_training.fine_tune.epochs", "60"]
    given = {name: value for name, value in environment().items() if name in ("OMP_NUM_THREADS", "PYTHONPATH")}
    given |= {"PATH": f"{programs}:{cluster.environment['PATH']}", "STORE": str(store), "RUN": str(run)}
    flags = [flag.replace(" ", "") for flag in [*FLAGS, *epochs, *on_cpu]]
    small = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"]
    submitted = cluster.call(
        "sbatch", *small, str(SCRIPT), **given, CONFIGS="--config recipe/default", FLAGS=" ".join(flags)
    )
    job = submitted.split()[-1]
    log = cluster.folder / f"ecg-lightning-{job}.log"
    wait_until(lambda: log.exists() and "fine-tuning starts" in log.read_text(), log)
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: cluster.state(job) == "PENDING", log)
    wait_until(lambda: processes_of(run) == [], log)
    assert json.loads((run / "state.json").read_text())["state"] == "interrupted"
    cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM itself waits for two minutes
    wait_until(lambda: cluster.state(job) == "COMPLETED", log)
    assert json.loads((run / "state.json").read_text())["state"] == "complete"
    assert f"job {job} is requeued" in log.read_text()
    assert "going on from" in log.read_text()
    assert not [*run.glob("hpc_ckpt*")]  # of Lightning's own requeue


def wait_until(holds: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < until, log.read_text() if log.exists() else "the job did not start"
        time.sleep(0.5)

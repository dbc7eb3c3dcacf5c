"""What a tracked run writes and would send: no key, no token, no id of a patient; every byte is read."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from made_up_ptbxl import read_rows, write_table
from processes import run_cli
from trained_runs import SHORT

from ecg_lightning.cli import main

WANDB_KEY = "a1b2c3d4" * 5
NETRC_KEY = "5ec2e7f0" * 5
HF_TOKEN = "hf_TotallyRecognisableTokenOfNobody123"
OTHER = "swordfish-of-the-environment"
SLURM_TOKEN = "eyJhbGciOiJIUzI1NiJ9.recognisable.token"
SECRETS = {
    **{"WANDB_API_KEY": WANDB_KEY, "netrc": NETRC_KEY, "HF_TOKEN": HF_TOKEN, "DATABASE_PASSWORD": OTHER},
    "SLURM_JWT": SLURM_TOKEN,  # of all variables that begin so, Weights & Biases takes note by itself
}
REPORT = "report-of-a-patient-that-nobody-may-read"
FIRST_ECG, FIRST_PATIENT = 7_340_001_000, 8_250_001_000
"""Ids that cannot be met by chance, neither as text nor as eight bytes."""


@pytest.fixture(scope="module")
def tracked(make_ptbxl, tmp_path_factory):
    """A run of the real command line with an offline tracker, in a process whose environment is full of secrets."""
    folder = tmp_path_factory.mktemp("tracked")
    ptbxl = make_ptbxl(num_records=80)
    rows = read_rows(ptbxl)
    for number, row in enumerate(rows):
        row["ecg_id"], row["report"] = str(FIRST_ECG + number), REPORT
        row["patient_id"] = str(FIRST_PATIENT + int(float(row["patient_id"])))
    write_table(ptbxl, rows)
    assert main(["prepare", "--source", str(ptbxl), "--output", str(folder / "store.h5"), "--backbone", "vit"]) == 0
    (folder / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {NETRC_KEY}\n")
    (folder / "netrc").chmod(0o600)
    environment = {
        **{"WANDB_MODE": "offline", "WANDB_API_KEY": WANDB_KEY, "NETRC": str(folder / "netrc")},
        **{"HF_TOKEN": HF_TOKEN, "HUGGING_FACE_HUB_TOKEN": HF_TOKEN, "DATABASE_PASSWORD": OTHER},
        **{
            "HOME": str(folder / "home"),
            "WANDB_CONFIG_DIR": str(folder / "home"),
            "WANDB_CACHE_DIR": str(folder / "home"),
        },
    }
    (folder / "home").mkdir()
    flags = [
        *("--config", "logger/wandb", "--model.backbone", "vit", "--model.backbone.depth", "1"),
        *("--model.backbone.dim", "6", "--data.store", str(folder / "store.h5"), *SHORT),
    ]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        for command in (["fit", *flags], ["test"]):
            ended = run_cli(*command, "--run", str(folder / "run"))
            assert ended.returncode == 0, ended.stdout
    return folder / "run"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records_of(path: Path) -> list[bytes]:
    """The records of an offline file, which is laid out as LevelDB's log behind seven bytes."""
    content, parts, found = path.read_bytes(), [], []
    assert content[:4] == b":W&B"
    place = 7
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(b"".join(parts))
            parts = []
    return found


def sent(run: Path) -> list:
    from wandb.proto import wandb_internal_pb2

    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    records = []
    for content in records_of(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        records.append(record)
    return records


@pytest.mark.slow
def test_no_key_and_no_token_is_in_any_byte_of_the_run_folder(tracked):
    files = files_of(tracked)
    assert {"config.yaml", "environment.json", "log.txt", "metrics.csv"} <= files.keys()
    assert any(name.endswith(".wandb") for name in files)
    found = [(name, which) for name, content in files.items() for which, s in SECRETS.items() if s.encode() in content]
    assert found == []


@pytest.mark.slow
def test_the_environment_is_recorded_by_a_list_of_names_and_no_variable_is_among_them(tracked):
    environment = json.loads((tracked / "environment.json").read_text())
    assert sorted(environment) == [
        "command", "devices", "ecg_lightning", "note", "packages", "platform", "pretrained_on", "python",
        "record_seconds", "store", "store_sha256", "threads", "weights", "weights_sha256",
    ]  # fmt: skip


@pytest.mark.slow
def test_no_id_and_no_report_is_in_any_byte_that_would_be_sent(tracked):
    files = files_of(tracked / "wandb")
    with np.load(tracked / "predictions" / "test.npz") as predictions:
        ids = [*predictions["record_id"].tolist(), *predictions["patient_id"].tolist()]
    assert min(ids) >= FIRST_ECG
    forms = [form for one in ids for form in (str(one).encode(), struct.pack("<q", one), struct.pack("<d", one))]
    found = [name for name, content in files.items() for form in [*forms, REPORT.encode()] if form in content]
    assert found == []
    assert any(b"superdiagnostic" in content for content in files.values())  # the bytes are not packed


@pytest.mark.slow
def test_the_store_has_no_report(tracked):
    assert REPORT.encode() not in (tracked.parent / "store.h5").read_bytes()


@pytest.mark.slow
def test_what_a_run_sends_is_config_figures_and_a_table_of_labels(tracked):
    records = sent(tracked)
    figures = {item.key or item.nested_key[0] for record in records for item in record.history.item}
    files = {item.path.partition("labels")[0] for record in records for item in record.files.files}
    assert figures == {
        *("_runtime", "_step", "_timestamp", "epoch", "trainer/global_step"),
        *("val/auroc", "val/auprc", "val/loss", "val/num_labels", "val/labels"),
    }
    assert files <= {"media/table/val/", "requirements.txt", "wandb-metadata.json"}
    kinds = {record.WhichOneof("record_type") for record in records}
    assert kinds <= {
        *("header", "run", "config", "metric", "history", "summary", "files", "artifact", "exit"),
        *("environment", "stats", "telemetry", "request", "final", "footer", "preempting", None),
    }
    assert not kinds & {"output", "output_raw"}  # what is printed stays here


@pytest.mark.slow
def test_the_table_of_labels_holds_labels_and_counts(tracked):
    (path,) = tracked.glob("wandb/offline-run-*/files/media/table/val/labels_*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["label", "positives", "auroc", "auprc"]
    assert [row[0] for row in table["data"]] == ["CD", "HYP", "MI", "NORM", "STTC"]


@pytest.mark.slow
def test_what_weights_and_biases_says_of_the_machine_is_no_variable_of_its_environment(tracked):
    said = {field.name for record in sent(tracked) for field, _ in record.environment.ListFields()}
    assert said <= {
        *("os", "python", "started_at", "args", "program", "code_path", "code_path_local", "git", "email", "root"),
        *("host", "username", "executable", "cpu_count", "cpu_count_logical", "gpu_type", "gpu_count", "gpu_nvidia"),
        *("disk", "memory", "cpu", "cuda_version", "slurm", "writer_id"),
    }

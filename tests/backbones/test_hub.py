import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from tiny import SIZES, of_lightning, tiny_vit

from ecg_lightning.backbones import create_backbone, load_weights
from ecg_lightning.backbones.provenance import Origins, Pretraining, origins_of
from ecg_lightning.cli import main
from ecg_lightning.errors import InputError

pytestmark = [
    *of_lightning,
    # Lightning 2.6 calls jsonargparse by names that 4.49 deprecates; we stay below 5.
    pytest.mark.filterwarnings("ignore:[\\s\\S]*(deprecated in v4|JsonargparseDeprecationWarning)"),
]
NAME = "hf://somebody/networks/vit/weights.pth"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """A stand-in that answers as the hub does: one file of one repository, at ``main`` and at one commit."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.asked = content, list[str]()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, *, with_content: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        places = {f"/somebody/networks/resolve/{revision}/vit/weights.pth" for revision in ("main", COMMIT)}
        if self.path not in places:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if "/somebody/networks/" in self.path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.content
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def content(tmp_path) -> bytes:
    torch.save({"model": tiny_vit().state_dict()}, tmp_path / "weights.pth")
    return (tmp_path / "weights.pth").read_bytes()


@pytest.fixture
def hub(content, tmp_path, monkeypatch) -> Iterator[Hub]:
    server = Hub(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    # What HF_ENDPOINT and HF_HOME set, had they been there when the client was imported.
    address = f"http://127.0.0.1:{server.server_port}"
    form = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", form)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def other_vit() -> torch.nn.Module:
    torch.manual_seed(5)
    return create_backbone("vit", **SIZES)


def test_weights_load_by_their_name_on_the_hub(hub, content):
    backbone = other_vit()
    report = load_weights(backbone, NAME)
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert all(torch.equal(tensor, backbone.state_dict()[name]) for name, tensor in tiny_vit().state_dict().items())


def test_what_weights_of_the_hub_have_seen_is_read_as_that_of_a_file(hub, tmp_path):
    seen = Origins(here=(Pretraining("PTB-XL", (1, 2), 8, 8, 1, "words", ("hash",)),))
    torch.save({"model": tiny_vit().state_dict(), "trained_on": seen.to_json()}, tmp_path / "seen.pth")
    hub.content = (tmp_path / "seen.pth").read_bytes()
    assert origins_of(NAME) == seen


def test_a_revision_stands_behind_the_repository(hub):
    load_weights(other_vit(), f"hf://somebody/networks@{COMMIT}/vit/weights.pth")
    assert all(f"/resolve/{COMMIT}/" in line for line in hub.asked)


def test_a_file_that_is_there_already_loads_without_asking_the_hub(hub):
    load_weights(other_vit(), NAME)
    asked = len(hub.asked)
    load_weights(other_vit(), NAME)
    assert len(hub.asked) == asked


def test_a_download_of_another_hash_is_refused(hub):
    with pytest.raises(InputError, match=r"has sha256 [0-9a-f]{64}, not 0{64}: it is another file"):
        load_weights(other_vit(), NAME, sha256="0" * 64)


@pytest.mark.parametrize(
    "name",
    ["hf://somebody/networks/none.pth", "hf://somebody/else/vit/weights.pth", "hf://some body/net--x/weights.pth"],
)
def test_a_file_or_repository_that_is_not_there_is_refused_with_the_ways_out(hub, name):
    with pytest.raises(InputError) as raised:
        load_weights(other_vit(), name)
    for words in (name, "cannot be had", "check owner, repository and file", "hf auth login", "give its path"):
        assert words in str(raised.value)


def test_a_machine_without_a_network_is_told_the_way_out(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else the client tries for 23 s
    with pytest.raises(InputError, match=r"cannot be had \(.*or download the file and give its path"):
        load_weights(other_vit(), NAME)


@pytest.mark.parametrize("name", ["hf://", "hf://weights.pth", "hf://somebody/networks", "hf://somebody/networks/"])
def test_a_name_without_owner_repository_or_file_is_refused_with_the_form(name):
    with pytest.raises(InputError, match="names no file on the hub: write hf://owner/repository/file"):
        load_weights(other_vit(), name)


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'ecg-lightning\[hub\]'"):
        load_weights(other_vit(), NAME)


# --- through the command line, into the run folder ---


def fit(store: Path, run: Path, weights: str, *flags: str) -> int:
    sizes = [f"--model.backbone.{name}={json.dumps(size)}" for name, size in SIZES.items()]
    short = ["--post_training.probe.epochs=1", "--post_training.fine_tune.epochs=0", "--data.batch_size=32"]
    quiet = ["--trainer.enable_progress_bar=false", "--data.task=superdiagnostic"]
    given = ["--model.backbone=vit", *sizes, "--data.store", str(store), "--run", str(run), "--model.weights", weights]
    return main(["fit", *given, *short, *quiet, *flags])


def test_a_run_keeps_the_name_and_the_hash_of_its_weights(hub, content, tiny_store, tmp_path):
    run = tmp_path / "run"
    assert fit(tiny_store, run, NAME) == 0
    digest = hashlib.sha256(content).hexdigest()
    config, environment = yaml.safe_load((run / "config.yaml").read_text()), (run / "environment.json").read_text()
    for place in (config["model"], json.loads(environment)):
        assert (place["weights"], place["weights_sha256"]) == (NAME, digest)
    assert f"(sha256 {digest[:12]}): 30 tensors loaded" in (run / "log.txt").read_text()


def test_a_file_of_ones_own_is_kept_with_its_whole_path_and_hash(content, tiny_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(tiny_store, tmp_path / "run", "weights.pth") == 0
    model = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert model["weights"] == str(tmp_path / "weights.pth")
    assert model["weights_sha256"] == hashlib.sha256(content).hexdigest()


def test_weights_of_another_hash_leave_no_run(hub, tiny_store, tmp_path, capsys):
    assert fit(tiny_store, tmp_path / "run", NAME, f"--model.weights_sha256={'0' * 64}") == 1
    assert "it is another file or a damaged one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_the_file_that_it_started_from(content, tiny_store, tmp_path):
    run, weights = tmp_path / "run", tmp_path / "weights.pth"
    assert fit(tiny_store, run, str(weights), "--trainer.max_steps=1") == 1
    digest = hashlib.sha256(content).hexdigest()
    weights.unlink()
    assert fit(tiny_store, run, str(weights), "--trainer.max_steps=-1", "--resume=auto") == 0
    assert json.loads((run / "environment.json").read_text())["weights_sha256"] == digest

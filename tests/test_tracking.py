import csv
import logging

import pytest
import torch

from ecg_lightning.metrics import Scores
from ecg_lightning.tracking import MetricsFile, WandbTracker

FAKE_KEY = "0123456789abcdef" * 2 + "deadbeef"


def rows_of(path):
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def written(path, *figures):
    file = MetricsFile(path)
    for step, values in figures:
        file.log_metrics(values, step)
    file.save()
    return file


def test_a_row_holds_the_figures_of_a_step(path):
    written(path, (0, {"epoch": 0, "train/loss": 0.5}), (9, {"epoch": 0, "train/loss": 0.25}))
    assert rows_of(path) == [
        {"step": "0", "epoch": "0", "train/loss": "0.5"},
        {"step": "9", "epoch": "0", "train/loss": "0.25"},
    ]


def test_figures_of_one_step_share_its_row(path):
    written(path, (3, {"epoch": 0, "train/loss": 0.5}), (3, {"val/auroc": 0.75}))
    assert rows_of(path) == [{"step": "3", "epoch": "0", "train/loss": "0.5", "val/auroc": "0.75"}]


def test_a_figure_that_comes_later_gets_a_column_of_its_own(path):
    written(path, (0, {"train/loss": 0.5}), (1, {"val/auroc": 0.75}))
    assert path.read_text().splitlines() == ["step,epoch,train/loss,val/auroc", "0,,0.5,", "1,,,0.75"]


def test_a_figure_is_kept_to_the_last_bit(path):
    value = float(torch.rand((), dtype=torch.float64)) / 3
    written(path, (0, {"train/loss": value}))
    assert float(rows_of(path)[0]["train/loss"]) == value


def test_the_file_is_not_written_behind_every_row_but_whenever_it_must_be(path):
    file = written(path, (0, {"train/loss": 0.5}))
    for step in (1, 2):
        file.log_metrics({"train/loss": 0.4}, step)
        file.save()
    assert len(rows_of(path)) == 1
    file.write()
    assert len(rows_of(path)) == 3
    file.log_metrics({"train/loss": 0.25}, 2)
    file.write()
    assert rows_of(path)[2]["train/loss"] == "0.25"
    file.log_metrics({"train/loss": 0.3}, 3)
    file.finalize("success")
    assert len(rows_of(path)) == 4


def test_a_resumed_run_goes_on_in_the_same_file(path):
    written(path, (0, {"train/loss": 0.5}))
    written(path, (1, {"train/loss": 0.4}))
    assert [row["step"] for row in rows_of(path)] == ["0", "1"]


def test_what_the_resume_will_log_again_is_taken_out(path):
    written(path, *[(step, {"train/loss": 0.5}) for step in range(5)])
    file = MetricsFile(path)
    file.drop_after(3)
    file.save()
    assert [row["step"] for row in rows_of(path)] == ["0", "1", "2"]


def test_a_file_that_was_reloaded_and_written_again_is_the_same(path):
    written(path, (0, {"train/loss": 0.125, "epoch": 0}), (1, {"val/auroc": float("nan")}))
    before = path.read_text()
    file = MetricsFile(path)
    file.drop_after(2)
    file.save()
    assert path.read_text() == before


@pytest.mark.parametrize("torn", ["1,0", "1,0,0.4", "1,0,0.4,7\n2,0,0.3\n", "one,0,0.4\n", "\n"])
def test_rows_are_read_up_to_the_first_that_is_not_whole(path, torn):
    """A number that was cut looks like one, so that a line counts with its end alone."""
    path.write_text("step,epoch,train/loss\n0,0,0.5\n" + torn)
    assert MetricsFile(path).rows == [{"step": "0", "epoch": "0", "train/loss": "0.5"}]


def test_nothing_new_is_nothing_written(path):
    written(path)
    assert not path.exists()


def test_the_end_of_a_run_writes_what_is_left(path):
    file = MetricsFile(path)
    file.log_metrics({"train/loss": 0.5}, 0)
    file.finalize("success")
    assert len(rows_of(path)) == 1


# --- Weights & Biases, the real package, offline ---


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """A machine on which nobody has logged in."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home"))


@pytest.fixture
def run_folder(tmp_path):
    return tmp_path / "run"


def test_one_run_folder_keeps_one_run_id(no_key, run_folder):
    ids = [WandbTracker(folder=str(run_folder)).version for _ in range(2)]
    assert ids[0] == ids[1] == (run_folder / "wandb_run_id").read_text()
    assert WandbTracker(folder=str(run_folder.with_name("other"))).version != ids[0]


def test_without_a_key_it_tracks_offline_and_says_so(no_key, run_folder, caplog):
    with caplog.at_level(logging.INFO, "ecg_lightning"):
        tracker = WandbTracker(folder=str(run_folder))
    assert tracker._offline
    assert f"tracking offline in {run_folder}/wandb; upload with `wandb sync`" in caplog.text


def test_with_a_key_it_tracks_online(no_key, run_folder, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", FAKE_KEY)
    assert not WandbTracker(folder=str(run_folder))._offline


@pytest.mark.parametrize(("mode", "offline"), [("offline", True), ("online", False)])
def test_the_mode_of_the_environment_decides_before_the_key(no_key, run_folder, monkeypatch, mode, offline):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert WandbTracker(folder=str(run_folder))._offline is offline


@pytest.mark.parametrize("key", [None, FAKE_KEY])
def test_an_offline_run_logs_its_config_and_keeps_the_key_to_itself(no_key, run_folder, monkeypatch, key):
    import wandb

    if key:
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_API_KEY", key)
    tracker = WandbTracker(folder=str(run_folder))
    tracker.log_hyperparams({"data": {"task": "all"}})
    tracker.log_metrics({"val/auroc": 0.75}, 3)
    scores = Scores(("CD",), torch.arange(2), torch.ones(2, 1), torch.ones(2, 1), 0.0, {"CD": 0.75}, {"CD": 0.5})
    tracker.log_label_table("val", scores)
    assert tracker.experiment.id == (run_folder / "wandb_run_id").read_text()
    assert dict(tracker.experiment.config) == {"data": {"task": "all"}}
    tracker.close()
    assert wandb.run is None
    files = [path for path in run_folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if FAKE_KEY.encode() in path.read_bytes()] == []


def test_closing_a_tracker_that_never_started_does_nothing(no_key, run_folder):
    WandbTracker(folder=str(run_folder)).close()

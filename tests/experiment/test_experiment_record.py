import json

import pytest
from small_grid import with_flags, write_grid

from ecg_lightning.errors import InputError
from ecg_lightning.experiment.checks import Facts
from ecg_lightning.experiment.grid import Setting, load_grid
from ecg_lightning.experiment.plan import runs_of
from ecg_lightning.experiment.record import write_record


def write(folder, tmp_path, *, changes=(), store="abc", **keys):
    grid = load_grid(str(write_grid(tmp_path, **keys)), changes)
    runs = runs_of(grid, Setting(flags={"data.store": "/some.h5"}))
    write_record(
        folder, grid, runs, {run.name: Facts("vit", (1, 1), 64, 1, False, store) for run in runs}, {"x": "few"}
    )
    return json.loads((folder / "experiment.json").read_text())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "output"


def test_the_record_lists_the_runs_their_values_and_command_lines(folder, tmp_path):
    record = write(folder, tmp_path)
    assert record["axes"] == {"recipe": ["method", "plain"], "seed": [1]}
    assert [run["name"] for run in record["runs"]] == ["method-seed1", "plain-seed1"]
    run = record["runs"][0]
    assert run["values"] == {"recipe": "method", "seed": 1}
    assert run["command"][:4] == ["ecg-lightning", "fit", "--config", "backbone/vit"]
    assert run["command"][-4:] == ["--run", "method-seed1", "--resume", "auto"]
    assert (run["train_records"], run["store_sha256"]) == (64, "abc")
    assert record["left_out"] == {"x": "few"}


def test_the_same_grid_is_written_once(folder, tmp_path):
    write(folder, tmp_path)
    before = (folder / "experiment.json").stat().st_mtime_ns
    write(folder, tmp_path)
    assert (folder / "experiment.json").stat().st_mtime_ns == before


def test_a_grid_may_grow(folder, tmp_path):
    write(folder, tmp_path)
    record = write(folder, tmp_path, changes=[("axes.seed.values", "[2, 1]")])
    assert len(record["runs"]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"changes": [("axes.seed.values", "[2]")]},
            r"2 of its runs are not in this one \(the first is method-seed1\)",
        ),
        ({"flags": with_flags(data__batch_size=8)}, r"method-seed1 has data\.batch_size 16 there, 8 here"),
        ({"flags": with_flags(data__keep="all")}, r"method-seed1 has data\.keep 'unset' there, 'all' here"),
        ({"store": "other"}, r"method-seed1 was planned with another content of its store"),
    ],
)
def test_another_grid_is_refused_and_the_first_kept(folder, tmp_path, change, message):
    record = write(folder, tmp_path)
    with pytest.raises(InputError, match=f"holds another grid: .*{message}.*Choose another --output"):
        write(folder, tmp_path, **change)
    assert json.loads((folder / "experiment.json").read_text()) == record


@pytest.mark.parametrize(
    "flags", [{"data__num_workers": 2}, {"checkpoint_every": 5}, {"trainer__logger": {"class_path": "WandbTracker"}}]
)
def test_what_changes_no_result_may_change(folder, tmp_path, flags):
    write(folder, tmp_path)
    write(folder, tmp_path, flags=with_flags(**flags))


def test_a_folder_with_something_else_in_it_is_refused(folder, tmp_path):
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds no grid, and is not empty \(thesis\.tex\)"):
        write(folder, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(folder, tmp_path):
    folder.touch()
    with pytest.raises(InputError, match="is a file, a grid's runs need a folder"):
        write(folder, tmp_path)


def test_a_damaged_record_is_told(folder, tmp_path):
    write(folder, tmp_path)
    (folder / "experiment.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        write(folder, tmp_path)

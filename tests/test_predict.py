"""One's own ECGs through the real command line: what `predict` says, writes and refuses."""

import csv
import json
import shutil

import numpy as np
import pandas
import pytest
from asked_to_predict import millivolts, predict, record_of, write_table
from made_up_ptbxl import LEADS, read_rows
from test_own_labels import TINY, write_manifest
from tiny import of_lightning_cli
from trained_runs import train_by_commands

import ecg_lightning
from ecg_lightning.cli import main
from ecg_lightning.data.reading import ReadRecord
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.predict import in_order
from ecg_lightning.predicted import Outputs, Predicted
from ecg_lightning.runs import NO_DEVICE, file_sha256

pytestmark = of_lightning_cli


def largest_difference(run, table, ptbxl):
    """Between the probabilities of `test` and those of `predict` for the same records."""
    of_test = Predictions.load(run / "predictions" / "test.npz")
    names = {int(row["ecg_id"]): row["filename_lr"] for row in read_rows(ptbxl)}
    rows = [f"{ptbxl / names[number]}.hea" for number in of_test.record_id.tolist()]
    assert len(rows) > 5
    return np.abs(table.loc[rows, list(of_test.label_names)].to_numpy() - of_test.probabilities).max()


# --- the same figures as `test` ---


def test_records_as_wfdb_get_the_probabilities_of_test(ptbxl, filtered_run, tmp_path):
    table = predict(filtered_run, tmp_path / "p.csv", "--records", ptbxl)
    assert len(table) == 80  # the tables of the folder are no records
    assert largest_difference(filtered_run, table, ptbxl) < 1e-6
    assert table["CD"].std() > 1e-4


def test_real_records_as_wfdb_get_the_probabilities_of_test(shared, tmp_path):
    run = train_by_commands(
        shared / "ptbxl", tmp_path, "vit", "--model.backbone.depth=1", "--model.backbone.dim=6", "--data.batch_size=64"
    )
    table = predict(run, tmp_path / "p.csv", "--records", shared / "ptbxl")
    assert len(table) == 422
    assert largest_difference(run, table, shared / "ptbxl") < 1e-6


def test_one_window_more_or_less_at_once_changes_nothing(ptbxl, filtered_run, tmp_path):
    one, many = (
        predict(filtered_run, tmp_path / f"{size}.csv", "--records", ptbxl, "--batch_size", size) for size in (7, 300)
    )
    np.testing.assert_allclose(one.iloc[:, :5].to_numpy(), many.iloc[:, :5].to_numpy(), atol=1e-6)


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(ptbxl, filtered_run, tmp_path):
    for workers in (1, 2):
        predict(filtered_run, tmp_path / f"{workers}.csv", "--records", ptbxl, "--workers", workers)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_chunks_come_in_order_whichever_process_was_first():
    chunks = [[ReadRecord(place, None, None, "") for place in places] for places in ((2, 3), (4,), (0, 1), (5, 6))]
    assert [one.place for chunk in in_order(chunks) for one in chunk] == [*range(7)]


def test_a_task_of_ones_own_is_predicted_by_its_labels(ptbxl, tmp_path):
    manifest = write_manifest(ptbxl, tmp_path / "records")
    layout = ["--sampling_rate", "100", "--leads", ",".join(LEADS)]
    store, run = tmp_path / "s.h5", tmp_path / "run"
    assert main(["prepare", "--source", str(manifest), "--output", str(store), *layout]) == 0
    assert main(["fit", *TINY, "--data.store", str(store), "--data.task=clinic", "--run", str(run)]) == 0
    assert main(["test", "--run", str(run)]) == 0
    files = sorted(path for path in manifest.parent.iterdir() if path.suffix in (".hea", ".csv", ".npy"))
    files.remove(manifest)
    table = predict(run, tmp_path / "p.csv", "--records", *files, *layout)
    assert list(table.columns) == ["afib", "male", "checkpoint_sha256", "note"]
    assert len(table) == 80
    of_test = Predictions.load(run / "predictions" / "test.npz")
    with manifest.open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    for number, expected in zip(of_test.record_id.tolist(), of_test.probabilities, strict=True):
        path = manifest.parent / paths[number - 1]
        record = str(path if path.suffix else path.with_suffix(".hea"))
        np.testing.assert_allclose(table.loc[record, ["afib", "male"]].to_numpy(float), expected, atol=1e-6)


# --- records that cannot be predicted ---


def test_what_cannot_be_read_is_listed_with_the_rule_and_the_rest_is_written(ptbxl, plain_run, tmp_path, capsys):
    ecg = millivolts(ptbxl)
    short = write_table(tmp_path / "short.csv", ecg[:, :400])
    less = write_table(tmp_path / "less.csv", np.delete(ecg, 6, axis=0), [*LEADS[:6], *LEADS[7:]])
    good = write_table(tmp_path / "good.csv", ecg)
    output = tmp_path / "out" / "p.csv"
    table = predict(plain_run, output, "--records", short, good, less, "--sampling_rate", 100, code=1)
    assert [*table.index] == [str(good)]
    failed = pandas.read_csv(tmp_path / "out" / "p.csv.failed.csv").set_index("record")["why"]
    assert [*failed.index] == [str(short), str(less)]
    assert failed[str(short)].startswith("it lasts 4 s (400 time points at 100 Hz), the network takes 10 s (1000)")
    assert failed[str(less)].startswith("leads missing: V1 (found I, II,")
    printed = capsys.readouterr()
    assert "Records that failed: 2" in printed.out
    assert f"2 of 3 records failed, the others are predicted: {output}.failed.csv says why" in printed.err


def test_no_good_record_leaves_no_table_of_predictions(plain_run, tmp_path, capsys):
    path = write_table(tmp_path / "short.csv", np.zeros((12, 20)))
    output = tmp_path / "p.csv"
    arguments = ["--records", str(path), "--sampling_rate", "100", "--output", str(output)]
    assert main(["predict", "--run", str(plain_run), *arguments]) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.csv.failed.csv", "short.csv"]
    assert "no record could be predicted" in capsys.readouterr().err
    write_table(path, np.zeros((12, 1000)))  # what was wrong is put right: the same call needs no --overwrite
    assert main(["predict", "--run", str(plain_run), *arguments]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p.csv", "p.csv.json", "short.csv"]


def test_probabilities_that_are_no_numbers_are_a_failure(tmp_path):
    found = Predicted((tmp_path / "a.csv", tmp_path / "b.csv"), ("x",))
    found.add([0, 1], np.array([[np.nan], [0.5]], np.float32))
    assert found.places == [1]
    assert found.failed[0][1].startswith("the network gave what is no number")


def test_a_path_that_is_not_there_is_refused_before_anything_is_computed(ptbxl, plain_run, tmp_path, capsys):
    arguments = ["--records", str(record_of(ptbxl)), str(tmp_path / "none.csv"), "--output", str(tmp_path / "p.csv")]
    assert main(["predict", "--run", str(plain_run), *arguments]) == 1
    assert "none.csv does not exist" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


# --- what is written ---


def test_every_output_says_which_checkpoint_and_that_it_is_no_device(ptbxl, plain_run, tmp_path):
    short = write_table(tmp_path / "short.csv", np.zeros((12, 20)))
    rest = ["--records", record_of(ptbxl), short, "--sampling_rate", 100]
    table = predict(plain_run, tmp_path / "p.csv", *rest, code=1)
    assert main(["predict", "--run", str(plain_run), "--output", str(tmp_path / "p.npz"), *map(str, rest)]) == 1
    digest = file_sha256(plain_run / "checkpoints" / "finetune-best.ckpt")
    failed = pandas.read_csv(tmp_path / "p.csv.failed.csv")
    for written in (table, failed):
        assert set(written["checkpoint_sha256"]) == {digest}
        assert set(written["note"]) == {NO_DEVICE}
    origin = json.loads((tmp_path / "p.csv.json").read_text())
    for meta in (origin, Predictions.load(tmp_path / "p.npz").meta):
        assert (meta["checkpoint_sha256"], meta["note"]) == (digest, NO_DEVICE)
        assert (meta["num_records"], meta["num_failed"], meta["task"]) == (1, 1, "superdiagnostic")
    assert origin["predictions_sha256"] == file_sha256(tmp_path / "p.csv")


def test_csv_and_npz_hold_the_same_bits(ptbxl, plain_run, tmp_path):
    table = predict(plain_run, tmp_path / "p.csv", "--records", ptbxl)
    assert main(["predict", "--run", str(plain_run), "--output", str(tmp_path / "p.npz"), "--records", str(ptbxl)]) == 0
    npz = Predictions.load(tmp_path / "p.npz")
    assert [*npz.label_names] == [*table.columns[:5]]
    assert npz.meta["records"] == [*table.index]
    assert np.array_equal(table.iloc[:, :5].to_numpy().astype(np.float32), npz.probabilities)
    assert (npz.labels == 255).all()


def test_files_are_replaced_only_when_asked_and_old_failures_go(ptbxl, plain_run, tmp_path, capsys):
    output = tmp_path / "p.csv"
    short = write_table(tmp_path / "short.csv", np.zeros((12, 20)))
    predict(plain_run, output, "--records", record_of(ptbxl), short, "--sampling_rate", 100, code=1)
    before = output.read_bytes()
    again = ["predict", "--run", str(plain_run), "--output", str(output), "--records", str(record_of(ptbxl, 2))]
    assert main(again) == 1
    assert "there already; name another file, or replace it with --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert main([*again, "--overwrite"]) == 0
    assert output.read_bytes() != before
    assert not (tmp_path / "p.csv.failed.csv").exists()


@pytest.mark.parametrize("name", ["record", "checkpoint_sha256", "note"])
def test_a_label_called_as_a_column_of_the_csv_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=rf"labels called as columns of the csv, {name}: --output p\.npz"):
        Outputs(tmp_path / "p.csv", None, False).check([], ("AFIB", name))
    Outputs(tmp_path / "p.npz", None, False).check([], ("AFIB", name))


def test_each_ecg_is_drawn_under_its_name(ptbxl, plain_run, tmp_path, capsys):
    files = [record_of(ptbxl), write_table(tmp_path / "r.csv", 1.5 * millivolts(ptbxl, 2))]
    output, plots = tmp_path / "p.csv", tmp_path / "plots"
    predict(plain_run, output, "--records", *files, "--sampling_rate", 100, "--plot", plots)
    drawn = sorted(plots.iterdir())
    assert len(drawn) == 2
    assert [path.name.endswith(("_00001_lr.png", "_r.png")) for path in drawn] == [True, True]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000 for path in drawn)
    assert f"{plots}: 2 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--output", "p.xlsx"], 2, "predictions are .csv or .npz: --output p.csv"),
        (["--output", "p.csv", "--device", "gpu"], 2, "--device gpu cannot be used"),
        (["--output", "p.csv", "--checkpoint", "none"], 2, "--checkpoint none does not exist: the run has"),
        (["--output", "p.csv", "--batch_size", "0"], 2, "--batch_size is 0"),
        (["--output", "p.csv", "--windows", "0"], 2, "--windows is 0, it must be 1 or more"),
        (["--output", "p.csv", "--seconds", "5"], 2, "--seconds is 5, the backbone takes 10 s"),
        (["--output", "p.csv", "--sampling_rate", "-1"], 2, "--sampling_rate is -1.0"),
    ],
)
def test_wrong_flags_are_refused_and_write_nothing(
    ptbxl, plain_run, tmp_path, capsys, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--run", str(plain_run), "--records", str(record_of(ptbxl)), *arguments]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not any(tmp_path.iterdir())


# --- the run ---


@pytest.fixture
def copied(plain_run, tmp_path):
    return shutil.copytree(plain_run, tmp_path / "run")


def test_another_checkpoint_of_the_run_says_something_else(ptbxl, plain_run, tmp_path):
    best = predict(plain_run, tmp_path / "best.csv", "--records", record_of(ptbxl))
    probe = predict(plain_run, tmp_path / "probe.csv", "--records", record_of(ptbxl), "--checkpoint", "probe-best")
    assert best["checkpoint_sha256"].iloc[0] != probe["checkpoint_sha256"].iloc[0]
    assert abs(best["CD"].iloc[0] - probe["CD"].iloc[0]) > 1e-6


def test_a_damaged_checkpoint_is_refused(ptbxl, copied, tmp_path, capsys):
    path = copied / "checkpoints" / "finetune-best.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code = main(["predict", "--run", str(copied), "--records", str(ptbxl), "--output", str(tmp_path / "p.csv")])
    assert code == 1
    assert "finetune-best.ckpt is damaged: name another with --checkpoint" in capsys.readouterr().err


def test_a_run_that_does_not_say_how_long_its_records_were_asks_for_it(ptbxl, copied, tmp_path, capsys):
    environment = json.loads((copied / "environment.json").read_text())
    assert environment.pop("record_seconds") == 10.0
    (copied / "environment.json").write_text(json.dumps(environment))
    command = ["predict", "--run", str(copied), "--records", str(record_of(ptbxl)), "--output", str(tmp_path / "p.csv")]
    assert main(command) == 2
    assert "give --seconds 10" in capsys.readouterr().err
    assert main([*command, "--seconds", "10"]) == 0


def test_a_backbone_that_is_not_there_is_refused_with_what_to_do(copied):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("trained_runs.PlainNet", "gone.Net"))
    with pytest.raises(InputError, match=r"backbone gone\.Net cannot be built .*in the folder, and with the package"):
        ecg_lightning.load_run(copied)

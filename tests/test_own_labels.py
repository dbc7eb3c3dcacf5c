"""One's own records and labels, from the manifest to the figures of a test, through the real command line."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_ptbxl import LEADS, read_rows, wfdb
from processes import run_cli
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny import of_lightning

from ecg_lightning.cli import main
from ecg_lightning.data.labels import task_labels
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.sources import SourceOptions
from ecg_lightning.data.store import Store
from ecg_lightning.errors import InputError
from ecg_lightning.signals import SignalSpec

pytestmark = [
    *of_lightning,
    pytest.mark.filterwarnings("ignore:[\\s\\S]*(deprecated in v4|JsonargparseDeprecationWarning)"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
SPEC = SignalSpec(100, 1000)
TINY = [
    *("--model.backbone", "vit", "--model.backbone.depth", "1", "--model.backbone.dim", "6"),
    *("--post_training.probe.epochs=1", "--post_training.fine_tune.epochs=1", "--trainer.enable_progress_bar=false"),
    *("--data.batch_size", "16", "--trainer.accelerator", "cpu"),
]


def write_as(kind, ptbxl, folder, number):
    """The record in another format; its path below ``folder``."""
    source = ptbxl / f"records100/00000/{number:05d}_lr"
    ecg = wfdb.rdrecord(str(source)).p_signal.T
    if kind == "wfdb":
        for end in (".hea", ".dat"):
            shutil.copy(source.with_name(source.name + end), folder)
        return source.name
    path = folder / f"{number:05d}.{kind}"
    if kind == "npy":
        np.save(path, ecg)
    else:
        np.savetxt(path, ecg.T, delimiter=",", header=",".join(LEADS), comments="", fmt="%.3f")
    return path.name


def write_manifest(ptbxl, folder, num_records=None):
    """Records in turn as WFDB, CSV and NPY; labels male (some unknown, two records wholly) and afib, from PTB-XL."""
    folder.mkdir()
    rows = []
    for index, row in enumerate(read_rows(ptbxl)[:num_records]):
        afib = str(int("AFIB" in row["scp_codes"]))
        rows.append(
            {
                "path": write_as(("wfdb", "csv", "npy")[index % 3], ptbxl, folder, int(row["ecg_id"])),
                "patient": row["patient_id"],
                "fold": row["strat_fold"],
                "age": row["age"],
                "sex": row["sex"],
                "male": "" if index % 7 == 2 else str(1 - int(row["sex"])),
                "afib": "" if index % 14 == 2 else afib,
            }
        )
    with (folder / "clinic.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "clinic.csv"


OPTIONS = ("--sampling_rate", "100", "--leads", ",".join(LEADS))


@pytest.fixture(scope="module")
def clinic(make_ptbxl, tmp_path_factory):
    """A manifest of 80 records in three formats, and the store that the command makes of it."""
    folder = tmp_path_factory.mktemp("clinic")
    ptbxl = make_ptbxl(num_records=80)
    manifest = write_manifest(ptbxl, folder / "records")
    assert main(["prepare", "--source", str(manifest), "--output", str(folder / "clinic.h5"), *OPTIONS]) == 0
    return ptbxl, manifest, folder / "clinic.h5"


def expected_labels(manifest):
    """(record, label) afib, male; 255 for an empty cell."""
    with manifest.open(newline="") as file:
        return np.array([[int(row[name] or 255) for name in ("afib", "male")] for row in csv.DictReader(file)])


def test_records_of_three_formats_are_the_same_units_as_ptbxls_own(clinic, tmp_path):
    ptbxl, manifest, path = clinic
    prepare(ptbxl, tmp_path / "ptbxl.h5", SPEC, workers=1, progress=False)
    store, own = Store(path), Store(tmp_path / "ptbxl.h5")
    assert store.dtype == np.int16
    assert np.array_equal(store.signals(), own.signals())
    assert np.array_equal(store.records["checksum"], own.records["checksum"])
    assert np.array_equal(store.records["strat_fold"], own.records["strat_fold"])
    np.testing.assert_array_equal(store.records["age"], own.records["age"])
    assert np.array_equal(task_labels(store.likelihood, store.statements, "clinic"), expected_labels(manifest))
    assert store.attributes["source_kind"] == "manifest"
    assert "--sampling_rate 100.0 --leads I,II" in store.attributes["command"]


@pytest.fixture(scope="module")
def tested(clinic, tmp_path_factory):
    """A run on the manifest's store, trained and tested by the commands."""
    run = tmp_path_factory.mktemp("run") / "run"
    store = ["--data.store", str(clinic[2]), "--data.task", "clinic"]
    assert main(["fit", *TINY, *store, "--model.pos_weight", "balanced", "--run", str(run)]) == 0
    assert main(["test", "--run", str(run)]) == 0
    return run


def test_predictions_hold_the_manifests_labels_and_255_for_unknown(clinic, tested):
    labels = expected_labels(clinic[1])
    with np.load(tested / "predictions" / "test.npz") as file:
        rows = file["record_id"] - 1
        assert file["label_names"].tolist() == ["afib", "male"]
        assert set(file["fold"].tolist()) == {10}
        assert np.array_equal(file["labels"], labels[rows])
        unjudged = set(np.flatnonzero((labels == 255).all(axis=1)))
        assert unjudged.isdisjoint(rows.tolist())


def test_metrics_of_the_run_are_scikit_learns_on_the_known_records(clinic, tested):
    for split in ("val", "test"):
        metrics = json.loads((tested / f"metrics_{split}.json").read_text())
        with np.load(tested / "predictions" / f"{split}.npz") as file:
            labels, probabilities = file["labels"], file["probabilities"]
        for column, name in enumerate(("afib", "male")):
            known = labels[:, column] <= 1
            truth, said = labels[known, column], probabilities[known, column]
            told = metrics["labels"][name]
            assert (told["known"], told["positives"]) == (known.sum(), truth.sum())
            if 0 < truth.sum() < len(truth):
                assert told["auroc"] == pytest.approx(roc_auc_score(truth, said), abs=1e-6)
                assert told["auprc"] == pytest.approx(average_precision_score(truth, said), abs=1e-6)
        known = labels <= 1
        entropy = -np.log(np.where(labels == 1, probabilities, 1 - probabilities.astype(np.float64)))
        weight = torch.load(tested / "checkpoints" / "finetune-best.ckpt", weights_only=True)["state_dict"][
            "pos_weight"
        ]
        entropy = entropy * np.where(labels == 1, weight.numpy(), 1)
        expected = np.mean([entropy[row][known[row]].mean() for row in range(len(labels)) if known[row].any()])
        assert metrics["loss"] == pytest.approx(expected, rel=1e-4)


def test_evaluate_gives_the_figures_of_the_run_and_counts_what_is_unknown(tested, capsys):
    assert main(["evaluate", str(tested), "--draws", "100", "--labels"]) == 0
    assert "macro AUROC" in capsys.readouterr().out
    metrics, evaluation = (json.loads((tested / f"{name}_test.json").read_text()) for name in ("metrics", "evaluation"))
    for name in ("afib", "male"):
        ours, theirs = evaluation["labels"][name], metrics["labels"][name]
        assert ours["positives"] + ours["negatives"] == theirs["known"]
        assert ours["unknown"] == evaluation["num_records"] - theirs["known"]
        assert ours["validation"]["positives"] >= 0
        for figure in ("auroc", "auprc"):
            assert ours[figure]["value"] == pytest.approx(theirs[figure], abs=1e-6)
    assert evaluation["files"][0]["meta"]["checkpoint_sha256"] == metrics["meta"]["checkpoint_sha256"]


def test_a_task_that_the_store_has_not_is_refused_with_its_own(clinic, tmp_path, capsys):
    code = main(["fit", *TINY, "--data.store", str(clinic[2]), "--data.task", "all", "--run", str(tmp_path / "run")])
    assert code in (1, 2)
    assert "unknown task 'all', known are clinic: --data.task clinic" in capsys.readouterr().err


def test_a_fit_on_a_store_without_labels_is_refused_with_the_reason(make_ptbxl, tmp_path, capsys):
    folder = make_ptbxl(num_records=20)
    source = ["--source", str(folder), "--kind", "files", "--output", str(tmp_path / "files.h5")]
    assert main(["prepare", *source]) == 0
    assert "no labels: the store has no task" in capsys.readouterr().out
    code = main(["fit", *TINY, "--data.store", str(tmp_path / "files.h5"), "--run", str(tmp_path / "run")])
    assert code != 0
    assert re.search(r"the store has no labels, so\s+nothing can be fitted", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
    assert main(["inspect", str(tmp_path / "files.h5")]) == 0


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one_on_unknown_labels(clinic, tmp_path):
    weights = []
    for processes in (1, 2):
        run = tmp_path / f"run{processes}"
        strategy = ["--trainer.strategy", "ddp"] if processes > 1 else []
        ended = run_cli(
            "fit", *TINY, "--data.store", str(clinic[2]), "--data.task", "clinic", "--run", str(run), "--data.keep=all",
            "--data.batch_size", "11", "--trainer.precision", "64-true", "--trainer.devices", str(processes), *strategy,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout
        weights.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    one, two = weights
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9


def finer(path):
    """Gives a CSV one value between two units."""
    lines = path.read_text().splitlines()
    lines[1] = ",".join(["0.0005", *lines[1].split(",")[1:]])
    path.write_text("\n".join(lines) + "\n")


def run_prepare(manifest, output, **arguments):
    from ecg_lightning.data.formats import Layout

    options = SourceOptions(layout=Layout(100, tuple(LEADS)))
    return prepare(manifest, output, SPEC, **{"workers": 1, "progress": False, "options": options, **arguments})


def test_a_value_between_two_units_makes_the_store_float32_and_says_so(tiny_ptbxl, tmp_path, capsys):
    manifest = write_manifest(tiny_ptbxl, tmp_path / "records")
    finer(manifest.parent / "00038.csv")
    report = run_prepare(manifest, tmp_path / "s.h5")
    store = Store(tmp_path / "s.h5")
    assert (store.dtype, store.millivolts_per_unit, report.num_records) == (np.float32, 1.0, 40)
    assert store.signals()[37, 0, 0] == np.float32(0.0005)
    assert "Started over: some records are finer than whole units of 0.001 mV" in capsys.readouterr().out
    assert store.verify() == []


@pytest.mark.parametrize("fine", [False, True])
def test_a_stopped_conversion_goes_on_whether_in_units_or_not(tiny_ptbxl, tmp_path, fine):
    manifest = write_manifest(tiny_ptbxl, tmp_path / "records")
    if fine:
        finer(manifest.parent / "00020.csv")
    short = manifest.parent / "00039.npy"
    content = short.read_bytes()
    np.save(short, np.zeros((12, 400)))
    with pytest.raises(InputError, match=r"ecg_id 39: .*00039\.npy: it lasts 4 s.*39 records are finished"):
        run_prepare(manifest, tmp_path / "s.h5")
    short.write_bytes(content)
    assert run_prepare(manifest, tmp_path / "s.h5").num_resumed == 39
    assert Store(tmp_path / "s.h5").dtype == (np.float32 if fine else np.int16)
    run_prepare(manifest, tmp_path / "at_once.h5")
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "at_once.h5").read_bytes()


def test_other_flags_do_not_go_on_from_a_stopped_conversion(tiny_ptbxl, tmp_path):
    from ecg_lightning.data.formats import Layout

    manifest = write_manifest(tiny_ptbxl, tmp_path / "records")
    np.save(manifest.parent / "00039.npy", np.zeros((12, 400)))
    with pytest.raises(InputError, match="39 records are finished"):
        run_prepare(manifest, tmp_path / "s.h5")
    options = SourceOptions(layout=Layout(100, tuple(LEADS)), task="other")
    report = run_prepare(manifest, tmp_path / "s.h5", options=options, on_error="skip")
    assert (report.num_resumed, report.num_records) == (0, 39)
    assert report.started_over == "an unfinished store was there, but of another source, table or signal"
    assert [ecg_id for ecg_id, _ in report.skipped] == [39]
    assert [*Store(tmp_path / "s.h5").statements.tasks] == ["other"]


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(tiny_ptbxl, tmp_path):
    manifest = write_manifest(tiny_ptbxl, tmp_path / "records")
    finer(manifest.parent / "00038.csv")
    for workers in (1, 2):
        run_prepare(manifest, tmp_path / f"{workers}.h5", workers=workers)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_real_records_of_ptbxl_in_three_formats_give_ptbxls_own_signals(shared, tmp_path):
    manifest = write_manifest(shared / "ptbxl", tmp_path / "records", 40)
    run_prepare(manifest, tmp_path / "s.h5")
    prepare(shared / "ptbxl", tmp_path / "own.h5", SPEC, workers=1, progress=False)
    store, own = Store(tmp_path / "s.h5"), Store(tmp_path / "own.h5")
    assert np.array_equal(store.signals(), own.signals()[:40])
    assert np.array_equal(task_labels(store.likelihood, store.statements, "clinic"), expected_labels(manifest))


def test_a_run_on_ptbxl_is_tested_on_the_challenges_records(shared, tmp_path, capsys):
    prepare(shared / "ptbxl", tmp_path / "ptbxl.h5", SPEC, workers=1, progress=False)
    folds = ("--data.train_folds=[1,2,3,4,5,6,7]", "--data.val_folds=[8]", "--data.test_folds=[9]")
    run = ["--run", str(tmp_path / "run")]
    fit = ["fit", *TINY, "--data.store", str(tmp_path / "ptbxl.h5"), "--data.task=superdiagnostic", *folds, *run]
    assert main(fit) == 0
    other = str(tmp_path / "cinc.h5")
    assert main(["prepare", "--source", str(shared / "cinc2021"), "--output", other, "--fold", "10"]) == 0
    no_others = ("--data.train_folds=[]", "--data.val_folds=[]")  # `test` reads neither
    assert main(["test", *run, "--data.store", other, "--data.test_folds=[10]", *no_others]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics_test-cinc.json").read_text())
    assert (metrics["num_records"], metrics["num_labels"]) == (18, 2)
    assert metrics["labels"]["NORM"] == {"positives": 0, "known": 0, "auroc": None, "auprc": None}
    assert metrics["labels"]["CD"]["positives"] == 2
    assert metrics["labels"]["CD"]["known"] == 18
    assert metrics["labels_without_both_classes"] == ["MI", "NORM", "STTC"]
    assert Path(tmp_path / "run" / "predictions" / "test-cinc.npz").exists()

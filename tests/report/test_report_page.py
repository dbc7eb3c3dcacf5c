import json
import re

import numpy as np
import pytest
import yaml
from made_runs import METHOD, PLAIN, PROBE, write_experiment, write_grid_of_runs, write_run
from page_reader import read_page

from ecg_lightning.cli import main
from ecg_lightning.data.prepare import prepare
from ecg_lightning.data.store import Store
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.evaluate.predictions import Predictions
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_report import make_report
from ecg_lightning.report.sheets import NONE
from ecg_lightning.signals import SignalSpec

ATTACK = "<script>x</script>"
FAST = ("--draws", "100", "--wrong", "1")


def made(*paths, wrong=0):
    report = make_report(read_runs([str(path) for path in paths]), Options(draws=100, min_positives=5), wrong)
    return report, read_page(report.files["report.html"].decode())


def called(capsys, *arguments):
    capsys.readouterr()
    code = main(["report", *map(str, arguments), *FAST])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made and not rendered, which takes most of the time: for tests of words and files."""
    monkeypatch.setattr("ecg_lightning.report.drawn.files_of", lambda *_: (b"\x89PNG", b"%PDF"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return write_grid_of_runs(tmp_path_factory.mktemp("runs") / "grid")


@pytest.fixture(scope="module")
def report(grid):
    return made(grid, wrong=1)


# --- the page as such ---


def test_the_page_is_whole_and_needs_nothing_from_outside(report):
    _, found = report
    assert found.external == []
    assert "script" not in found.tags
    for anchor in ("main", "recipes", "curves", "detail-1", "provenance"):
        assert anchor in found.ids


def test_every_figure_is_in_the_page_and_a_png_and_a_pdf_beside_it(report):
    files, found = report[0].files, report[1]
    pictures = {name.removesuffix(".png") for name in files if name.endswith(".png")}
    assert pictures == {name.removesuffix(".pdf") for name in files if name.endswith(".pdf")}
    assert len(pictures) == found.tags.count("img")
    numbers = re.findall(r"Figure (\d+)\.", found.text)
    assert numbers == [str(number) for number in range(1, len(pictures) + 1)]
    assert {name.split("/")[1] for name in pictures} == {
        *("recipes_superdiagnostic", "learning_superdiagnostic", "roc_pr_superdiagnostic"),
        *("gain_by_prevalence_superdiagnostic", "calibration_superdiagnostic", "confusion_superdiagnostic"),
    }


def test_every_table_is_in_the_page_and_in_three_forms_beside_it(report):
    files, found = report[0].files, report[1]
    tables = {name.removesuffix(".csv") for name in files if name.endswith(".csv")}
    for ending in (".md", ".tex"):
        assert tables == {name.removesuffix(ending) for name in files if name.endswith(ending)}
    assert len(re.findall(r"Table \d+\.", found.text)) == len(tables)
    assert {"tables/main", "tables/labels_superdiagnostic", "tables/runs", "tables/recipes"} <= tables


def test_the_page_says_what_it_is_no_device_for_and_carries_every_checkpoints_hash(report, grid):
    _, found = report
    assert found.text.count("Research software: not a medical device, not for diagnosis.") >= 2
    for path in grid.glob("*/predictions/test.npz"):
        assert Predictions.load(path).meta["checkpoint_sha256"] in found.text


def test_the_json_holds_the_evaluations_and_lists_the_files(report):
    files = report[0].files
    content = json.loads(files["report.json"])
    assert content["files"] == sorted(files)
    assert [group["recipe"] for group in content["groups"]] == ["method", "plain", "probe"]
    assert content["groups"][0]["evaluation"]["comparison"]["macro"]["superdiagnostic"]["all"]["auroc"]["value"] > 0


def test_the_same_runs_give_the_same_bytes(tmp_path):
    run = write_run(tmp_path / "run", METHOD)
    assert made(run)[0].files == made(run)[0].files


def test_what_is_shown_in_detail_is_never_chosen_by_its_score(tmp_path, undrawn):
    better = write_run(tmp_path / "better", {**METHOD, "drop_path_rate": 0.5}, shift=3.0)
    first = write_run(tmp_path / "first", METHOD, shift=0.5)
    plain = write_run(tmp_path / "plain", PLAIN, shift=3.0)
    _, found = made(plain, first, better)
    assert "superdiagnostic in detail: probe + fine-tuning (drop path 0.3)" in found.text


@pytest.mark.parametrize(
    ("recipes", "told"),
    [
        ([PROBE], "(1): the only one that was judged on these records."),
        ([PLAIN], "(1): the only one that was judged on these records."),
        ([PLAIN, PROBE], "that is not the baseline; none of them fine-tunes; it was not chosen by its score."),
        ([PLAIN, {**PLAIN, "fine_tune": {"epochs": 5}}], "plain fine-tuning, as there is no other recipe; it was not"),
        ([PLAIN, METHOD], "the first recipe of those named that is more than the baseline and fine-tunes; it was not"),
    ],
)
def test_why_a_recipe_is_shown_in_detail_is_true_of_it(tmp_path, undrawn, recipes, told):
    _, found = made(*(write_run(tmp_path / str(place), recipe) for place, recipe in enumerate(recipes)))
    assert told in found.text
    assert ("more than the baseline" in found.text) == (METHOD in recipes)


# --- what is missing is told ---


def test_runs_that_are_not_complete_are_told_and_the_others_judged(tmp_path, undrawn):
    folder = write_grid_of_runs(tmp_path / "grid", seeds=(1,))
    (folder / "method-seed1" / "state.json").write_text('{"state": "interrupted"}')
    (folder / "method-seed1" / "predictions" / "test.npz").unlink()
    write_experiment(
        folder,
        {
            **{f"{name}-seed1": {"recipe": name, "seed": 1} for name in ("method", "plain", "probe")},
            "method-seed2": {"recipe": "method", "seed": 2},
        },
    )
    report, found = made(folder)
    assert "4, 2 of them complete" in found.text
    assert "state interrupted: go on with it by the `ecg-lightning experiment`" in found.text
    assert found.table_of("run")["grid/method-seed2"][3:] == ["not started", NONE, NONE, NONE, "not started"]
    assert report.problems[1] == "grid/method-seed2: not started"
    assert [*found.table_of_many("task")] == ["task", "superdiagnostic"]


def test_without_test_predictions_validation_is_shown_and_said_to_be_what_was_chosen_on(tmp_path, undrawn):
    run = write_run(tmp_path / "run", METHOD, splits=("val",))
    _, found = made(run)
    assert "all figures are of validation, on which checkpoints were chosen" in found.text
    assert "val split" in found.text


def test_runs_without_any_predictions_have_a_page_that_says_so(tmp_path, undrawn):
    run = write_run(tmp_path / "run", METHOD, splits=())
    _, found = made(run)
    assert "No run has predictions that could be judged" in found.text
    assert "provenance" in found.ids
    assert "curves" in found.ids


def test_few_test_records_are_warned_of(report):
    assert "Few test records (superdiagnostic: 60)" in report[1].text


def test_a_store_that_is_gone_is_said_in_place_of_the_ecgs(report):
    assert "No ECGs: the store gone.h5 is not there any more" in report[1].text
    assert "1. Record" in report[1].text


# --- labels and tasks of one's own ---


def test_names_of_ones_own_are_text_and_never_markup(tmp_path):
    names = (ATTACK, "a&b", "$x_1$", '"quoted"')
    run = write_run(
        tmp_path / "run <b>", METHOD, task=f"my {ATTACK}", backbone=ATTACK, arguments={"names": names}, weights=ATTACK
    )
    report, found = made(run, wrong=1)
    assert "<script" not in report.files["report.html"].decode()
    assert {"script", "b"}.isdisjoint(found.tags)
    assert ATTACK in found.table_of_many("label")
    assert f"my {ATTACK} in detail" in found.text
    assert all(re.fullmatch(r"(figures|tables)/[\w.-]+|report\.(html|json)", name) for name in report.files)


# --- the ECGs ---


@pytest.fixture(scope="module")
def stored(tiny_ptbxl_template, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "store.h5"
    prepare(tiny_ptbxl_template, path, SignalSpec(100, 1000), workers=1, progress=False)
    return Store(path)


def with_store(run, store, sha256=None):
    """The run's predictions as if made from the records of ``store``."""
    path = run / "predictions" / "test.npz"
    file = Predictions.load(path)
    rows = np.arange(store.num_records)
    meta = {**file.meta, "store": str(store.path), "store_sha256": sha256 or store.attributes["sha256"]}
    arrays = {"probabilities": file.probabilities[rows], "labels": file.labels[rows]}
    ids = {"record_id": store.records["ecg_id"][:], "patient_id": store.records["patient_id"][:]}
    Predictions(fold=file.fold[rows], label_names=file.label_names, meta=meta, **ids, **arrays).save(path)
    return run


def test_the_most_wrong_records_are_shown_with_their_ecg(tmp_path, stored):
    run = with_store(write_run(tmp_path / "run", METHOD, splits=("test",)), stored)
    report, found = made(run, wrong=2)
    assert {"figures/wrong_superdiagnostic_1.png", "figures/wrong_superdiagnostic_2.pdf"} <= report.files.keys()
    assert "Record" in found.text
    assert "as the store has it (12 leads, 10 s at 100 Hz)" in found.text
    assert "No ECG" not in found.text


def test_a_store_of_another_content_gives_no_ecgs(tmp_path, stored, undrawn):
    run = with_store(write_run(tmp_path / "run", METHOD, splits=("test",)), stored, "c" * 64)
    _, found = made(run, wrong=1)
    assert "is not the store of these predictions any more" in found.text


# --- the command ---


def test_the_command_writes_page_figures_and_tables(capsys, tmp_path, grid, undrawn):
    code, out, err = called(capsys, grid, "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    assert f"{tmp_path / 'out' / 'report.html'}: 6 figures and 7 tables" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.json", "figures", "tables"}
    code, _, err = called(capsys, grid, "--output", tmp_path / "out")
    assert code == 1
    assert "holds a report already: replace it with --overwrite" in err


def test_overwriting_takes_away_what_is_no_part_of_the_new_report_and_nothing_else(capsys, tmp_path, grid, undrawn):
    run = write_run(tmp_path / "run", METHOD, splits=("test",))
    assert called(capsys, grid, "--output", tmp_path / "out")[0] == 0
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert called(capsys, run, "--output", tmp_path / "out", "--overwrite")[0] == 0
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {*json.loads((tmp_path / "out" / "report.json").read_text())["files"], "mine.txt"}


def test_a_folder_with_something_else_is_never_written_into(capsys, tmp_path, grid):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, _, err = called(capsys, grid, "--output", tmp_path / "out", "--overwrite")
    assert code == 1
    assert "holds something that is no report: choose another folder" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_wrong_folder_is_refused_with_what_to_name(capsys, tmp_path):
    code, _, err = called(capsys, tmp_path, "--output", tmp_path / "out")
    assert code == 2
    assert "name folders that those commands wrote" in err
    assert not (tmp_path / "out").exists()


def test_no_network_is_built(tmp_path, monkeypatch, undrawn):
    def built(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr("ecg_lightning.backbones.base._built", built)
    monkeypatch.setattr("torch.nn.Module.__init__", built)
    run = write_run(tmp_path / "run", METHOD, weights="w.pt")
    assert "vit" in yaml.safe_dump(made(run)[1].text)

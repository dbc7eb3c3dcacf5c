import json
import re

import pytest
from predicted import predicted, validation_of, write_csv

from ecg_lightning.cli import main
from ecg_lightning.evaluate.protocols import _labels_of

FAST = ("--draws", "100", "--permutations", "100")
HASH = {"checkpoint": "finetune-best.ckpt", "checkpoint_sha256": "a" * 64, "store_sha256": "s", "folds": [10]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_run(folder, name, *, model=0, split=("test", "val"), **meta):
    one = predicted(100, model=model, **{**HASH, **meta})
    if "test" in split:
        one.save(folder / name / "predictions" / "test.npz")
    if "val" in split:
        validation_of(one, model=model).save(folder / name / "predictions" / "val.npz")
    return name


def called(capsys, *arguments):
    capsys.readouterr()
    code = main(["evaluate", *map(str, arguments), *FAST])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_run_is_judged_at_thresholds_of_its_validation_and_keeps_what_was_chosen(capsys, here):
    write_run(here, "run")
    code, out, err = called(capsys, "run", "--calibrate")
    assert (code, err) == (0, "")
    assert files(here / "run") == ["calibration.json", "evaluation_test.json", "thresholds.json"]
    content, thresholds, calibration = (
        json.loads((here / "run" / name).read_text())
        for name in ("evaluation_test.json", "thresholds.json", "calibration.json")
    )
    macro = content["macro"]["superdiagnostic"]["all"]["auroc"]
    assert f"{macro['value']:.3f} [{macro['low']:.3f} {macro['high']:.3f}]" in out
    assert thresholds["checkpoint_sha256"] == calibration["checkpoint_sha256"] == "a" * 64
    assert thresholds["thresholds"] == content["files"][0]["thresholds"]
    assert calibration["temperature"] == content["files"][0]["temperature"]
    assert (content["draws"], content["seed"], content["num_records"]) == (100, 0, 100)
    assert content["files"][0]["meta"]["checkpoint_sha256"] == "a" * 64


def test_the_table_fits_into_100_columns(capsys, here):
    write_run(here, "run")
    write_run(here, "other", model=1, checkpoint_sha256="b" * 64)
    _, out, _ = called(capsys, "run", "--labels", "--calibrate", "--against", "other")
    assert max(map(len, out.splitlines())) <= 100
    assert re.search(r"^STTC +\d+ 0\.\d{3} \[0\.\d{3} 0\.\d{3}\]", out, re.MULTILINE)
    assert not re.search(r"^ SD", out, re.MULTILINE)


def test_results_of_the_same_are_made_anew_and_of_something_else_kept_unless_told(capsys, here):
    write_run(here, "run")
    assert called(capsys, "run")[0] == called(capsys, "run")[0] == 0
    before = (here / "run" / "evaluation_test.json").read_text()
    code, _, err = called(capsys, "run", "--seed", "3", "--threshold", "youden")
    assert code == 1
    assert "holds results with another seed, threshold: add --overwrite to replace it, or name another file" in err
    assert (here / "run" / "evaluation_test.json").read_text() == before
    write_run(here, "run", checkpoint_sha256="c" * 64)
    code, _, err = called(capsys, "run", "--output", "mine.json")
    assert code == 1
    assert "thresholds.json holds results with another checkpoint_sha256" in err
    assert files(here) == []
    assert called(capsys, "run", "--overwrite")[0] == 0
    assert json.loads((here / "run" / "thresholds.json").read_text())["checkpoint_sha256"] == "c" * 64


def test_a_file_that_is_no_evaluation_is_never_written_over(capsys, here):
    write_run(here, "run")
    (here / "notes.json").write_text("mine")
    assert called(capsys, "run/predictions/test.npz", "--output", "notes.json")[0] == 1
    assert (here / "notes.json").read_text() == "mine"


def test_a_run_that_was_not_tested_is_judged_on_validation_and_says_so(capsys, here):
    write_run(here, "run", split=("val",))
    code, out, _ = called(capsys, "run")
    assert code == 0
    assert "run has no predictions/test.npz yet" in " ".join(out.split())
    assert "chosen on validation, never on the split that is judged" in " ".join(out.split())
    assert files(here / "run") == ["evaluation_val.json"]


def test_files_of_others_are_judged_and_write_nothing_unasked(capsys, here):
    one = predicted(60)
    write_csv(one, here / "test.csv")
    write_csv(validation_of(one), here / "val.csv")
    code, out, _ = called(capsys, "test.csv", "--validation", "val.csv")
    assert code == 0
    assert "nothing written: name a file with --output FILE.json" in out
    assert files(here) == ["test.csv", "val.csv"]
    one.save(here / "test.npz")
    contents = []
    for name in ("test.csv", "test.npz"):
        assert called(capsys, name, "--validation", "val.csv", "--output", f"{name}.json")[0] == 0
        contents.append(json.loads((here / f"{name}.json").read_text())["labels"])
    assert contents[0] == contents[1]


def test_json_on_the_screen_is_what_the_file_holds(capsys, here):
    write_run(here, "run")
    code, out, _ = called(capsys, "run", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((here / "run" / "evaluation_test.json").read_text())


def test_seeds_against_seeds_are_compared_in_pairs(capsys, here):
    ours = [write_run(here, f"a{model}", model=model) for model in (0, 1)]
    others = [write_run(here, f"b{model}", model=model, checkpoint_sha256="b" * 64) for model in (2, 3)]
    code, out, _ = called(capsys, *ours, "--against", *others, "--output", "both.json")
    assert code == 0
    content = json.loads((here / "both.json").read_text())
    assert content["comparison"]["pairs"] == [["a0", "b2"], ["a1", "b3"]]
    assert {"auroc", "auprc"} == content["comparison"]["macro"]["superdiagnostic"]["all"].keys()
    assert content["macro"]["superdiagnostic"]["all"]["auroc"]["spread"] > 0
    assert re.search(r"^ SD +0\.\d{3}", out, re.MULTILINE)
    assert "100 permutations can give 0.050 at the least" in " ".join(out.split())
    assert files(here / "a0") == []


def test_a_comparison_of_a_run_is_a_file_of_its_own(capsys, here):
    write_run(here, "run")
    write_run(here, "other", model=1, checkpoint_sha256="b" * 64)
    assert called(capsys, "run", "--against", "other")[0] == 0
    assert files(here / "run") == ["comparison_test.json", "thresholds.json"]
    assert files(here / "other") == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "predictions"),
        (["none.npz"], 1, "none.npz does not exist: write it with `ecg-lightning test --run RUN`"),
        (["empty"], 2, "empty has no predictions/val.npz: write it with `ecg-lightning validate --run empty`"),
        (["run", "run"], 2, "run is named twice"),
        (["run", "--validation", "a", "b"], 2, "--validation names 2 file(s) for 1: give one for each"),
        (["run", "--threshold", "best"], 2, "--threshold is 'best', it must be f1, youden"),
        (["run", "--protocol", "mine"], 2, "protocol"),
        (["run", "--protocol", "all71_slices"], 1, "run has 5 labels, the protocol all71_slices"),
        (["run", "--draws", "10"], 2, "--draws is 10, it must be 100 or more"),
        (["run", "--permutations", "10"], 2, "--permutations is 10, it must be 100 or more"),
        (["run", "--against", "small"], 1, "run and small cannot be compared: records differ: 100 and 30"),
        (["run", "no_val"], 1, "no validation for no_val, but for others"),
        (["run/predictions/test.npz", "--calibrate"], 2, "add --validation FILE"),
        (["run/predictions/test.npz", "--validation", "run/predictions/test.npz"], 1, "100 record(s) are in both"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_way_out_and_nothing_is_written(
    capsys, here, arguments, code, message
):
    write_run(here, "run")
    write_run(here, "no_val", model=1, split=("test",))
    (here / "empty").mkdir()
    predicted(30).save(here / "small" / "predictions" / "test.npz")
    capsys.readouterr()
    flags = [] if any(flag in arguments for flag in ("--draws", "--permutations")) else FAST
    assert main(["evaluate", *arguments, *flags]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert files(here / "run") == []


def test_models_of_two_protocols_are_never_compared(capsys, here):
    names = _labels_of("all")
    for name, protocol in (("slices", "all71_slices"), ("tasks", "per_task")):
        predicted(60, names, task="all", protocol=protocol, **HASH).save(here / f"{name}.npz")
    code, _, err = called(capsys, "slices.npz", "--against", "tasks.npz")
    assert code == 1
    assert "slices.npz is of protocol all71_slices, tasks.npz of per_task: they are never compared" in err


@pytest.mark.parametrize(("first", "other"), [("tested", "untested"), ("untested", "tested")])
def test_a_run_is_not_held_against_one_that_was_never_tested_on_these_records(capsys, here, first, other):
    """What validates one may test another: a network was chosen on the former, and looks better there."""
    write_run(here, "tested", split=("test",))
    predicted(100, model=1, **{**HASH, "split": "val"}).save(here / "untested" / "predictions" / "val.npz")
    code, _, err = called(capsys, first, "--against", other)
    assert code == 1
    assert "where untested has not been tested, write it with `ecg-lightning test --run RUN`" in err
    assert not [*here.glob("*/*.json")]


def test_two_runs_that_were_never_tested_are_compared_on_validation_and_both_are_told(capsys, here):
    for model, name in enumerate(("one", "other")):
        predicted(100, model=model, **{**HASH, "split": "val"}).save(here / name / "predictions" / "val.npz")
    code, out, _ = called(capsys, "one", "--against", "other")
    assert code == 0
    for name in ("one", "other"):
        assert f"{name} has no predictions/test.npz yet" in out.replace("\n", " ")

"""Seeds that decide together are judged as one model, each with its own validation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from predicted import predicted, validation_of

from ecg_lightning.cli import main
from ecg_lightning.evaluate.averaging import averaged
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.evaluate.inputs import read_given
from ecg_lightning.evaluate.judging import evaluate
from ecg_lightning.evaluate.predictions import Predictions

FAST = ("--draws", "100", "--permutations", "100")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shuffled(predictions, seed=5):
    """The same file with its records and labels in another order."""
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(len(predictions.record_id)), random.permutation(len(predictions.label_names))
    return replace(
        predictions,
        record_id=predictions.record_id[rows],
        patient_id=predictions.patient_id[rows],
        fold=predictions.fold[rows],
        probabilities=predictions.probabilities[rows][:, columns],
        labels=predictions.labels[rows][:, columns],
        label_names=tuple(predictions.label_names[column] for column in columns),
    )


def write_run(name, model, *, other_order=False):
    test = predicted(100, model=model, num_patients=60, checkpoint="last.ckpt", checkpoint_sha256=str(model) * 64)
    validation = validation_of(test, model=model)
    for split, one in (("test", test), ("val", validation)):
        (shuffled(one) if other_order else one).save(Path(name) / "predictions" / f"{split}.npz")
    return name


def called(capsys, *arguments):
    capsys.readouterr()
    code = main(["evaluate", *arguments, *FAST])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_mean_of_the_seeds_is_judged_whatever_the_order_of_their_records(here):
    runs = [write_run("one", 1), write_run("two", 2, other_order=True), write_run("three", 3)]
    together = averaged(read_given(runs), "--predictions")
    files = [predicted(100, model=model, num_patients=60) for model in (1, 2, 3)]
    np.testing.assert_allclose(
        together.predictions.probabilities, np.mean([one.probabilities for one in files], axis=0), atol=1e-7
    )
    assert together.predictions.probabilities.dtype == np.float32
    expected = replace(files[0], probabilities=together.predictions.probabilities)
    found, by_hand = (evaluate(one).groups[0][1]["auroc"].value for one in (together.predictions, expected))
    assert found == by_hand
    assert found > max(evaluate(one).groups[0][1]["auroc"].value for one in files)


def test_thresholds_and_temperature_are_chosen_on_the_mean_of_the_validations(capsys, here):
    runs = [write_run("one", 1), write_run("two", 2, other_order=True)]
    arguments = ("--average", "true", "--calibrate", "true", "--output", "both.json")
    code, out, err = called(capsys, *runs, *arguments)
    assert (code, err) == (0, "")
    assert "the mean of 2: one, two" in out
    assert not (here / "one" / "thresholds.json").exists()  # they are of no run alone
    content = json.loads((here / "both.json").read_text())
    (file,) = content["files"]
    tests = [predicted(100, model=model, num_patients=60) for model in (1, 2)]
    valid = [validation_of(predicted(100, model=model, num_patients=60), model=model) for model in (1, 2)]
    mean_test, mean_valid = (
        replace(pair[0], probabilities=np.mean([one.probabilities for one in pair], axis=0)) for pair in (tests, valid)
    )
    by_hand = evaluate(mean_test, mean_valid, Options(draws=100, calibrate=True))
    assert file["thresholds"] == pytest.approx(by_hand.thresholds[0], abs=1e-6)
    assert file["temperature"] == pytest.approx(by_hand.temperatures[0], abs=1e-4)
    assert file["meta"]["checkpoint"] == ["last.ckpt", "last.ckpt"]


def test_two_recipes_are_compared_mean_against_mean(capsys, here):
    for model in (1, 2, 3, 4):
        write_run(f"run{model}", model)
    arguments = ("--against", "run3,run4", "--average", "true", "--output", "compared.json")
    code, out, err = called(capsys, "run1", "run2", *arguments)
    assert (code, err) == (0, "")
    assert "less the mean of 2: run3, run4" in out
    difference = json.loads((here / "compared.json").read_text())["comparison"]["macro"]["superdiagnostic"]["all"]
    means = [
        evaluate(averaged(read_given([f"run{one}" for one in pair]), "").predictions).groups[0][1]["auroc"].value
        for pair in ((1, 2), (3, 4))
    ]
    assert difference["auroc"]["value"] == pytest.approx(means[0] - means[1], abs=1e-9)


def test_what_is_compared_with_needs_no_validation(capsys, here):
    for model in (1, 2, 3, 4):
        write_run(f"run{model}", model)
    (here / "run3" / "predictions" / "val.npz").unlink()
    code, out, err = called(capsys, "run1", "run2", "--against", "run3,run4", "--average", "true")
    assert (code, err) == (0, "")
    assert "less the mean of 2: run3, run4" in out


def test_another_set_of_seeds_does_not_replace_what_was_written_of_the_first(capsys, here):
    for model in (1, 2, 3):
        write_run(f"run{model}", model)
    output = ("--average", "true", "--output", "mean.json")
    assert called(capsys, "run1", "run2", *output)[0] == 0
    before = (here / "mean.json").read_bytes()
    assert called(capsys, "run1", "run2", *output)[0] == 0
    code, _, err = called(capsys, "run1", "run3", *output)
    assert code == 1
    assert "--overwrite" in err
    assert (here / "mean.json").read_bytes() == before


def test_one_alone_is_no_mean(capsys, here):
    write_run("one", 1)
    code, _, err = called(capsys, "one", "--average", "true")
    assert code == 2
    assert "--average takes the mean of several seeds, --predictions names one alone: name two or more" in err


def test_a_validation_of_another_seed_is_refused(capsys, here):
    for model in (1, 2):
        write_run(f"run{model}", model)
    Predictions.load(here / "run1/predictions/val.npz").save(here / "run2/predictions/val.npz")
    code, _, err = called(capsys, "run1", "run2", "--average", "true")
    assert code == 1
    assert "the validation of run2 cannot be the validation of run2" in err

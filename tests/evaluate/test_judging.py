import json
from dataclasses import replace

import numpy as np
import pytest
from predicted import NAMES, predicted, validation_of
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.evaluate.calibration import calibration_error
from ecg_lightning.evaluate.evaluation import ALL_FIGURES, Options
from ecg_lightning.evaluate.judging import evaluate
from ecg_lightning.evaluate.protocols import SLICES, _labels_of

FAST = Options(draws=100, min_positives=10)


def test_the_figures_of_a_file_are_those_of_scikit_learn_at_thresholds_of_validation():
    one = predicted(150, unknown=0.1)
    evaluation = evaluate(one, validation_of(one), FAST)
    thresholds = evaluation.thresholds[0]
    for column, name in enumerate(NAMES):
        known = one.labels[:, column] <= 1
        target, score = one.labels[known, column], one.probabilities[known, column].astype(float)
        called = score >= thresholds[name]
        expected = {
            "auroc": roc_auc_score(target, score),
            "auprc": average_precision_score(target, score),
            "f1": f1_score(target, called),
            "sensitivity": recall_score(target, called),
            "specificity": recall_score(target, called, pos_label=0),
            "ece": calibration_error(one.probabilities, one.labels)[column],
        }
        for figure, value in expected.items():
            assert evaluation.labels[name][figure].value == pytest.approx(value, abs=1e-9)
        assert evaluation.counts[name]["prevalence"] == pytest.approx(target.mean())


def test_thresholds_do_not_depend_on_the_split_that_is_judged():
    one = predicted(100)
    valid = validation_of(one)
    other = replace(one, labels=1 - one.labels)
    assert evaluate(one, valid, FAST).thresholds == evaluate(other, valid, FAST).thresholds


def test_without_validation_there_is_no_figure_at_a_threshold_and_the_reason_is_said():
    evaluation = evaluate(predicted(80), options=FAST)
    assert np.isnan(evaluation.groups[0][1]["f1"].value)
    assert evaluation.thresholds == ()
    assert any("chosen on validation, never on the split that is judged" in note for note in evaluation.notes)


def test_every_macro_mean_is_the_mean_of_its_labels_inside_its_interval():
    one = predicted(150)
    evaluation = evaluate(one, validation_of(one), FAST)
    (group, figures), *_ = evaluation.groups
    for name in ALL_FIGURES:
        labels = [evaluation.labels[label][name].value for label in NAMES]
        assert figures[name].value == pytest.approx(np.mean(labels), abs=1e-12)
        if name != "ece":
            assert figures[name].low <= figures[name].value <= figures[name].high
    assert len(group.columns) == 5


def test_labels_with_few_positives_are_marked_and_the_macro_mean_is_given_without_them():
    one = predicted(150)
    one.labels[:, 1] = 0
    one.labels[:9, 1] = 1
    evaluation = evaluate(one, options=FAST)
    kinds = {group.kind: (group.columns.tolist(), figures["auroc"].value) for group, figures in evaluation.groups}
    assert kinds["all"][0] == [0, 1, 2, 3, 4]
    assert kinds["frequent"][0] == [0, 2, 3, 4]
    aurocs = [evaluation.labels[name]["auroc"].value for name in NAMES if name != "HYP"]
    assert kinds["frequent"][1] == pytest.approx(np.mean(aurocs))
    assert [name for name, counts in evaluation.counts.items() if not counts["frequent"]] == ["HYP"]
    assert evaluate(one, options=replace(FAST, min_positives=9)).counts["HYP"]["frequent"]


def test_labels_without_both_classes_are_named_and_in_no_mean():
    one = predicted(60)
    one.labels[:, 0], one.labels[:, 4] = 0, 255
    evaluation = evaluate(one, options=FAST)
    assert evaluation.undefined == ("CD", "STTC")
    assert evaluation.notes[0] == "without both classes, so in no mean: CD, STTC"
    assert evaluation.groups[0][0].columns.tolist() == [1, 2, 3]
    assert np.isnan(evaluation.labels["CD"]["brier"].value)
    one.labels[:] = 0
    with pytest.raises(InputError, match="no label has both classes among its 60 records"):
        evaluate(one, options=FAST)


def test_a_label_that_validation_lacks_has_no_threshold_and_is_named():
    one = predicted(60)
    valid = validation_of(one)
    valid.labels[:, 2] = 0
    evaluation = evaluate(one, valid, FAST)
    assert np.isnan(evaluation.labels["MI"]["f1"].value)
    assert "without both classes on validation, so without threshold, F1, ...: MI" in evaluation.notes
    others = [evaluation.labels[name]["f1"].value for name in NAMES if name != "MI"]
    assert evaluation.groups[0][1]["f1"].value == pytest.approx(np.mean(others))


def test_several_files_give_their_mean_and_spread_whatever_their_order_of_records_and_labels():
    files = [predicted(90, model=model) for model in (0, 1, 2)]
    order = np.random.default_rng(0).permutation(90)
    columns = [3, 1, 0, 2, 4]
    mixed = replace(
        files[1],
        **{name: getattr(files[1], name)[order] for name in ("record_id", "patient_id", "fold")},
        **{name: getattr(files[1], name)[order][:, columns] for name in ("probabilities", "labels")},
        label_names=tuple(NAMES[column] for column in columns),
    )
    evaluation = evaluate([files[0], mixed, files[2]], options=FAST)
    single = [evaluate(one, options=FAST).groups[0][1]["auroc"].value for one in files]
    macro = evaluation.groups[0][1]["auroc"]
    assert macro.value == pytest.approx(np.mean(single))
    assert macro.spread == pytest.approx(np.std(single, ddof=1))
    assert [file[0]["auroc"] for file in evaluation.per_file] == pytest.approx(single)


def test_a_temperature_makes_overconfident_probabilities_better_and_leaves_auroc():
    one = predicted(300)
    wild = replace(one, probabilities=1 / (1 + ((1 - one.probabilities) / one.probabilities) ** 3))
    valid = validation_of(one, num_records=300)
    wild_valid = replace(valid, probabilities=1 / (1 + ((1 - valid.probabilities) / valid.probabilities) ** 3))
    evaluation = evaluate(wild, wild_valid, replace(FAST, calibrate=True))
    macro = evaluation.calibration["macro"]
    assert evaluation.temperatures[0] > 1.5
    assert macro["brier_calibrated"] < macro["brier"]
    assert macro["ece_calibrated"] < macro["ece"]
    plain = evaluate(wild, wild_valid, FAST)
    assert evaluation.groups[0][1]["auroc"].to_json() == plain.groups[0][1]["auroc"].to_json()
    assert evaluation.thresholds == plain.thresholds
    with pytest.raises(UsageError, match=r"--calibrate chooses a temperature on validation, .* add --validation FILE"):
        evaluate(wild, options=replace(FAST, calibrate=True))


def test_the_json_holds_every_figure_and_no_nan():
    one = predicted(80)
    one.labels[:, 0] = 0
    content = evaluate(one, validation_of(one), replace(FAST, calibrate=True)).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["labels"]["CD"]["auroc"]["value"] is None
    assert set(content["labels"]["MI"]["auroc"]) == {"value", "low", "high", "spread", "low_t", "high_t"}
    assert content["macro"]["superdiagnostic"]["all"]["labels"] == ["HYP", "MI", "NORM", "STTC"]
    assert set(content["files"][0]["macro"]["superdiagnostic"]["all"]) == set(ALL_FIGURES)
    assert content["labels"]["MI"]["validation"].keys() == {"positives", "negatives", "unknown"}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"draws": 99}, "--draws is 99, it must be 100 or more"), ({"num_bins": 1}, "--bins is 1, it must be 2 or more")],
)
def test_options_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        replace(FAST, **change)


# --- what does not belong together ---


def with_label(one, row, column, value):
    labels = one.labels.copy()
    labels[row, column] = value
    return replace(one, labels=labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: predicted(29, model=1), r"records differ: 30 and 29, 1 only in file 1 \(30\)"),
        (lambda one: predicted(30, first_id=11), r"10 only in file 1 \(1, 10, 2, \.\.\.\), 10 only in file 2"),
        (lambda one: predicted(30, ("CD", "XX", *NAMES[2:])), r"labels differ: 5 and 5, 1 only in file 1 \(HYP\)"),
        (lambda one: with_label(one, 6, 2, 255), r"label values differ in 1 cell\(s\), such as MI of record 7: \d"),
        (lambda one: replace(one, patient_id=one.patient_id[::-1]), r"patients differ in 30 record\(s\), such as"),
        (lambda one: replace(one, meta={"task": "form"}), r"file 1 is of task superdiagnostic, file 2 of form"),
    ],
)  # fmt: skip
def test_files_of_something_else_are_refused_with_both_sides(change, message):
    one = predicted(30)
    with pytest.raises(InputError, match=message):
        evaluate([one, change(one)], options=FAST)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first_id": 100}, r"21 record\(s\) are in both, such as 100, 101, 102, \.\.\.: nothing is chosen on records"),
        ({"checkpoint_sha256": "b" * 64}, r"is of checkpoint aaaaaaaaaaaa, .* of bbbbbbbbbbbb"),
        ({"names": NAMES[:4]}, r"labels differ: 5 and 4, 1 only in file 1 \(STTC\)"),
    ],
)
def test_a_validation_of_something_else_is_refused(arguments, message):
    one = predicted(120, checkpoint_sha256="a" * 64)
    with pytest.raises(InputError, match=rf"cannot be the validation of file 1: .*{message}"):
        evaluate(one, validation_of(one, **arguments), FAST)


def test_ids_of_another_store_may_be_the_same_in_validation():
    one = predicted(60, store_sha256="a")
    assert evaluate(one, validation_of(one, first_id=1, store_sha256="b"), FAST).thresholds


# --- protocols ---


def of_all_71(**meta):
    return predicted(200, _labels_of("all"), prevalence=0.1, **{"task": "all", **meta})


def test_tasks_are_read_off_a_model_of_all_71_statements():
    evaluation = evaluate(of_all_71(), options=replace(FAST, protocol="all71_slices"))
    macro = evaluation.to_json()["macro"]
    assert [*macro] == [*SLICES]
    assert [len(macro[task]["all"]["labels"]) for task in SLICES] == [71, 44, 19, 12]
    form = [evaluation.labels[name]["auroc"].value for name in macro["form"]["all"]["labels"]]
    assert macro["form"]["all"]["auroc"]["value"] == pytest.approx(np.mean(form))
    assert evaluate(of_all_71(protocol="all71_slices"), options=FAST).protocol == "all71_slices"


@pytest.mark.parametrize(
    ("file", "asked", "message"),
    [
        (predicted(30), "all71_slices", r"file 1 has 5 labels, the protocol all71_slices reads the tasks off the 71"),
        (predicted(30, protocol="mine"), None, r"protocol 'mine' is unknown, known are per_task, all71_slices"),
        (of_all_71(protocol="all71_slices"), "per_task", r"says that its protocol is all71_slices, --protocol asks"),
    ],
)  # fmt: skip
def test_a_protocol_that_a_file_does_not_follow_is_refused(file, asked, message):
    with pytest.raises(InputError, match=message):
        evaluate(file, options=replace(FAST, protocol=asked))


def test_files_of_two_protocols_never_stand_in_one_table():
    with pytest.raises(InputError, match=r"file 1 is of protocol per_task, file 2 of all71_slices: they never stand"):
        evaluate([of_all_71(), of_all_71(protocol="all71_slices")], options=FAST)

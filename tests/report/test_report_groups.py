import pytest
from made_runs import METHOD, PLAIN, PROBE, write_grid_of_runs, write_run

from ecg_lightning.evaluate.compare import Difference, compare
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.report.judged import judge
from ecg_lightning.report.main_table import in_one_sentence, is_sure, main_sheets, relative_gain
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped, plain_of

FAST = Options(draws=100)


def groups_of(*paths):
    return grouped(read_runs([str(path) for path in paths]))[0]


def judged_of(*paths, split="test"):
    return judge(groups_of(*paths), FAST, split)


# --- what belongs together ---


def test_runs_that_differ_in_their_seed_alone_are_one_group_called_by_the_axis(tmp_path):
    groups = groups_of(write_grid_of_runs(tmp_path / "grid"))
    assert [(group.label, group.seeds) for group in groups] == [
        ("method", (1, 2)),
        ("plain", (1, 2)),
        ("probe", (1, 2)),
    ]


def test_single_runs_are_called_by_what_they_do_and_told_apart(tmp_path):
    other = {**METHOD, "probe": {"epochs": 2, "keep": "last"}}
    paths = [write_run(tmp_path / name, recipe) for name, recipe in (("a", METHOD), ("b", other), ("c", PROBE))]
    labels = [group.label for group in groups_of(*paths)]
    assert labels == [
        "probe + fine-tuning (drop path 0.3)",
        "probe + fine-tuning (drop path 0.3) (keep last)",
        "linear probe",
    ]


def test_the_same_run_in_two_experiments_counts_once_and_is_told(tmp_path):
    one, two = (write_grid_of_runs(tmp_path / name) for name in ("one", "two"))
    groups, repeats = grouped(read_runs([str(one), str(two)]))
    assert [group.seeds for group in groups] == [(1, 2)] * 3
    assert repeats[0].startswith("6 run(s) share setting, recipe and seed with another, which is judged: ")
    assert "two/method-seed1 repeats one/method-seed1" in repeats[0]


@pytest.mark.parametrize(
    "changes", [{"train_fraction": 0.3}, {"backbone": "mine.Net"}, {"task": "form"}, {"weights": "w.pt"}]
)
def test_plain_fine_tuning_of_another_setting_is_no_baseline(tmp_path, changes):
    method = write_run(tmp_path / "method", METHOD)
    same, other = write_run(tmp_path / "same", PLAIN), write_run(tmp_path / "other", PLAIN, **changes)
    groups = groups_of(method, other)
    assert plain_of(groups[0], groups) is None
    groups = groups_of(method, other, same)
    assert plain_of(groups[0], groups) is groups[2]
    assert plain_of(groups[2], groups) is None


@pytest.mark.parametrize(
    ("changes", "plain"),
    [({}, True), ({"drop_path_rate": 0.1}, False), ({"probe": {"epochs": 1}}, False), ({"fine_tune": {}}, False)],
)
def test_plain_fine_tuning_has_neither_probe_nor_stochastic_depth(tmp_path, changes, plain):
    (group,) = groups_of(write_run(tmp_path / "run", {**PLAIN, **changes}))
    assert group.is_plain is plain


# --- what is judged ---


def test_the_gain_is_the_paired_comparison_over_the_seeds_that_both_have(tmp_path):
    folder = write_grid_of_runs(tmp_path / "grid", seeds=(1, 2, 3))
    (folder / "plain-seed2" / "predictions" / "test.npz").unlink()
    judged, problems = judged_of(folder)
    method, plain = judged[0], judged[1]
    assert problems == []
    assert method.shared == (1, 3)
    expected = compare(
        [method.files[0], method.files[2]],
        plain.files,
        [group for group, _ in method.evaluation.groups],
        names=(["m"] * 2, ["p"] * 2),
        draws=100,
    )
    assert method.comparison.groups[0][1]["auroc"] == expected.groups[0][1]["auroc"]
    assert "by seed 1, 3 alone, which both have" in method.notes[-1]
    assert "without seed 2, which has no usable test predictions" in plain.notes
    base = sum(groups[0]["auroc"] for groups in plain.evaluation.per_file) / 2
    assert relative_gain(method) == pytest.approx(100 * method.comparison.groups[0][1]["auroc"].value / base)


def test_the_main_table_has_a_row_for_each_recipe_and_the_baseline_no_gain(tmp_path):
    judged, _ = judged_of(write_grid_of_runs(tmp_path / "grid"))
    sheet = main_sheets(judged, [])[0]
    rows = {row[1]: dict(zip(sheet.head, row, strict=True)) for row in sheet.rows}
    assert [*rows] == ["method", "plain", "probe"]
    assert rows["plain"]["AUROC gain [95 %]"] == "(baseline)"
    figure = judged[0].evaluation.groups[0][1]["auroc"]
    assert rows["method"]["AUROC [95 %]"][:3] == (figure.value, figure.low, figure.high)
    assert rows["method"]["AUROC gain [95 %]"].value > 0 > rows["probe"]["AUROC gain [95 %]"].value
    assert rows["method"]["p"].value == judged[0].comparison.groups[0][1]["auroc"].p_permutation


def test_without_plain_fine_tuning_there_is_no_column_of_gains_and_that_is_told(tmp_path):
    judged, _ = judged_of(write_run(tmp_path / "run", METHOD))
    sheet = main_sheets(judged, [])[0]
    assert sheet.head == ("task", "recipe", "labels", "seeds", "AUROC [95 %]", "SD", "AUPRC [95 %]")
    assert "there is no plain fine-tuning of the same setting among the runs" in sheet.caption


def test_figures_of_other_protocols_or_folds_stand_in_tables_of_their_own(tmp_path):
    here = write_run(tmp_path / "here", METHOD)
    there = write_run(tmp_path / "there", METHOD, test_folds=[5, 6], arguments={"first_id": 500})
    judged, _ = judged_of(here, there)
    sheets = [sheet for sheet in main_sheets(judged, []) if "frequent" not in sheet.name]
    assert [len(sheet.rows) for sheet in sheets] == [1, 1]
    assert "fold(s) 10" in sheets[0].caption
    assert "fold(s) 5, 6" in sheets[1].caption


def test_a_gain_is_only_called_one_where_the_permutation_test_says_so(tmp_path):
    judged, _ = judged_of(write_grid_of_runs(tmp_path / "grid", num_records=200))
    assert "no difference" not in in_one_sentence(judged[0])
    judged, _ = judged_of(
        write_run(tmp_path / "a", METHOD, 1, shift=1.2), write_run(tmp_path / "b", PLAIN, 1, shift=1.2)
    )
    assert in_one_sentence(judged[0]).endswith("no difference that these patients can show.")


@pytest.mark.parametrize(
    ("p", "holm", "sure"), [(0.01, None, True), (0.2, None, False), (0.01, 0.3, False), (0.01, 0.04, True)]
)
def test_the_permutation_test_decides_corrected_where_it_is_of_a_label(p, holm, sure):
    difference = Difference(0.1, 0.05, 0.2, p_bootstrap=0.002, p_permutation=p, p_permutation_holm=holm)
    assert is_sure(difference) is sure


def test_a_group_that_cannot_be_judged_is_told_and_the_others_are(tmp_path):
    folder = write_grid_of_runs(tmp_path / "grid", seeds=(1,))
    one = write_run(tmp_path / "one_class", METHOD, task="mine", arguments={"prevalence": 0.0})
    judged, problems = judged_of(folder, one)
    assert [one.group.label for one in judged] == ["method", "plain", "probe"]
    assert "mine: not judged:" in problems[0]
    assert "no label has both classes" in problems[0]

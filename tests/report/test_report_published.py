from dataclasses import replace

import pytest
from made_runs import METHOD, write_run

from ecg_lightning.backbones import backbone_card
from ecg_lightning.backbones.provenance import Pretraining
from ecg_lightning.data.labels import ptbxl_103_counts
from ecg_lightning.data.store import Store
from ecg_lightning.evaluate.evaluation import Options
from ecg_lightning.report.judged import judge
from ecg_lightning.report.main_table import main_sheets
from ecg_lightning.report.provenance import contamination, data_facts
from ecg_lightning.report.published_figures import published_beside
from ecg_lightning.report.run_files import read_runs
from ecg_lightning.report.run_groups import grouped
from ecg_lightning.report.run_sections import _main

FULL = ptbxl_103_counts()["tasks"]["superdiagnostic"]["labelled_records_per_split"]["test"]
MULTIRESNET = "ecg_lightning.backbones.MultiResNet"


def beside(tmp_path, **changes):
    run = write_run(tmp_path / "run", METHOD, **{"num_records": FULL, "backbone": MULTIRESNET, **changes})
    judged, _ = judge(grouped(read_runs([str(run)]))[0], Options(draws=100), "test")
    return judged, *published_beside(judged)


def test_published_figures_stand_beside_those_of_the_same_protocol_and_are_marked(tmp_path):
    judged, published, reasons = beside(tmp_path)
    (figures,) = backbone_card("multiresnet").published
    assert reasons == []
    assert [(one.value, one.source) for one in published] == [(figures.values["superclass"], figures.source)]
    sheet = main_sheets(judged, published)[0]
    assert sheet.rows[-1][:2] == ("superdiagnostic", "\N{DAGGER} multiresnet: trained from scratch")
    assert "published, not measured here" in sheet.caption


def test_published_figures_stand_in_the_table_of_their_own_folds_alone(tmp_path):
    changes = {"num_records": FULL, "backbone": MULTIRESNET}
    runs = [write_run(tmp_path / f"fold{fold}", METHOD, test_folds=[fold], **changes) for fold in (10, 9)]
    judged, _ = judge(grouped(read_runs([*map(str, runs)]))[0], Options(draws=100), "test")
    published, _ = published_beside(judged)
    here, there = (sheet for sheet in main_sheets(judged, published) if "frequent" not in sheet.name)
    assert [len(sheet.rows) for sheet in (here, there)] == [2, 1]
    assert "published" in here.caption
    assert "published" not in there.caption
    said = " ".join(part for part in _main(judged, *published_beside(judged)) if isinstance(part, str))
    assert "No published figure is shown beside these" not in said
    assert "Published figures that are not shown: multiresnet, superdiagnostic: test_folds is [9], not [10]" in said


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_folds": [1, 2, 3, 4, 5, 6, 7]}, "train_folds is [1, 2, 3, 4, 5, 6, 7], not [1, 2, 3, 4, 5, 6, 7, 8]"),
        ({"test_folds": [9]}, "test_folds is [9], not [10]"),
        ({"train_fraction": 0.5}, "train_fraction is 0.5, not 1.0"),
        ({"min_likelihood": 50.0}, "min_likelihood is 50.0, not 0.0"),
        ({"num_records": 42}, "42 test records, not the 2,158 of PTB-XL 1.0.3"),
        ({"task": "mine"}, "mine is no task of PTB-XL"),
        ({"backbone": "ecg_lightning.backbones.ViT"}, "vit: its card has no published figures"),
        ({"backbone": "mine.Net"}, "a network of one's own: its card has no published figures"),
    ],
)
def test_no_published_figure_stands_beside_another_protocol_and_the_reason_is_told(tmp_path, changes, reason):
    _, published, reasons = beside(tmp_path, **changes)
    assert published == []
    assert reason in " ".join(reasons)


def test_figures_whose_folds_the_card_does_not_tell_are_not_shown(tmp_path):
    _, published, reasons = beside(tmp_path, backbone="ecg_lightning.backbones.ECGFMBase")
    assert published == []
    assert len(reasons) == len(backbone_card("ecg_fm_base").published)
    assert all("another protocol, or one not told" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("backbone", "weights", "told"),
    [
        ("ECGFMBase", "w.pt", "CONTAMINATION: PTB-XL was in the pre-training of the published ecg_fm_base"),
        ("HuBERTECGSmall", "w.pt", "CONTAMINATION: PTB-XL may have been (its card says unknown) in the pre-training"),
        ("ViT", "w.pt", "The weights of vit are one's own (w.pt)"),
        ("ECGFounder", "w.pt", ""),
        ("ECGFMBase", None, ""),
    ],
)
def test_what_the_weights_may_have_seen_is_told(tmp_path, backbone, weights, told):
    run = write_run(tmp_path / "run", METHOD, backbone=f"ecg_lightning.backbones.{backbone}", weights=weights)
    said = contamination(read_runs([str(run)]))
    assert len(said) == bool(told)
    assert told in " ".join(said)


def test_weights_of_a_network_without_a_card_are_told_to_be_unknown(tmp_path):
    run = write_run(tmp_path / "run", METHOD, backbone="mine.Net", weights="w.pt")
    assert "Net is a network of one's own" in contamination(read_runs([str(run)]))[0]


@pytest.mark.parametrize(
    ("folds", "told"),
    [((1, 2, 9), ""), ((1, 2, 10), "trained before on tested fold(s) 10 of PTB-XL (masked auto-encoding)")],
)
def test_weights_that_tell_their_pre_training_are_doubted_where_it_holds_tested_folds(tmp_path, folds, told):
    one = Pretraining("PTB-XL", folds, 20, 18, 5, "masked auto-encoding", ("a" * 64,))
    run = write_run(tmp_path / "run", METHOD, backbone="ecg_lightning.backbones.ViT", weights="w.pt",
                    pretrained_on=[one.to_json()])  # fmt: skip
    read = read_runs([str(run)])
    said = contamination(read)
    assert len(said) == bool(told)
    assert told in " ".join(said)
    assert "20 records of 18 patients" in str(data_facts(read, []))


def test_folds_of_another_archive_than_the_pre_trainings_are_not_taken_for_its_own(tmp_path, tiny_store):
    seen = Pretraining("elsewhere", (10,), 20, 18, 5, "masked", ("a" * 64,)).to_json()
    network = {"backbone": "ecg_lightning.backbones.ViT", "weights": "w.pt", "pretrained_on": [seen]}
    run = write_run(tmp_path / "run", METHOD, **network)
    (read,) = read_runs([str(run)])
    assert len(contamination([read])) == 1  # the store is gone: it was the one of the fit
    opened = Store(tiny_store).attributes["sha256"]
    meta = {**read.test.meta, "store": str(tiny_store), "store_sha256": opened}
    assert contamination([replace(read, test=replace(read.test, meta=meta))]) == []

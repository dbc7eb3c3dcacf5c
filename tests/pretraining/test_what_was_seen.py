"""What is told of a training's records, and when folds count as seen: by every store, source and split."""

import numpy as np
import pytest
from shards import part_of

from ecg_lightning.backbones.provenance import Pretraining
from ecg_lightning.data.datamodule import PTBXLDataModule
from ecg_lightning.data.store import Store
from ecg_lightning.data.trained_on import what_is_trained_on
from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.errors import UsageError
from ecg_lightning.seen_records import refuse_seen, seen_folds


@pytest.fixture
def other_store(tiny_store, tmp_path):
    """Half of the records, as other patients' ones."""
    records = Store(tiny_store).records
    changes = {name: records[name][:40] + 1000 for name in ("ecg_id", "patient_id")}
    return part_of(tiny_store, tmp_path / "other.h5", range(40), **changes)


def hospital(data, number, monkeypatch):
    """Lets a store be one of another archive."""
    monkeypatch.setitem(data.stores.stores[number].attributes, "source_kind", "files")
    monkeypatch.setitem(data.stores.stores[number].attributes, "source", "/a/hospital")


def seen(*folds):
    return [Pretraining("PTB-XL", folds, 8, 8, 1, "words", ("hash",))]


def test_a_fraction_of_several_sources_is_told_as_it_was_drawn_over_all_of_them(tiny_store, other_store):
    for fraction in (0.3, 0.5, 0.7):
        data = PTBXLDataModule([str(tiny_store), str(other_store)], "superdiagnostic", train_fraction=fraction)
        numbers, _ = data.stores.store_of(data.rows("train"))
        told = [one["records"] for one in what_is_trained_on(data)]
        assert told == np.bincount(numbers, minlength=2).tolist()


def test_a_source_without_a_training_record_is_not_told(tiny_store, tmp_path, monkeypatch):
    other = part_of(tiny_store, tmp_path / "other.h5", range(8, 80, 10))  # fold 9 alone
    data = UnlabelledECGs([str(tiny_store), str(other)])
    hospital(data, 1, monkeypatch)
    assert [one["source"] for one in what_is_trained_on(data)] == ["PTB-XL"]


def test_the_hashes_are_those_of_the_stores(tiny_store):
    [told] = what_is_trained_on(UnlabelledECGs(str(tiny_store)))
    assert told["stores_sha256"] == [Store(tiny_store).attributes["sha256"]]


@pytest.mark.parametrize(("fold", "split"), [(2, "val"), (3, "test")])
def test_seen_folds_are_refused_in_whichever_split_they_are(tiny_store, fold, split):
    data = PTBXLDataModule(str(tiny_store), train_folds=[1], val_folds=[2], test_folds=[3])
    with pytest.raises(UsageError, match=rf"trained on fold\(s\) {fold} of PTB-XL, which are in data\.{split}_folds"):
        refuse_seen("w.pt", iter(seen(fold)), data, ("val", "test"))
    refuse_seen("w.pt", seen(1, 4), data, ("val", "test"))


def test_a_fold_of_which_the_store_has_no_record_was_not_seen_in_it(tiny_store, tmp_path):
    without = part_of(tiny_store, tmp_path / "without.h5", [row for row in range(80) if row % 10 != 9])
    data = UnlabelledECGs(str(without))
    assert seen_folds(seen(9, 10), data, "test") == ""
    assert seen_folds(seen(9, 10), data, "val") == "fold(s) 9 of PTB-XL"


def test_seen_folds_count_whichever_store_is_of_that_source(tiny_store, other_store, monkeypatch):
    data = UnlabelledECGs([str(other_store), str(tiny_store)])
    hospital(data, 0, monkeypatch)
    assert seen_folds(seen(9), data, "val") == "fold(s) 9 of PTB-XL"

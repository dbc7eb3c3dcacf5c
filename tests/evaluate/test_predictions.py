import json

import numpy as np
import pytest
from predicted import predicted, write_csv

from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.predictions import KEYS, Predictions


def content_of(one):
    """The arrays as anybody would save them."""
    arrays = {key: getattr(one, key) for key in KEYS[:5]}
    return {**arrays, "label_names": np.array(one.label_names), "meta": np.array(json.dumps(one.meta))}


def test_a_file_is_read_as_it_was_written(tmp_path):
    one = predicted(20, unknown=0.2)
    one.save(tmp_path / "test.npz")
    again = Predictions.load(tmp_path / "test.npz")
    for key in KEYS[:5]:
        assert np.array_equal(getattr(again, key), getattr(one, key))
    assert (again.label_names, again.meta) == (one.label_names, one.meta)


def test_a_file_of_others_may_have_names_for_records_and_double_precision(tmp_path):
    content = content_of(predicted(3))
    content |= {"record_id": np.array(["a", "b", "c"]), "probabilities": content["probabilities"].astype(np.float64)}
    np.savez(tmp_path / "mine.npz", **content)
    read = Predictions.load(tmp_path / "mine.npz")
    assert read.record_id.tolist() == ["a", "b", "c"]
    assert read.probabilities.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.full((4, 5), 2.5)}, r"of 20 cells are not from 0 to 1, such as 2\.5 of record 1"),
        ({"probabilities": np.full((4, 5), np.nan)}, r"give probabilities, not logits"),
        ({"probabilities": np.ones((4, 5), int)}, r"probabilities is int64 of shape \(4, 5\), it must be"),
        ({"probabilities": np.ones(4)}, r"it must be floating point of shape \(record, label\)"),
        ({"labels": np.zeros((3, 5), np.uint8)}, r"labels has shape \(3, 5\), probabilities ask for \(4, 5\)"),
        ({"labels": np.full((4, 5), 7, np.uint8)}, r"labels hold 7, they must be 0, 1, or 255 where unknown"),
        ({"patient_id": np.arange(3)}, r"patient_id has shape \(3,\), probabilities ask for \(4,\)"),
        ({"patient_id": np.arange(4.0)}, r"patient_id is of type float64, it must be whole numbers or text"),
        ({"record_id": np.array([1, 2, 2, 3])}, r"1 record\(s\) stand more than once, such as record_id 2"),
        ({"label_names": np.array(["a", "b", "a", "c", "d"])}, r"label_names holds a more than once"),
        ({"meta": np.array("[1]")}, r"meta is \[1\], it must be a JSON object"),
        ({"labels": np.zeros((4, 5), complex)}, r"labels is of type complex128, it must be numbers"),
        ({"labels": np.zeros((4, 5), "U1")}, r"labels is of type <U1, it must be numbers"),
        ({"fold": np.zeros(4, "U1")}, r"fold is of type <U1, it must be whole numbers"),
        ({"store": np.int16(0)}, r"store has shape \(\), probabilities ask for \(4,\)"),
        ({"store": np.zeros(4)}, r"store is of type float64, it must be whole numbers"),
    ],
)  # fmt: skip
def test_arrays_that_break_a_rule_are_refused_by_file_and_key(tmp_path, change, message):
    np.savez(tmp_path / "mine.npz", **{**content_of(predicted(4)), **change})
    with pytest.raises(InputError, match=rf"mine\.npz cannot be used: .*{message}"):
        Predictions.load(tmp_path / "mine.npz")


@pytest.mark.parametrize("damage", ["empty", "text", "half", "a key is missing", "meta is no JSON"])
def test_what_is_no_predictions_file_is_refused_with_what_it_must_be(tmp_path, damage):
    path, content = tmp_path / "mine.npz", content_of(predicted(4))
    if damage == "a key is missing":
        del content["patient_id"]
    if damage == "meta is no JSON":
        content["meta"] = np.array("{")
    np.savez(path, **content)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"a,b\n1,2\n", "half": whole[: len(whole) // 2]}.get(damage, whole))
    with pytest.raises(InputError, match=r"mine\.npz is not a predictions file .*it must be an npz with \('record_id'"):
        Predictions.load(path)


def test_arrays_that_unpack_into_more_than_is_read_are_refused_before_that(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "mine.npz", **content_of(predicted(4)) | {"labels": np.zeros(1 << 24, np.uint8)})
    monkeypatch.setattr("ecg_lightning.evaluate.predictions.MAX_BYTES", 1 << 20)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", None)
    with pytest.raises(InputError, match=r"it claims 16\.0 MiB of arrays, at most 1 MiB are read"):
        Predictions.load(tmp_path / "mine.npz")


def test_the_same_id_may_stand_in_two_stores(tmp_path):
    content = {**content_of(predicted(4)), "record_id": np.array([1, 2, 1, 2])}
    np.savez(tmp_path / "mine.npz", **content, store=np.array([0, 0, 1, 1], np.int16))
    assert Predictions.load(tmp_path / "mine.npz").record_id.tolist() == [1, 2, 1, 2]


# --- csv ---


@pytest.mark.parametrize("fold", [True, False])
def test_a_csv_holds_the_same_as_the_npz(tmp_path, fold):
    one = predicted(30, unknown=0.2, num_patients=12)
    read = Predictions.load(write_csv(one, tmp_path / "mine.csv", fold=fold))
    for key in ("record_id", "patient_id", "labels"):
        assert np.array_equal(getattr(read, key), getattr(one, key))
    np.testing.assert_array_equal(read.probabilities.astype(np.float32), one.probabilities)
    assert read.label_names == one.label_names
    assert set(read.fold.tolist()) == ({10} if fold else {0})


def test_columns_may_stand_in_any_order_and_ids_may_be_text(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "\ufeffy:B,p:A,record_id,p:B,patient_id,y:A\n1,0.25,r1,0.5,p1,0\n,0.75,r2,1e-3,p1,1.0\n0.0,1,7,0,p2,255\n"
    )
    read = Predictions.load(tmp_path / "mine.csv")
    assert read.label_names == ("A", "B")
    assert read.record_id.tolist() == ["r1", "r2", "7"]
    assert read.labels.tolist() == [[0, 1], [1, 255], [255, 0]]
    assert read.probabilities.tolist() == [[0.25, 0.5], [0.75, 0.001], [1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("record_id,p:A,y:A\n1,.5,1\n", r"column patient_id is missing"),
        ("record_id,patient_id,p:A,p:B,y:A\n1,1,.5,.5,1\n", r"column y:B is missing beside p:B"),
        ("record_id,patient_id,p:A,y:A,y:C\n1,1,.5,1,1\n", r"column p:C is missing beside y:C"),
        ("record_id,patient_id,p:A,y:A,age\n1,1,.5,1,70\n", r"column age is none of record_id, patient_id, fold"),
        ("record_id,patient_id\n1,1\n", r"no label: for each give p:LABEL \(probability\) and y:LABEL"),
        ("record_id,patient_id,p:A,y:A,p:A\n1,1,.5,1,.5\n", r"column p:A stands twice"),
        ("record_id,patient_id,p:A,y:A\n1,1,high,1\n", r"line 2, column p:A holds 'high', it must be a probability"),
        ("record_id,patient_id,p:A,y:A\n1,1,.5,0.5\n", r"line 2, column y:A holds '0\.5', it must be 0, 1, or empty"),
        ("record_id,patient_id,fold,p:A,y:A\n1,1,300,.5,1\n", r"column fold holds '300', it must be a whole number"),
        ("record_id,patient_id,p:A,y:A\n1,,.5,1\n", r"column patient_id is empty in 1 line"),
        ("record_id,patient_id,p:A,y:A\n1,1,.5\n", r"line 2 has 3 cells, the header 4"),
        ("record_id,patient_id,p:A,y:A\n1,1,1.5,1\n", r"1\.5 of record 1, A: give probabilities, not logits"),
        ("record_id,patient_id,p:A,y:A\n", r"holds no record"),
        ("", r"holds no record"),
        ("record_id,patient_id,p:A,y:A\n1,1,.5,1\n1,2,.5,1\n", r"1 record\(s\) stand more than once"),
    ],
)  # fmt: skip
def test_a_csv_that_breaks_a_rule_is_refused_by_file_column_and_rule(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(InputError, match=rf"mine\.csv.*{message}"):
        Predictions.load(tmp_path / "mine.csv")


def test_a_csv_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        Predictions.load(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"record_id\xff\xfe\n")
    with pytest.raises(InputError, match=r"bytes\.csv is not a csv in UTF-8"):
        Predictions.load(tmp_path / "bytes.csv")

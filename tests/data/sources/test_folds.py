from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_lightning.data.sources import SourceOptions
from ecg_lightning.data.sources.folds import chosen_folds, make_folds
from ecg_lightning.errors import UsageError

PATIENTS = st.lists(st.sampled_from([f"p{number}" for number in range(40)]), min_size=1, max_size=120)


@given(patients=PATIENTS, num_folds=st.integers(2, 12), seed=st.integers(0, 5))
def test_a_patient_is_in_one_fold_and_folds_differ_by_one_patients_records_at_most(patients, num_folds, seed):
    if len(set(patients)) < num_folds:
        with pytest.raises(UsageError, match=rf"set --folds to {len(set(patients))} or less, .*--fold 10"):
            make_folds(patients, num_folds, seed)
        return
    folds = make_folds(patients, num_folds, seed)
    assert len(set(zip(patients, folds.tolist(), strict=True))) == len(set(patients))
    sizes = Counter(folds.tolist())
    assert set(sizes) == set(range(1, num_folds + 1))
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(patients).values())


@given(patients=PATIENTS.filter(lambda names: len(set(names)) > 3), order=st.randoms(use_true_random=False))
def test_folds_are_the_same_whatever_the_order_of_the_records(patients, order):
    shuffled = [*patients]
    order.shuffle(shuffled)
    before = dict(zip(patients, make_folds(patients, 3, 7).tolist(), strict=True))
    assert dict(zip(shuffled, make_folds(shuffled, 3, 7).tolist(), strict=True)) == before


def test_records_without_shared_patients_fill_folds_evenly_and_another_seed_deals_otherwise():
    patients = [f"record {number}" for number in range(103)]
    folds = make_folds(patients, 10, 42)
    assert sorted(Counter(folds.tolist()).values()) == [10] * 7 + [11] * 3
    assert np.array_equal(folds, make_folds(patients, 10, 42))
    assert (folds != make_folds(patients, 10, 43)).mean() > 0.5


def test_all_records_can_be_put_into_one_fold_and_it_is_said():
    folds, note = chosen_folds(["a", "b"], SourceOptions(fold=10))
    assert (folds.tolist(), note) == ([10, 10], "all records are in fold 10")


def test_a_number_of_folds_that_fit_does_not_expect_is_said_with_the_flag():
    assert "set --data.train_folds" in chosen_folds([*"abcdef"], SourceOptions(folds=5))[1]
    assert "set --data" not in chosen_folds([*"abcdefghij"], SourceOptions())[1]

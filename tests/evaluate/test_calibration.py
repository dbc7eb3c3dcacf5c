import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

from ecg_lightning.errors import InputError
from ecg_lightning.evaluate.calibration import calibrated, calibration_error, fit_temperature, logits


def overconfident(temperature, num_records=4000, seed=0):
    """Probabilities whose logits are ``temperature`` times too far from 0."""
    random = np.random.default_rng(seed)
    z = random.normal(-1, 1.5, (num_records, 3))
    labels = (random.random(z.shape) < expit(z)).astype(np.uint8)
    return expit(temperature * z), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoilt_the_probabilities_is_found(temperature):
    probabilities, labels = overconfident(temperature)
    assert fit_temperature(probabilities, labels) == pytest.approx(temperature, rel=0.06)


def test_no_other_temperature_has_a_smaller_cross_entropy():
    probabilities, labels = overconfident(2.0, num_records=200)
    best = fit_temperature(probabilities, labels)
    losses = [
        log_loss(labels.ravel(), calibrated(probabilities, best * factor).ravel()) for factor in (0.99, 1.0, 1.01)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_unknown_labels_play_no_part_in_the_temperature():
    probabilities, labels = overconfident(2.0, num_records=300)
    hidden = np.random.default_rng(1).random(labels.shape) < 0.3
    garbled = np.where(hidden, 0.999, probabilities)
    expected = fit_temperature(probabilities[~hidden][:, None], labels[~hidden][:, None])
    assert fit_temperature(garbled, np.where(hidden, 255, labels)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_a_temperature_keeps_the_order_and_so_auroc(dtype, temperature):
    probabilities, labels = overconfident(4.0, num_records=500)
    probabilities = probabilities.astype(dtype)
    after = calibrated(probabilities, temperature)
    for column in range(3):
        assert roc_auc_score(labels[:, column], after[:, column]) == pytest.approx(
            roc_auc_score(labels[:, column], probabilities[:, column].astype(float)), abs=1e-12
        )


def test_probabilities_of_0_and_1_have_finite_logits_beyond_all_others():
    p = np.array([0, np.nextafter(np.float32(0), np.float32(1)), 0.5, 1 - 2**-24, 1], np.float32)
    assert np.isfinite(logits(p)).all()
    assert (np.diff(logits(p)) > 0)[1:].all()
    assert logits(p)[0] <= logits(p)[1]


def test_saturated_probabilities_on_the_wrong_side_do_not_break_the_temperature():
    probabilities, labels = overconfident(2.0, num_records=300)
    probabilities = probabilities.astype(np.float32)
    probabilities[0], labels[0] = 1, 0
    probabilities[1], labels[1] = 0, 1
    assert 1 < fit_temperature(probabilities, labels) < 50


@pytest.mark.parametrize(
    ("labels", "message"), [(0, "no temperature from 0.018 to 55 is the best"), (255, "no label is known")]
)
def test_a_temperature_that_cannot_be_chosen_is_an_error(labels, message):
    with pytest.raises(InputError, match=f"{message}.*leave out --calibrate"):
        fit_temperature(np.full((20, 2), 0.2), np.full((20, 2), labels, np.uint8))


@given(seed=st.integers(0, 2**31), bins=st.sampled_from([2, 5, 15]))
def test_the_error_over_equal_widths_is_that_of_scikit_learns_curve(seed, bins):
    probabilities, labels = overconfident(2.0, num_records=80, seed=seed)
    for column, got in enumerate(calibration_error(probabilities, labels, num_bins=bins, binning="equal_width")):
        p, y = probabilities[:, column], labels[:, column]
        share, mean = calibration_curve(y, p, n_bins=bins)
        counts = np.histogram(p, np.linspace(0, 1, bins + 1))[0]
        assert got == pytest.approx(np.abs(share - mean) @ counts[counts > 0] / len(p), abs=1e-9)


def test_bins_of_equal_mass_hold_as_many_records_each():
    p = np.linspace(0.001, 0.999, 60)
    labels = (np.arange(60) % 3 == 0).astype(np.uint8)
    chunks = np.split(np.arange(60), 6)
    expected = sum(abs(p[rows].mean() - labels[rows].mean()) * len(rows) for rows in chunks) / 60
    got = calibration_error(p[:, None], labels[:, None], num_bins=6)
    assert got[0] == pytest.approx(expected, abs=0.02)  # edges lie on records


def test_the_order_of_records_that_tie_changes_nothing():
    random = np.random.default_rng(0)
    p, labels = random.random((90, 1)).round(1), (random.random((90, 1)) < 0.4).astype(np.uint8)
    errors = [
        calibration_error(p[order], labels[order], num_bins=7)[0]
        for order in (random.permutation(90) for _ in range(5))
    ]
    np.testing.assert_allclose(errors, errors[0], rtol=0, atol=1e-12)


def test_calibrated_probabilities_have_a_smaller_error_than_overconfident_ones():
    probabilities, labels = overconfident(3.0)
    after = calibrated(probabilities, fit_temperature(probabilities, labels))
    assert (calibration_error(after, labels) < 0.3 * calibration_error(probabilities, labels)).all()


def test_a_label_that_is_nowhere_known_has_no_error():
    assert np.isnan(calibration_error(np.full((4, 1), 0.5), np.full((4, 1), 255, np.uint8)))

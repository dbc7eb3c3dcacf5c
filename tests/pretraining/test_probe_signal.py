"""The linear probe beside the loss: a ridge regression, as scikit-learn has it, that touches no weight."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from test_autoencoder import autoencoder
from tiny import changed, of_lightning, state_of, tiny_trainer

from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.pretraining.probe_signal import PENALTIES, ProbeSignal, _features, _labelled_records, ridge_scores
from ecg_lightning.pretraining.schedule import MaskedPretraining

pytestmark = of_lightning


@pytest.mark.parametrize("noise", [0.1, 2, 30])
def test_it_is_scikit_learns_ridge_regression_with_the_penalty_that_leaving_one_out_chooses(noise):
    rng = np.random.default_rng(0)
    features, judged = rng.normal(3, 2, (60, 7)), rng.normal(3, 2, (20, 7))
    labels = (features[:, :2] + rng.normal(0, noise, (60, 2)) > 3).astype(np.uint8)
    ours = ridge_scores(torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(judged)).logit()
    scaler = StandardScaler().fit(features)
    alphas = [60 * penalty for penalty in PENALTIES]
    ridge = RidgeCV(alphas).fit(scaler.transform(features), labels)  # leaves each record out once
    np.testing.assert_allclose(ours.numpy(), ridge.predict(scaler.transform(judged)), atol=1e-9)


def test_unknown_labels_and_flat_features_leave_the_scores_finite():
    features = torch.cat([torch.randn(30, 3, dtype=torch.float64), torch.ones(30, 1, dtype=torch.float64)], dim=1)
    labels = torch.randint(0, 2, (30, 2), dtype=torch.uint8)
    labels[:10, 0] = 255
    labels[:, 1] = 255
    assert ridge_scores(features, labels, features).isfinite().all()


@pytest.fixture(scope="module")
def probed(tiny_store, tmp_path_factory):
    """A pre-training of 3 epochs that probes behind the second and the last."""
    module, data = autoencoder(), UnlabelledECGs(str(tiny_store), batch_size=16)
    plan = MaskedPretraining(3, 1e-3, probe_every=2)
    seen = []

    class Look(ProbeSignal):
        def on_validation_epoch_end(self, trainer, pl_module):
            before = state_of(pl_module)
            super().on_validation_epoch_end(trainer, pl_module)
            assert not changed(before, state_of(pl_module))
            assert pl_module.backbone.training is False  # the validation's mode is left as it is
            seen.append((trainer.current_epoch, "val/probe_auroc" in trainer.callback_metrics))

    trainer = tiny_trainer(tmp_path_factory.mktemp("probed"), plan, Look(), max_epochs=3)
    trainer.fit(module, data)
    return module, data, trainer, seen


def test_it_comes_every_so_many_epochs_and_behind_the_last(probed):
    *_, seen = probed
    assert seen == [(0, False), (1, True), (2, True)]


def test_its_figure_is_the_macro_auroc_of_the_validation_fold(probed):
    module, data, trainer, _ = probed
    module.eval()
    records = _labelled_records(data, module, "superdiagnostic")
    assert {name: len(rows) for name, (_, rows) in records.items()} == {"train": 64, "val": 8}
    (train, y), (val, truth) = (
        (_features(trainer, module, dataset, rows), dataset.labels.of(rows)[1]) for dataset, rows in records.values()
    )
    scores = ridge_scores(train, torch.from_numpy(y), val).numpy()
    both = [column for column in range(truth.shape[1]) if 0 < truth[:, column].sum() < len(truth)]
    expected = np.mean([roc_auc_score(truth[:, column], scores[:, column]) for column in both])
    assert float(trainer.callback_metrics["val/probe_auroc"]) == pytest.approx(expected, abs=1e-6)


def test_stores_without_the_task_are_not_probed_and_it_is_said(tiny_store, caplog):
    data = UnlabelledECGs(str(tiny_store))
    with caplog.at_level("WARNING", "ecg_lightning"):
        assert _labelled_records(data, autoencoder(), "rare") == {}
    assert "no store has the labels of task rare: the features are not probed" in caplog.text

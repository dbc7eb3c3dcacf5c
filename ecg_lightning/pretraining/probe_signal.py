"""An honest signal beside the loss: how well a linear model reads the labels off the features, so far."""

import logging

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ecg_lightning.chains import run_batch_chain
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.labelled_blocks import TaskLabels
from ecg_lightning.data.labels import UNKNOWN_LABEL
from ecg_lightning.data.sampler import Request, Rows
from ecg_lightning.data.splits import Split
from ecg_lightning.data.store_set import StoreSet
from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.errors import UsageError
from ecg_lightning.metrics import label_scores, macro
from ecg_lightning.pretraining.autoencoder import MaskedAutoencoder
from ecg_lightning.pretraining.schedule import MaskedPretraining

log = logging.getLogger(__name__)
MOST_RECORDS = 20_000
"""Of a split; of a larger one as many, spread evenly."""
CHUNK = 64
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the ridge regression, in multiples of the number of training records; features have deviation 1."""


class ProbeSignal(Callback):
    """Every few epochs a ridge regression on the pooled features of the training folds, judged on the validation folds.

    In closed form and float64, so that it is the same on any number of processes and after a resume; the encoder sees
    all patches, as in fine-tuning. It never touches a weight.
    """

    def __init__(self) -> None:
        self._data: dict[str, tuple[ECGDataset, Rows]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds its records before the first epoch: what is wrong with them is told now."""
        plan = MaskedPretraining.of(trainer)
        if plan.probe_every:
            assert isinstance(pl_module, MaskedAutoencoder)
            self._data = _labelled_records(trainer.datamodule, pl_module, plan.probe_task)  # type: ignore[attr-defined]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs `val/probe_auroc` and `val/probe_auprc`, macro over the labels with both classes."""
        plan, epoch = MaskedPretraining.of(trainer), trainer.current_epoch + 1
        due = plan.probe_every and (epoch % plan.probe_every == 0 or epoch == plan.epochs)
        if trainer.sanity_checking or trainer.state.fn != "fit" or not due or not self._data:
            return
        assert isinstance(pl_module, MaskedAutoencoder)
        (train, train_labels), (val, val_labels) = (
            (_features(trainer, pl_module, dataset, rows), torch.from_numpy(dataset.labels.of(rows)[1]))
            for dataset, rows in self._data.values()
        )
        scores = ridge_scores(train, train_labels, val)
        names = self._data["val"][0].labels.names
        auroc, auprc = label_scores(scores, val_labels, names)
        for name, figures in (("probe_auroc", auroc), ("probe_auprc", auprc)):
            pl_module.log(f"val/{name}", macro(figures), prog_bar=name == "probe_auroc", sync_dist=True)


def _labelled_records(data: UnlabelledECGs, module: MaskedAutoencoder, task: str) -> dict[str, tuple[ECGDataset, Rows]]:
    """The labelled records of the first source that has the task; nothing where none has, said once."""
    for number in range(data.stores.num_sources):
        of_source = zip(data.stores.stores, data.stores.source_of_store, strict=True)
        stores = [one for one, source in of_source if source == number]
        if task not in stores[0].statements.tasks:
            continue
        labels = TaskLabels(StoreSet([one.path for one in stores]), task)
        signal = module.backbone.signal
        found = {}
        for name in ("train", "val"):
            dataset = ECGDataset(labels, signal, training=False, seed=0)
            dataset.in_millivolts = True
            rows = Split(labels, data.folds[name], True).all_rows()
            found[name] = (dataset, rows[:: -(-len(rows) // MOST_RECORDS) or 1])
        if not all(len(rows) for _, rows in found.values()):
            raise UsageError(
                f"pretraining.probe_task {task}: {stores[0].path} has no record of it in train_folds or val_folds: "
                "choose others, or set pretraining.probe_every=0"
            )
        log.info(
            "linear probe on %s of %s: features of %d records learn, %d judge",
            task, stores[0].path, len(found["train"][1]), len(found["val"][1]),
        )  # fmt: skip
        return found
    log.warning("no store has the labels of task %s: the features are not probed, the loss alone is shown", task)
    return {}


@torch.no_grad()
def _features(trainer: Trainer, module: MaskedAutoencoder, dataset: ECGDataset, rows: Rows) -> Tensor:
    """(record, dim) float64 on the CPU, the mean over a record's windows; each process computes its share."""
    backbone = module.backbone
    features = torch.zeros(len(rows), backbone.feature_dim, device=module.device)
    for start in range(CHUNK * trainer.global_rank, len(rows), CHUNK * trainer.world_size):
        part = rows[start : start + CHUNK]
        ecg = dataset.__getitems__(Request(part, 0, 0, len(part)))["ecg"].to(module.device)
        ecg = run_batch_chain(backbone.signal.batch_chain, ecg)
        with trainer.precision_plugin.forward_context():
            each = backbone(ecg.flatten(0, 1).to(next(backbone.parameters()).dtype)).unflatten(0, ecg.shape[:2])
        features[start : start + len(part)] = each.float().mean(dim=1)
    if trainer.world_size > 1:
        torch.distributed.all_reduce(features)
    return features.double().cpu()


def ridge_scores(features: Tensor, labels: Tensor, judged: Tensor) -> Tensor:
    """Scores in 0..1 of the ``judged`` features (record, dim) by a ridge regression on ``features`` and ``labels``.

    ``labels`` (record, label) 0, 1, or 255 where unknown, which counts as the label's mean. Features are brought to
    mean 0 and deviation 1 by those that it learns from. The penalty is chosen on these alone, by leaving each out once.
    """
    known = labels.ne(UNKNOWN_LABEL)
    target = labels.where(known, 0).double()
    means = target.sum(dim=0) / known.sum(dim=0).clamp(min=1)
    target = torch.where(known, target, means) - means
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    deviation = deviation.clamp(min=1e-9)
    x, y = ((each - mean) / deviation for each in (features, judged))
    values, vectors = torch.linalg.eigh(x.T @ x)
    penalty = _penalty_left_out(x @ vectors, target, known, values)
    scores: Tensor = (y @ vectors) @ ((x @ vectors).T @ target / (values + penalty)[:, None]) + means
    return scores.sigmoid()


def _penalty_left_out(x: Tensor, target: Tensor, known: Tensor, values: Tensor) -> float:
    """Of `PENALTIES`, the one with the least squared error over records that were each left out, in closed form.

    ``x`` (record, dim) along the eigenvectors of its Gram matrix, whose eigenvalues are ``values``.
    """
    errors = {}
    for penalty in (len(x) * one for one in PENALTIES):
        weighted = x / (values + penalty)
        leverage = (x * weighted).sum(dim=1, keepdim=True) + 1 / len(x)  # the mean is learnt as well
        left_out = (target - weighted @ (x.T @ target)) / (1 - leverage)
        errors[penalty] = float((left_out.square() * known).sum())
    return min(errors, key=errors.__getitem__)

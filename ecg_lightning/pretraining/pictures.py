"""What a masked autoencoder makes of an ECG: the record, what the encoder saw of it, and what it filled in."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray

from ecg_lightning.chains import run_batch_chain
from ecg_lightning.data.dataset import ECGDataset
from ecg_lightning.data.sampler import Request
from ecg_lightning.data.unlabelled import UnlabelledECGs
from ecg_lightning.pretraining.autoencoder import EPS, MaskedAutoencoder
from ecg_lightning.pretraining.masking import masked, record_noise

FOLDER = "reconstructions"


class Filled(NamedTuple):
    """One ECG, (lead, time) in mV as the network takes it."""

    ecg: NDArray[np.float64]
    reconstructed: NDArray[np.float64]
    """Masked patches from the network, in the mean and deviation that they had; the others as they were."""
    masked: NDArray[np.bool_]
    """(lead, time): where the encoder did not look."""
    loss: float
    """Mean squared error over the masked patches, each in its own deviation."""


def draw_reconstructions(trainer: Trainer, module: MaskedAutoencoder, data: UnlabelledECGs, folder: Path) -> list[Path]:
    """Draws so many records of the validation folds as `MaskedPretraining.pictures` says, each always with one mask."""
    from ecg_lightning.pretraining.drawing import draw_filled
    from ecg_lightning.pretraining.schedule import MaskedPretraining

    rows = data.rows("val")[: MaskedPretraining.of(trainer).pictures]
    signal = module.backbone.signal
    if not len(rows):
        return []
    paths = []
    for row, ecg_id in zip(rows, data.stores.take("ecg_id", rows).tolist(), strict=True):
        path = folder / FOLDER / f"ecg_{ecg_id}.png"
        draw_filled(path, filled(module, data, int(row)), signal.sampling_rate, signal.leads)
        paths.append(path)
    return paths


@torch.no_grad()
def filled(module: MaskedAutoencoder, data: UnlabelledECGs, row: int) -> Filled:
    """The first window of one record, and what the network makes of it under the mask that validation has for it."""
    backbone, signal = module.backbone, module.backbone.signal
    dataset = ECGDataset(data.task_labels, signal, training=False, seed=0)
    dataset.in_millivolts = True
    millivolts = dataset.__getitems__(Request(np.array([row]), 0, 0, 1))["ecg"][:, 0]
    taken = run_batch_chain(signal.batch_chain, millivolts.to(module.device))
    ecg = taken.to(next(module.parameters()).dtype)
    noise = record_noise(torch.tensor([row]), backbone.num_patches, module.seed).to(module.device)
    training = module.training
    module.eval()
    predicted, visible, losses = module(ecg, noise)
    module.train(training)
    values = backbone.patch_values(ecg).double()
    variance, mean = torch.var_mean(values, dim=-1, keepdim=True)
    hidden = masked(visible, values.shape[1]).unsqueeze(-1)
    guessed = torch.where(hidden, predicted.double() * (variance + EPS).sqrt() + mean, values)
    drawn = [backbone.ecg_of(one)[0].cpu().numpy() for one in (values, guessed, hidden.expand_as(values).double())]
    original, reconstructed = (_in_millivolts(one, drawn[0], millivolts[0].double().numpy()) for one in drawn[:2])
    return Filled(original, reconstructed, drawn[2] > 0.5, float(losses[0]))


def _in_millivolts(
    ecg: NDArray[np.float64], taken: NDArray[np.float64], millivolts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``ecg`` in the network's units -> mV, by the line that brings what it took nearest to the record, lead by lead.

    Exact for a z-score. Where the rate changes on the way to the network there is no such line: its units are kept.
    """
    if taken.shape != millivolts.shape:
        return ecg
    centred = taken - taken.mean(axis=1, keepdims=True)
    middle = millivolts.mean(axis=1, keepdims=True)
    power = (centred**2).sum(axis=1, keepdims=True)
    slope = np.divide(
        (centred * (millivolts - middle)).sum(axis=1, keepdims=True), power, where=power > 0, out=0 * power
    )
    line: NDArray[np.float64] = middle + slope * (ecg - taken.mean(axis=1, keepdims=True))
    return line

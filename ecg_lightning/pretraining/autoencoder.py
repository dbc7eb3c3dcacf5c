"""MaskedAutoencoder, the LightningModule that makes a backbone: hides patches of an ECG and learns to fill them in."""

import logging
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ecg_lightning.backbones import Backbone, PatchBackbone, load_weights
from ecg_lightning.backbones.provenance import TRAINED_ON, Origins
from ecg_lightning.data.batches import Batch
from ecg_lightning.draws import seed_draws, seed_of
from ecg_lightning.errors import InputError, UsageError
from ecg_lightning.optim import adamw, parameter_groups
from ecg_lightning.pretraining.decoder import Decoder
from ecg_lightning.pretraining.masking import masked, record_noise, step_noise, visible_of
from ecg_lightning.same_network import refuse_other_network

log = logging.getLogger(__name__)
DECODER = "decoder"
BETAS = (0.9, 0.95)
"""Of AdamW, as He et al. 2021, table 8, and ST-MEM's published training have them."""
EPS = 1e-6
"""Added to the variance of a patch."""


class Reconstruction(NamedTuple):
    """What the network made of a batch."""

    predicted: Tensor
    """(batch, patch, value), each patch in its own mean and deviation."""
    visible: Tensor
    """(batch, kept) int64: places of the patches that it saw."""
    losses: Tensor
    """(batch,): mean squared error over the masked patches."""


class MaskedAutoencoder(LightningModule):
    """Masked auto-encoding of ECGs: an encoder over the visible patches, a light decoder, the loss on the masked ones.

    Source: He et al. 2021 (arXiv 2111.06377), equation-free; for ECGs ST-MEM (arXiv 2402.09450) and MTECG (arXiv
    2309.07136). Targets are the values of a patch minus their mean, divided by their deviation (He et al., table 1d).
    Differs from all: the decoder sees patches alone, no class token and no separators. Differs from ST-MEM: the masked
    patches are drawn over all leads at once, not as many in each, and one decoder sees all of them.

    Args:
        backbone: a network over patches: vit, mtecg_ti, st_mem_base, st_mem_small, or one's own `PatchBackbone`.
        mask_ratio: share of the patches that is hidden.
        decoder_dim: width of the decoder.
        decoder_depth: its blocks.
        decoder_heads: its attention heads.
        weights: of an encoder to go on from, a file as `fit` takes it; none: random start.
        weights_sha256: what that file must hash to.
        seed: of all random draws of the training steps (linked from seed_everything on the command line).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        mask_ratio: float = 0.75,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        weights: str | None = None,
        weights_sha256: str | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, PatchBackbone):
            raise UsageError(
                f"model.backbone is {backbone.flag_name()}, which has no grid of patches to mask: choose vit, mtecg_ti,"
                " st_mem_base or st_mem_small, or a PatchBackbone of your own"
            )
        if not 0 < mask_ratio < 1:
            raise UsageError(f"model.mask_ratio is {mask_ratio}, it must lie between 0 and 1")
        if backbone.num_patches < 2:
            raise UsageError(f"{backbone.flag_name()} cuts an ECG into one patch: make model.backbone.patch smaller")
        leads, points = backbone.patch_size
        self.backbone: PatchBackbone = backbone
        self.decoder = Decoder(
            backbone.feature_dim, backbone.patch_grid, leads * points,
            dim=decoder_dim, depth=decoder_depth, heads=decoder_heads,
        )  # fmt: skip
        self.mask_ratio, self.seed = mask_ratio, seed
        self.weights, self.weights_sha256 = weights, weights_sha256
        self.resumes = False
        """Whether a checkpoint brings all weights."""
        self.origins = Origins()
        """What the weights were trained on; set by the command that trains."""

    def setup(self, stage: str) -> None:
        """Loads the weights to go on from, unless a checkpoint brings all."""
        if stage == "fit" and self.weights is not None and not self.resumes:
            log.info("%s", load_weights(self.backbone, self.weights, sha256=self.weights_sha256))

    def forward(self, ecg: Tensor, noise: Tensor) -> Reconstruction:
        """``ecg`` (batch, lead, time), preprocessed as `backbone.signal` says, ``noise`` (batch, patch)."""
        visible = visible_of(noise, self.mask_ratio)
        predicted = self.decoder(self.backbone.visible_tokens(ecg, visible), visible)
        target = normalised(self.backbone.patch_values(ecg))
        precise = torch.promote_types(predicted.dtype, torch.float32)
        errors = (predicted.to(precise) - target.to(precise)).square().mean(dim=2)
        hidden = masked(visible, errors.shape[1])
        return Reconstruction(predicted, visible, (errors * hidden).sum(dim=1) / hidden.sum(dim=1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss whose mean over processes is the mean over the global batch, however unevenly it was split."""
        place = (self.seed, self.current_epoch, batch_idx)
        seed_draws(seed_of(*place, self.global_rank), self.device)
        ecg = batch["ecg"].squeeze(1)
        rows = slice(batch["first"], batch["first"] + len(ecg))
        noise = step_noise(batch["num_global"], rows, self.backbone.num_patches, seed_of(*place))
        losses = self(ecg, noise.to(self.device, non_blocking=True)).losses
        # A process without a record of a short batch was given another's, to take part in the step.
        counts = batch.get("counts", True)
        loss: Tensor = losses.sum() * (counts * self.trainer.world_size / batch["num_global"])
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss of the validation records, each always under the same masks; all windows of a record count alike."""
        ecg = batch["ecg"]
        noise = record_noise(batch["index"], self.backbone.num_patches, self.seed).to(self.device)
        losses = self(ecg.flatten(0, 1), noise.repeat_interleave(ecg.shape[1], dim=0)).losses
        self.log("val/loss", losses.mean(), prog_bar=True, sync_dist=True, batch_size=len(ecg))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; `MaskedPretraining` sets rates and weight decay per step."""
        clips = self._trainer is not None and bool(self.trainer.gradient_clip_val)
        return adamw(parameter_groups(self.backbone, self.decoder, DECODER), unscales=not clips, betas=BETAS)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names what the weights were trained on."""
        checkpoint[TRAINED_ON] = self.origins.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another network, before anything is loaded."""
        if "label_names" in checkpoint:
            raise InputError("the checkpoint is of a classifier, not of a pre-training: name another --run")
        refuse_other_network(self, checkpoint)


def normalised(values: Tensor) -> Tensor:
    """``values`` (..., value) of patches, each minus its mean and divided by its deviation; a flat one becomes 0."""
    variance, mean = torch.var_mean(values, dim=-1, keepdim=True)
    return (values - mean) / (variance + EPS).sqrt()

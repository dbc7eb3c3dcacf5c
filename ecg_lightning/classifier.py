"""ECGClassifier, the LightningModule: a backbone and a linear head, its loss, its steps, its random draws."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from ecg_lightning.backbones import Backbone, load_weights
from ecg_lightning.backbones.provenance import TRAINED_ON, Origins
from ecg_lightning.compiling import CompileMode, compile_in_place, is_compiled, told_of_lengths, uncompile
from ecg_lightning.data.batches import Batch
from ecg_lightning.data.labels import UNKNOWN_LABEL
from ecg_lightning.draws import seed_draws, seed_of
from ecg_lightning.errors import InputError
from ecg_lightning.metrics import Scores, SplitScores
from ecg_lightning.optim import adamw, parameter_groups
from ecg_lightning.same_network import refuse_other_network
from ecg_lightning.stochastic_depth import branches, draw_coins, forget_coins

if TYPE_CHECKING:
    from ecg_lightning.frozen_features import FrozenFeatures

log = logging.getLogger(__name__)


class ECGClassifier(LightningModule):
    """Multi-label statements from ECGs; `ecg_lightning.post_training.PostTraining` says when what is trained, and how.

    Args:
        backbone: the network; by name as a flag (`--model.backbone vit`), by class path in configs, a user's own too.
        label_names: the task's labels in the order of the head's outputs (linked from the data on the command line).
        weights: pre-trained weights for the backbone (.safetensors, or a torch file without code), by path or from the
            Hugging Face hub (hf://owner/repository/file); none: random start.
        weights_sha256: what the file must hash to; the run's config holds it in any case.
        dropout: dropout on the features in front of the head.
        pos_weight: `balanced` weights a label's positives by its (known) negatives / positives in the training split.
        seed: of all random draws of the training steps (linked from seed_everything on the command line).
        compile: a mode of `torch.compile` that `fit` runs the backbone in; none: as written.
    """

    pos_weight: Tensor

    def __init__(
        self,
        backbone: Backbone,
        label_names: Sequence[str],
        *,
        weights: str | None = None,
        weights_sha256: str | None = None,
        dropout: float = 0.0,
        pos_weight: Literal["none", "balanced"] = "none",
        seed: int = 42,
        compile: CompileMode | None = None,
    ) -> None:
        super().__init__()
        if not label_names:
            raise InputError("label_names is empty, a classifier needs one label or more: choose another data.task")
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.feature_dim, len(label_names))
        self.register_buffer("pos_weight", torch.ones(len(label_names)))
        self.label_names = tuple(label_names)
        self.weights, self.weights_sha256 = weights, weights_sha256
        self.balanced = pos_weight == "balanced"
        self.seed = seed
        self.compile_mode = compile
        self.drops = branches(backbone)
        """Of the backbone, found once: each step asks for them several times."""
        self.resumes = False
        """Whether a checkpoint brings all weights: at `setup` the trainer does not yet know of it."""
        self.origins = Origins()
        """What the weights were trained on; set by the command that trains."""
        self.frozen_features: FrozenFeatures | None = None
        self.val_scores, self.test_scores = SplitScores(label_names), SplitScores(label_names)
        self.scores: Scores | None = None
        """Of the last pass over a split, the same on each process."""

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time), preprocessed as `backbone.signal` says -> logits (batch, label)."""
        logits: Tensor = self.head(self.dropout(self.backbone(ecg)))
        return logits

    def setup(self, stage: str) -> None:
        """Compiles; loads the pre-trained weights and weighs the positives, unless a checkpoint brings both."""
        if stage != "fit":
            return
        if self.compile_mode is not None:
            compile_in_place(self.backbone, self.compile_mode)
        if self.resumes:
            return
        if self.weights is not None:
            log.info("%s", load_weights(self.backbone, self.weights, sha256=self.weights_sha256))
        if self.balanced:
            labels = torch.from_numpy(self.trainer.datamodule.train_labels())  # type: ignore[attr-defined]
            negatives, positives = ((labels == truth).sum(dim=0).double() for truth in (0, 1))
            self.pos_weight.copy_(negatives / positives.clamp(min=1))

    def teardown(self, stage: str) -> None:
        """Takes the compiled form off: predictions, exports and other commands run the backbone as written."""
        if is_compiled(self.backbone):
            uncompile(self.backbone)

    def window_logits(self, batch: Batch) -> Tensor:
        """Logits (batch, window, label); the frozen backbone's features are looked up where they are known already."""
        if "ecg" not in batch:
            assert self.frozen_features is not None
            features = self.frozen_features.of(batch["index"], self.current_epoch if self.training else None)
        else:
            ecg = batch["ecg"]
            train = torch.is_grad_enabled() and any(p.requires_grad for p in self.backbone.parameters())
            windows = told_of_lengths(self.backbone, self.drops, ecg.flatten(0, 1))
            with torch.set_grad_enabled(train):
                features = self.backbone(windows).unflatten(0, ecg.shape[:2])
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def record_probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (batch, label) from ``logits`` (batch, window, label), joined as the backbone's spec says."""
        probabilities = logits.sigmoid()
        maximum = self.backbone.signal.windows.aggregate == "max"
        return probabilities.amax(dim=1) if maximum else probabilities.mean(dim=1)

    def record_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy per record (batch,), the mean over windows and known labels.

        ``logits`` are (batch, window, label), ``labels`` (batch, label) 0, 1, or 255 where unknown. A record of which
        none is known has loss 0; where all are known, every bit is that of the plain mean.
        """
        known = labels != UNKNOWN_LABEL
        target = labels.where(known, 0).to(logits.dtype).unsqueeze(1).expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.pos_weight, reduction="none")
        # Weighed before the mean, not selected: no wait for the device, and times 1 where all are known.
        precise = torch.promote_types(loss.dtype, torch.float32)
        num_known = known.sum(dim=1, keepdim=True, dtype=precise).clamp(min=1)
        weight = known * (torch.full_like(num_known, labels.shape[1]) / num_known)  # 41 / tensor(41) is not quite 1
        return (loss * weight.to(loss.dtype).unsqueeze(1)).mean(dim=(1, 2))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds every draw of the step from (seed, epoch, batch), dropout's from the rank as well."""
        place = (self.seed, self.current_epoch, batch_idx)
        if "ecg" in batch:  # else no branch is computed
            coins = torch.Generator().manual_seed(seed_of(*place))
            rows = slice(batch["first"], batch["first"] + len(batch["index"]))
            draw_coins(self.drops, batch["num_global"], rows, coins, self.device)
        seed_draws(seed_of(*place, self.global_rank), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss whose mean over processes is the mean over the global batch, however unevenly it was split.

        A record without a known label counts as one of the batch, with loss 0.
        """
        losses = self.record_losses(self.window_logits(batch), batch["labels"])
        loss = losses.sum() * (self.trainer.world_size / batch["num_global"])
        # Not `prog_bar`: Lightning would read it from the device, and wait, after every batch (see `screen.LossBar`).
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Forgets the step's coins: they were drawn for its batch."""
        if "ecg" in batch:
            forget_coins(self.drops)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects a batch of the validation split."""
        self._collect(self.val_scores, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects a batch of the test split."""
        self._collect(self.test_scores, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs `val/auroc`, `val/auprc`, `val/loss`, `val/num_labels`."""
        self._log_scores("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Logs `test/...`."""
        self._log_scores("test", self.test_scores)

    def _collect(self, metric: SplitScores, batch: Batch) -> None:
        logits = self.window_logits(batch).float()
        losses = self.record_losses(logits, batch["labels"])
        metric.update(batch["index"], self.record_probabilities(logits), batch["labels"], losses)

    def _log_scores(self, split: str, metric: SplitScores) -> None:
        scores = metric.scores()
        metric.reset()
        self.scores = scores
        for name, value in scores.summary().items():
            self.log(f"{split}/{name}", value, prog_bar=name in ("auroc", "auprc"), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over all groups from the start, in every phase; `PostTraining` sets rates and weight decay per step."""
        clips = self._trainer is not None and bool(self.trainer.gradient_clip_val)
        return adamw(parameter_groups(self.backbone, self.head), unscales=not clips)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names the labels in the order of the head's outputs, and what the weights were trained on."""
        checkpoint["label_names"] = list(self.label_names)
        checkpoint[TRAINED_ON] = self.origins.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other labels or of another network, before anything is loaded."""
        path = None if self._trainer is None else self._trainer.ckpt_path
        source = "the checkpoint" if path is None else f"the checkpoint {path}"
        theirs = checkpoint.get("label_names")
        if theirs != list(self.label_names):
            raise InputError(
                f"{source}'s labels are {theirs}, the task's are {list(self.label_names)}: "
                "use the data.task that the run was trained on"
            )
        refuse_other_network(self, checkpoint, source)
        if any(tensor.dtype == torch.float64 for tensor in checkpoint["state_dict"].values()):
            self.double()  # the trainer does so itself, but behind the loading, which would have rounded

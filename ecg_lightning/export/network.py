"""What is exported: the steps behind the crop, the network, the sigmoid."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ecg_lightning.chains import run_batch_chain

if TYPE_CHECKING:
    from ecg_lightning.trained_run import TrainedRun


class ProbabilityNetwork(nn.Module):
    """Windows (batch, lead, time) in mV, as the crop cuts them -> probabilities (batch, label)."""

    def __init__(self, trained: "TrainedRun") -> None:
        super().__init__()
        self.backbone, self.head = trained.classifier.backbone, trained.classifier.head
        self.steps = trained.signal.batch_chain

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, label)."""
        logits: Tensor = self.head(self.backbone(run_batch_chain(self.steps, ecg)))
        return logits.sigmoid()

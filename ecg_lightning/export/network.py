"""What is exported: the steps behind the crop that ONNX can hold, the network, the sigmoid."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ecg_lightning.chains import BatchStep, Chain, run_batch_chain

if TYPE_CHECKING:
    from ecg_lightning.trained_run import TrainedRun


def split_steps(batch_chain: Chain) -> tuple[Chain, Chain]:
    """The steps behind the crop that stay outside of an exported network, and those inside, in order."""
    outside = 0
    for place, step in enumerate(batch_chain, start=1):
        if isinstance(step, BatchStep) and not step.exportable:
            outside = place
    return batch_chain[:outside], batch_chain[outside:]


class ProbabilityNetwork(nn.Module):
    """Windows (batch, lead, time) in mV, as the crop cuts them -> probabilities (batch, label).

    With ``exported`` the windows are those behind the steps that stay outside.
    """

    def __init__(self, trained: "TrainedRun", *, exported: bool = False) -> None:
        super().__init__()
        self.backbone, self.head = trained.classifier.backbone, trained.classifier.head
        steps = trained.signal.batch_chain
        self.steps = split_steps(steps)[1] if exported else steps

    def forward(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, label)."""
        logits: Tensor = self.head(self.backbone(run_batch_chain(self.steps, ecg)))
        return logits.sigmoid()

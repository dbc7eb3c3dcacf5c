"""Validation scores as a test wants them."""

from lightning.pytorch import Callback


class MadeUpScores(Callback):
    """Puts made-up macro AUROCs in place of the real ones, before anything looks at them."""

    def __init__(self, *aurocs):
        self.aurocs = aurocs

    def on_validation_epoch_start(self, trainer, pl_module):
        auroc = self.aurocs[trainer.current_epoch]

        def log_scores(split, metric):
            scores = metric.scores()
            metric.reset()
            object.__setattr__(scores, "auroc", {"CD": auroc})
            pl_module.scores = scores
            pl_module.log("val/auroc", auroc)

        pl_module._log_scores = log_scores

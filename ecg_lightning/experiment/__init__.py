"""The command `experiment`: a grid of runs from one file, each a `fit` and a `test` with a folder of its own."""

from ecg_lightning.experiment.command import experiment

__all__ = ["experiment"]

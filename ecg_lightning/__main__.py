"""``python -m ecg_lightning``: the same as ``ecg-lightning``."""

from ecg_lightning.cli import run

run()

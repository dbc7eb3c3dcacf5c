"""The simulated archive: a tree of PTB-XL's shape, made from a beating dipole; no patient is behind it.

`medicine` holds the numbers, `statements` what each statement changes in a `heart`, `rhythm` when it beats, `patients`
who, `noise` what electrodes add, `record` one whole record, `archive` the writing.
"""

from ecg_lightning.data.synthesize.archive import synthesize
from ecg_lightning.data.synthesize.record import simulate
from ecg_lightning.data.synthesize.statements import SIMULATED

__all__ = ["SIMULATED", "simulate", "synthesize"]

"""Who lies behind a record: patients with one to four records each, every patient in one fold."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.synthesize.combinations import chronic_statements
from ecg_lightning.data.synthesize.settings import Prevalence

BLOCK = 60
"""Records whose patients are drawn together: which patient a record belongs to hangs on its block alone."""
_RECORDS_OF_A_PATIENT = (0.72, 0.17, 0.07, 0.04)
_STREAM_BLOCK, _STREAM_PATIENT, _STREAM_RECORD = 1, 2, 3
_YOUNG = {"NORM": 50, "SARRH": 38, "STE_": 40, "WPW": 40, "SBRAD": 54, "PSVT": 50, "IRBBB": 54, "VCLVH": 54}
_MOSTLY_MEN = {"IMI", "ILMI", "ASMI", "AMI", "ALMI", "LMI", "PMI", "LAFB", "STE_", "SBRAD"}


@dataclass(frozen=True, eq=False)
class Patient:
    """One patient.

    Attributes:
        number: from 0; ``fold`` 1 to 10.
        age: at the first record; ``woman``: sex 1 in PTB-XL.
        height, weight: cm and kg.
        chronic: statements that all records carry; ``severity`` of each, 0 to 1.
        days: since the first record, of each.
        seed: for what else is the patient's own.
    """

    number: int
    fold: int
    age: float
    woman: bool
    height: float
    weight: float
    chronic: tuple[str, ...]
    seed: tuple[int, ...]

    def random(self) -> np.random.Generator:
        """Begins anew at each call: what is drawn from it is the same for all records of the patient."""
        return np.random.default_rng((*self.seed, 1))


def record_random(seed: int, number: int) -> np.random.Generator:
    """For what is the record's own."""
    return np.random.default_rng((seed, _STREAM_RECORD, number))


def patient_of(seed: int, number: int, prevalence: Prevalence) -> tuple[Patient, int]:
    """The patient of record ``number`` (from 0), and how many records of the same patient stand before it."""
    block, place = divmod(number, BLOCK)
    owners, folds = _block(seed, block)
    owner = int(owners[place])
    earlier = int((owners[:place] == owner).sum())
    return _patient(seed, block * BLOCK + owner, int(folds[owner]), prevalence), earlier


@lru_cache(maxsize=8)
def _block(seed: int, block: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Patient of each record of the block, and fold of each patient, so that the folds grow alike."""
    random = np.random.default_rng((seed, _STREAM_BLOCK, block))
    sizes = 1 + random.choice(len(_RECORDS_OF_A_PATIENT), BLOCK, p=_RECORDS_OF_A_PATIENT)
    owners = np.repeat(np.arange(BLOCK), sizes)[:BLOCK]
    folds = 1 + (np.arange(BLOCK) + random.integers(10)) % 10
    return random.permutation(owners), folds


def _patient(seed: int, number: int, fold: int, prevalence: Prevalence) -> Patient:
    key = (seed, _STREAM_PATIENT, number)
    random = np.random.default_rng(key)
    chronic = chronic_statements(random, prevalence)
    woman = bool(random.random() < (0.33 if _MOSTLY_MEN & set(chronic) else 0.52))
    typical = min((_YOUNG[code] for code in chronic if code in _YOUNG), default=66)
    age = float(np.round(np.clip(random.normal(typical, 14), 18, 96)))
    height = random.normal(163 if woman else 176, 7)
    weight = random.normal(25.8, 4.0) * (height / 100) ** 2
    return Patient(number, fold, age, woman, float(round(height)), float(round(max(weight, 42))), chronic, key)

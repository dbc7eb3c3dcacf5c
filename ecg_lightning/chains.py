"""Chains of named preprocessing steps that networks are fed through: arrays in, arrays out.

A chain is a list of steps in the order of the published code. The steps before the crop run once, over the whole
record in float64, when a store is prepared; those behind it run per batch, on the device. `predict` runs the same two.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.batch_steps import DecimateAcrossLeads, Standardise, WindowFilter, ZScore, filtered
from ecg_lightning.record_steps import (
    Bandpass,
    FirBandpass,
    Notch,
    Resample,
    ResampleLinearly,
    ScaleToRange,
    SubtractMedian,
    ZScoreRecord,
)
from ecg_lightning.steps import BatchStep, Crop, RecordStep, Signal, Step

__all__ = [
    "STEPS", "Bandpass", "BatchStep", "Chain", "Crop", "DecimateAcrossLeads", "FirBandpass", "Notch", "RecordStep",
    "Resample", "ResampleLinearly", "ScaleToRange", "Standardise", "Step", "SubtractMedian", "WindowFilter", "ZScore",
    "ZScoreRecord", "chain_from_json", "chain_to_json", "rate_behind", "run_batch_chain", "run_record_chain",
]  # fmt: skip

STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        Notch,
        Bandpass,
        FirBandpass,
        SubtractMedian,
        Resample,
        ResampleLinearly,
        ScaleToRange,
        ZScoreRecord,
        Crop,
        WindowFilter,
        ZScore,
        Standardise,
        DecimateAcrossLeads,
    )
}
Chain = tuple[Step, ...]


def chain_to_json(chain: Sequence[Step]) -> str:
    """A chain as one line of JSON: ``[{"step": "notch", "frequency": 50.0, ...}, ...]``."""
    return json.dumps([{"step": step.name, **asdict(step)} for step in chain])


def chain_from_json(text: str) -> Chain:
    """The chain that `chain_to_json` wrote.

    Raises:
        ValueError: for a step that this version does not know.
    """
    steps: list[dict[str, Any]] = json.loads(text)
    unknown = sorted({step["step"] for step in steps} - STEPS.keys())
    if unknown:
        raise ValueError(
            f"unknown preprocessing steps {unknown}, known are {sorted(STEPS)}: a newer version wrote this"
        )
    return tuple(STEPS[step["step"]](**{k: v for k, v in step.items() if k != "step"}) for step in steps)


def run_record_chain(chain: Sequence[Step], ecg: NDArray[np.float64], record_rate: float) -> NDArray[np.float64]:
    """Runs the steps before the crop over one record (lead, time) in mV, in float64."""
    rate = record_rate
    for step in chain:
        assert isinstance(step, RecordStep)
        ecg = step(ecg, rate)
        rate = step.output_rate(rate)
    return ecg


def run_batch_chain(chain: Sequence[Step], ecg: Signal) -> Signal:
    """Runs the steps behind the crop over windows (..., lead, time)."""
    for kind, steps in groupby(chain, type):
        if kind is WindowFilter:
            ecg = filtered(tuple(step for step in steps if isinstance(step, WindowFilter)), ecg)
            continue
        for step in steps:
            assert isinstance(step, BatchStep)
            ecg = step(ecg)
    return ecg


def rate_behind(chain: Sequence[Step], record_rate: float) -> float:
    """Sampling rate in Hz behind all steps of ``chain``."""
    for step in chain:
        record_rate = step.output_rate(record_rate)
    return record_rate

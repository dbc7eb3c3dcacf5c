"""What makes a recording doubtful though it can be read: unit, limb leads, flat and clipped leads."""

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.conforming import FROM_LIMB_LEADS
from ecg_lightning.data.formats.lead_names import places_of
from ecg_lightning.data.formats.recording import Recording
from ecg_lightning.data.record import flat_leads

_LARGEST, _SMALLEST = 20.0, 0.02
"""mV between which the 99 % range of an ECG's median lead lies; low voltage is 0.2, a PTB-XL record has 0.3 to 4."""


def warnings_of(recording: Recording) -> list[str]:
    """One sentence per doubt about ``recording``, with what to check; empty for a plausible ECG.

    Told are a unit that the amplitude speaks against, limb leads that break Einthoven's or Goldberger's equations
    (leads swapped or misnamed), flat leads, and leads that stay at their largest or smallest value (clipped).
    """
    ecg, leads = recording.ecg, recording.leads
    flat = flat_leads(ecg, leads)
    alive = [index for index, lead in enumerate(leads) if lead not in flat]
    doubts = [f"lead {', '.join(flat)} is flat: was its electrode connected?"] if flat else []
    if alive:
        doubts += _unit_doubts(ecg[alive])
        clipped = [leads[index] for index in alive if _is_clipped(ecg[index], recording.sampling_rate)]
        if clipped:
            doubts.append(f"lead {', '.join(clipped)} stays at its largest or smallest value: is it clipped?")
    return doubts + _limb_lead_doubts(recording)


def _unit_doubts(ecg: NDArray[np.float64]) -> list[str]:
    """Of the leads (lead, time) that are not flat."""
    low, high = np.percentile(ecg, (0.5, 99.5), axis=1)
    size = float(np.median(high - low))
    if size > _LARGEST:
        return [f"the median lead spans {size:.4g} mV, ECGs have 0.2 to 5: it looks like uV: --unit uV"]
    if size < _SMALLEST:
        return [f"the median lead spans {size:.2g} mV, ECGs have 0.2 to 5: it looks like V: --unit V"]
    return []


def _limb_lead_doubts(recording: Recording) -> list[str]:
    """Which of the leads that I and II determine are not what the two say, offsets aside."""
    try:
        places = places_of(recording.leads)
    except ValueError:
        return []  # told when the leads are picked
    if not {"I", "II"} <= places.keys():
        return []
    one, two = recording.ecg[places["I"]], recording.ecg[places["II"]]
    broken = []
    for name, (of_one, of_two) in FROM_LIMB_LEADS.items():
        if name not in places:
            continue
        rest = recording.ecg[places[name]] - (of_one * one + of_two * two)
        size = max(_rms(one), _rms(two))
        if _rms(rest) > 0.1 * size and size > 0:
            broken.append(f"{recording.leads[places[name]]} ({_rms(rest):.2g} mV off)")
    if not broken:
        return []
    return [f"{', '.join(broken)} is not what I and II say (Einthoven, Goldberger): are leads swapped or misnamed?"]


def _rms(signal: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((signal - np.median(signal)) ** 2)))


def _is_clipped(lead: NDArray[np.float64], sampling_rate: float) -> bool:
    """Whether the lead stays at its largest or smallest value again and again, 20 ms or more each, for 1 % of its time.

    Once is not told: of the PTB-XL records, many hold their last value for the last 0.1 s.
    """
    shortest = max(3, round(0.02 * sampling_rate))
    for extreme in (lead.max(), lead.min()):
        edges = np.flatnonzero(np.diff((lead == extreme).astype(np.int8), prepend=0, append=0))
        stretches = edges[1::2] - edges[::2]
        stretches = stretches[stretches >= shortest]
        if len(stretches) > 1 and stretches.sum() > 0.01 * lead.size:
            return True
    return False

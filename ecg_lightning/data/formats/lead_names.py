"""The names under which leads occur in files, and the one name that each of them means."""

import re
from collections.abc import Sequence

from ecg_lightning.signals import LEADS_12

_OTHERS = ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "X", "Y", "Z")
_ALIASES = {
    **{name.upper(): name for name in (*LEADS_12, *_OTHERS)},
    **{"DI": "I", "DII": "II", "DIII": "III", "D1": "I", "D2": "II", "D3": "III"},  # Latin America
    **{f"C{number}": f"V{number}" for number in range(1, 7)},  # the electrodes' names of IEC 60601-2-25
}
_UNIT = re.compile(r"[\s_]*[(\[]\s*([^)\]]*?)\s*[)\]]\s*$")
_PREFIX = re.compile(r"^(?:MDC_ECG_LEAD|MDC_ECG_ELEC_POTL|ECG|EKG|LEAD|ABL)(?:[\s_:.-]+|(?=[IVAD]))", re.IGNORECASE)
_MARKS = " \t\"'.:_"


def lead_name(text: str) -> str:
    """The lead that ``text`` means, spelled as in `LEADS_12`; unknown names come back as they are.

    ``Lead I``, ``I (mV)``, ``MDC_ECG_LEAD_AVR``, ``avr``, ``ECG I`` and ``V1.`` are known. ``-aVR`` and ``MLII`` are
    other leads.
    """
    bare = _UNIT.sub("", text).strip(_MARKS)
    for _ in range(2):  # "ECG Lead I" has two prefixes
        bare = _PREFIX.sub("", bare).strip(_MARKS)
    return _ALIASES.get(bare.upper(), text.strip())


def is_lead(text: str) -> bool:
    """Whether ``text`` is a known name of a lead."""
    return lead_name(text).upper() in _ALIASES


def unit_in(text: str) -> str | None:
    """The unit behind a lead's name: ``uV`` in ``Lead I (uV)``; None where there is none."""
    found = _UNIT.search(text)
    return found[1] if found else None


def places_of(leads: Sequence[str]) -> dict[str, int]:
    """Place of each lead by its name in upper case.

    Raises:
        ValueError: where two names mean one lead.
    """
    places: dict[str, int] = {}
    for index, lead in enumerate(leads):
        name = lead_name(lead).upper()
        if name in places:
            raise ValueError(f"{leads[places[name]]} and {lead} are one lead")
        places[name] = index
    return places

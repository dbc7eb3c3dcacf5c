"""HL7 annotated ECGs (aECG), the XML that drug trials hand to the FDA."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecg_lightning.data.formats.recording import Recording, make_recording, stack_leads, to_float
from ecg_lightning.data.formats.units import unit_scale
from ecg_lightning.errors import InputError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}
_EXPORT = "export the ECG again, with one rhythm strip whose leads were recorded together"
_FACTS = {
    "PatientID": (".//trialSubject/id", "extension"),
    "Sex": (".//administrativeGenderCode", "code"),
    "BirthDate": (".//birthTime", "value"),
    "id": ("./id", "root"),
}


def read_aecg(path: Path, root: "Element") -> Recording:
    """The rhythm strip in an ``AnnotatedECG``: leads as lists of digits (``SLIST_PQ``), times as head and increment.

    Derived series (the representative beat) are passed over. Facts: PatientID, Age, Sex, BirthDate, Date, id.

    Source: HL7 version 3, annotated ECG release 1 (2004), schema PORT_MT020001; voltage = origin + scale x digit.

    Raises:
        InputError: for no or several rhythm strips, leads of unequal length, values that are no such lists.
    """
    sequences = _rhythm_strip(path, root)
    rates = {_rate(path, value) for code, value in sequences if code.startswith("TIME_")}
    leads = [(code, _voltage(path, code, value)) for code, value in sequences if not code.startswith("TIME_")]
    if len(rates) != 1:
        raise InputError(f"{path} tells {len(rates)} rates for its rhythm strip, it must tell one: {_EXPORT}")
    ecg = stack_leads(path, leads)
    return make_recording(path, ecg, rates.pop(), [code for code, _ in leads], _facts(root))


def _rhythm_strip(path: Path, root: "Element") -> list[tuple[str, "Element"]]:
    """Code and value of each sequence of the one set of leads that was recorded."""
    series = root.findall("./component/series")
    rhythms = [each for each in series if _attribute(each, "./code", "code") == "RHYTHM"]
    sets = [found for each in rhythms or series for found in each.findall("./component/sequenceSet")]
    if len(sets) != 1:
        raise InputError(f"{path} holds {len(sets)} sets of leads, one is read: {_EXPORT}")
    strip = []
    for sequence in sets[0].findall("./component/sequence"):
        value = sequence.find("./value")
        code = _attribute(sequence, "./code", "code")
        if value is None or not code:
            raise InputError(f"{path}: a sequence without code or value (code {code or 'missing'}): {_EXPORT}")
        strip.append((code, value))
    return strip


def _rate(path: Path, clock: "Element") -> float:
    increment, unit = _attribute(clock, "./increment", "value"), _attribute(clock, "./increment", "unit") or "s"
    step = to_float(path, "the time increment", increment)
    if step <= 0 or unit not in _PER_SECOND:
        raise InputError(f"{path}: the time increment is {increment} {unit}, it must be above 0 s, ms or us: {_EXPORT}")
    return round(_PER_SECOND[unit] / step, 6)  # 0.002 s is 500 Hz, not 500.00000000000006


def _voltage(path: Path, code: str, value: "Element") -> NDArray[np.float64]:
    """One lead in mV."""
    digits = value.find("./digits")
    if value.get(_TYPE, "SLIST_PQ").rpartition(":")[2] != "SLIST_PQ" or digits is None:
        raise InputError(f"{path}: lead {code} is of type {value.get(_TYPE)}, SLIST_PQ with digits is read: {_EXPORT}")
    try:
        counts = np.array((digits.text or "").split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path}: lead {code} holds what is no number ({error}): {_EXPORT}") from None
    origin, scale = (_quantity(path, code, value, name) for name in ("origin", "scale"))
    return origin + scale * counts


def _quantity(path: Path, code: str, value: "Element", name: str) -> float:
    """``origin`` or ``scale`` of a lead in mV; an origin that is not there is 0."""
    number, unit = _attribute(value, f"./{name}", "value"), _attribute(value, f"./{name}", "unit")
    if name == "origin" and not number:
        return 0.0
    return to_float(path, f"the {name} of lead {code}", number) * unit_scale(path, code, unit)


def _facts(root: "Element") -> dict[str, str]:
    facts = {name: _attribute(root, place, attribute) for name, (place, attribute) in _FACTS.items()}
    facts["Date"] = next(
        (date for name in ("center", "low", ".") if (date := _attribute(root, f"./effectiveTime/{name}", "value"))), ""
    )
    for observation in root.findall(".//relatedObservation"):
        if _attribute(observation, "./code", "code") == "21612-7" and _attribute(observation, "./value", "unit") == "a":
            facts["Age"] = _attribute(observation, "./value", "value")  # LOINC: reported age; UCUM: years
    return {name: fact for name, fact in facts.items() if fact}


def _attribute(element: "Element", place: str, name: str) -> str:
    found = element.find(place)
    return "" if found is None else found.get(name, "").strip()

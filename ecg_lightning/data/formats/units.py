"""Units of voltage, as files spell them."""

from pathlib import Path

from ecg_lightning.errors import InputError

MILLIVOLTS = {"mV": 1.0, "uV": 0.001, "V": 1000.0}
"""The units that ``--unit`` takes, and what one of each is in mV."""

_SPELLED = {
    **dict.fromkeys(("mv", "millivolt", "millivolts"), 1.0),
    **dict.fromkeys(("uv", "µv", "μv", "microvolt", "microvolts"), 0.001),  # micro sign and Greek mu
    **dict.fromkeys(("nv", "nanovolt", "nanovolts"), 1e-6),
    **dict.fromkeys(("v", "volt", "volts"), 1000.0),
}


def is_voltage(unit: str) -> bool:
    """Whether ``unit`` is one of voltage."""
    return unit.strip().lower() in _SPELLED


def unit_scale(path: Path, lead: str, unit: str) -> float:
    """What one ``unit`` is in mV: of ``uV``, ``MICROVOLTS`` ...

    Raises:
        InputError: for a unit that is no voltage.
    """
    if not is_voltage(unit):
        raise InputError(f"{path}: the unit of lead {lead} is {unit!r}, known are mV, uV, nV and V: convert the file")
    return _SPELLED[unit.strip().lower()]

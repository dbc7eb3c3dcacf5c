"""What an archive was made with, as it stands in it; also what tells a simulated tree from a real one."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ecg_lightning

Prevalence = Literal["natural", "uniform"]
"""natural: as often as in PTB-XL 1.0.3; uniform: every simulated statement about as often as any other,
but for NORM and SR, which most others are told from."""

SETTINGS = "synthesis.json"


@dataclass(frozen=True)
class Settings:
    """What decides every byte of an archive."""

    seed: int
    num_records: int
    rates: tuple[int, ...]
    prevalence: Prevalence
    version: str = ecg_lightning.__version__

    def to_json(self) -> dict[str, Any]:
        """As it stands in the archive."""
        return {"simulated": True, **asdict(self), "rates": list(self.rates)}


def simulation_settings(folder: Path) -> dict[str, Any] | None:
    """Settings of the simulated archive in ``folder``, finished or not; None where there is none."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) and settings.get("simulated") is True else None

"""Draws twelve simulated statements on ECG paper, each in the two leads that show it best.

python benchmarks/simulated_statements.py --output benchmarks/simulated_statements.png
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ecg_lightning.data.synthesize.record import LEADS, SAMPLING_RATE, ecg_of, make_heart, plan_with
from ecg_lightning.report.ecg_paper import ecg_paper

SECONDS = 5.0


class Panel(NamedTuple):
    """One statement: what it carries beside, the leads, what to look for, and which of its records is shown."""

    code: str
    beside: tuple[str, ...]
    leads: tuple[str, str]
    meaning: str
    severity: float = 0.5
    seed: int = 0
    start: float = 2.0


PANELS = (
    Panel("NORM", ("SR",), ("II", "V1"), "normal ECG, sinus rhythm", seed=22),
    Panel("AFIB", (), ("II", "V1"), "atrial fibrillation: irregular, no P, wavering baseline", 0.3, 5),
    Panel("AFLT", (), ("II", "V1"), "atrial flutter: saw-tooth in II, waves in V1", 0.5, 19),
    Panel("PVC", ("SR",), ("II", "V1"), "ventricular premature beat: wide, early, full pause", 0.2, 13),
    Panel("1AVB", ("SR",), ("II", "V1"), "first degree AV block: PR above 200 ms", 0.7, 5),
    Panel("2AVB", ("SR",), ("II", "V1"), "second degree AV block: beats dropped", 0.5, 13),
    Panel("CLBBB", ("SR",), ("V6", "V1"), "left bundle branch block: QRS wide, broad R in V6, deep S in V1", 0.5, 12),
    Panel("CRBBB", ("SR",), ("V1", "V6"), "right bundle branch block: QRS wide, rSR' in V1, broad S in V6", 0.5, 16),
    Panel("IMI", ("SR",), ("III", "aVL"), "acute inferior infarct: ST up in III, down in aVL", 0.12, 8),
    Panel("ASMI", ("SR",), ("V2", "V3"), "recent anteroseptal infarct: Q in V2, ST up, T inverted", 0.38, 20),
    Panel("LVH", ("SR",), ("V6", "V1"), "left ventricular hypertrophy: voltage and strain", 0.35, 18),
    Panel("LNGQT", ("SR",), ("II", "V5"), "long QT: T ends behind the middle of RR", 0.9, 19),
)


def draw(axes: Axes, panel: Panel) -> None:
    plan = plan_with((panel.code, *panel.beside), seed=panel.seed, severity=panel.severity)
    ecg = ecg_of(plan, make_heart(plan)) / 1000
    begin = round(panel.start * SAMPLING_RATE)
    places = [LEADS.index(lead.upper()) for lead in panel.leads]
    shown = ecg[places, begin : begin + round(SECONDS * SAMPLING_RATE)]
    ecg_paper(axes, np.asarray(shown - np.median(shown, axis=1, keepdims=True)), SAMPLING_RATE, panel.leads)
    axes.set_title(f"{panel.code}   {panel.meaning}", fontsize=10, loc="left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/simulated_statements.png"))
    output = parser.parse_args().output
    figure, axes = plt.subplots(4, 3, figsize=(17.5, 10.4), layout="constrained")
    for one, panel in zip(axes.flat, PANELS, strict=True):
        draw(one, panel)
    figure.suptitle("Simulated by `ecg-lightning synthesize`: no patient is behind these ECGs", fontsize=11)
    figure.savefig(output, dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Waves that take the place of the normal ones: blocked, pre-excited, ectopic and paced QRS; regions of the heart.

Rows are (time, width) as shares of the QRS, then the dipole in mV: x to the left, y to the feet, z to the back.
"""

import numpy as np
from numpy.typing import NDArray

Waves = NDArray[np.float64]


def _waves(*rows: tuple[float, float, float, float, float]) -> Waves:
    return np.array(rows)


QRS = {
    # No septal wave; slow, notched, to the left and back: QS or rS in V1, broad R in I, V5, V6.
    "left bundle branch block": _waves(
        (0.17, 0.075, 0.22, 0.08, 0.16), (0.34, 0.115, 0.88, 0.40, 0.72), (0.62, 0.125, 0.92, 0.12, 0.90),
        (0.82, 0.080, 0.18, -0.10, 0.40),
    ),
    # As normal at first, then late and slow to the right and front: rSR' in V1, broad S in I and V6.
    "right bundle branch block": _waves(
        (0.11, 0.050, -0.14, -0.06, -0.30), (0.26, 0.065, 1.02, 0.82, 0.22), (0.38, 0.060, 0.12, 0.00, 0.52),
        (0.60, 0.095, -0.40, 0.05, -0.46), (0.78, 0.090, -0.34, 0.00, -0.34),
    ),
    "incomplete right bundle branch block": _waves(
        (0.15, 0.065, -0.14, -0.06, -0.30), (0.36, 0.085, 1.02, 0.84, 0.24), (0.51, 0.080, 0.16, 0.00, 0.66),
        (0.76, 0.090, -0.30, 0.02, -0.42),
    ),
    "incomplete left bundle branch block": _waves(
        (0.18, 0.085, 0.24, 0.10, 0.10), (0.44, 0.120, 0.95, 0.66, 0.50), (0.64, 0.110, 0.38, 0.05, 0.95),
        (0.80, 0.080, 0.02, -0.08, 0.20),
    ),
    # First down and right, then up and left: qR in I and aVL, rS in II, III, aVF.
    "left anterior fascicular block": _waves(
        (0.17, 0.075, -0.16, 0.40, -0.24), (0.46, 0.110, 0.98, -0.86, 0.14), (0.63, 0.100, 0.18, -0.36, 0.62),
        (0.78, 0.085, -0.12, -0.20, 0.12),
    ),
    # First up and left, then down and right: rS in I and aVL, qR in III and aVF.
    "left posterior fascicular block": _waves(
        (0.17, 0.075, 0.22, -0.40, -0.24), (0.46, 0.110, 0.02, 1.30, 0.30), (0.63, 0.100, -0.42, 0.34, 0.60),
        (0.78, 0.085, -0.22, 0.02, 0.14),
    ),
    # Wide throughout, slurred at its end, no bundle branch's pattern.
    "intraventricular delay": _waves(
        (0.15, 0.075, -0.12, -0.06, -0.26), (0.38, 0.105, 0.90, 0.80, 0.26), (0.57, 0.105, 0.30, 0.05, 0.80),
        (0.76, 0.085, 0.24, -0.28, 0.26), (0.88, 0.055, 0.12, -0.16, 0.10),
    ),
    "right ventricular hypertrophy": _waves(
        (0.18, 0.075, 0.06, -0.10, -0.34), (0.42, 0.105, -0.18, 0.88, -0.64), (0.62, 0.105, -0.66, 0.22, 0.02),
        (0.78, 0.085, -0.26, -0.05, 0.18),
    ),
    # A slow delta wave from the onset, then a QRS that joins it: free wall of the left ventricle, or of the right.
    "left pre-excitation": _waves(
        (0.27, 0.135, 0.18, 0.34, -0.40), (0.52, 0.120, 0.72, 0.68, -0.40), (0.74, 0.090, 0.05, 0.00, 0.40),
    ),
    "right pre-excitation": _waves(
        (0.27, 0.135, 0.42, 0.12, 0.22), (0.52, 0.120, 0.95, 0.34, 0.50), (0.74, 0.090, 0.24, -0.05, 0.55),
    ),
    # Premature beats from the right outflow tract, the right apex, the left free wall, the left base.
    "ectopic, outflow tract": _waves((0.33, 0.140, 0.34, 1.25, 0.85), (0.62, 0.140, 0.45, 0.95, 0.85)),
    "ectopic, right apex": _waves((0.33, 0.140, 0.75, -0.85, 0.65), (0.62, 0.140, 0.60, -0.75, 0.80)),
    "ectopic, left wall": _waves((0.33, 0.140, -0.75, 0.45, -0.95), (0.62, 0.140, -0.55, 0.40, -0.60)),
    "ectopic, left base": _waves((0.33, 0.140, -0.45, -0.85, -1.05), (0.62, 0.140, -0.30, -0.70, -0.70)),
    # Paced from the right apex: left and up, QS in V1 and in the inferior leads.
    "paced": _waves((0.30, 0.125, 0.68, -0.85, 0.62), (0.60, 0.140, 0.62, -0.80, 0.85)),
}  # fmt: skip

ECTOPIC_ORIGINS = ("outflow tract", "right apex", "left wall", "left base")

REGIONS = {
    "inferior": np.array([-0.08, 0.99, 0.10]),
    "inferolateral": np.array([0.58, 0.78, 0.22]),
    "septal": np.array([-0.05, -0.02, -1.0]),
    "anterior": np.array([0.42, -0.04, -0.88]),
    "anterolateral": np.array([0.82, -0.22, -0.52]),
    "lateral": np.array([0.86, -0.42, 0.28]),
    "posterior": np.array([0.20, 0.10, 0.97]),
    "subendocardial": np.array([0.80, 0.52, -0.26]),
}
"""Where the injured wall lies: its ST rises along this vector, its Q points away from it. The last stands for the
whole inner layer of the left ventricle, which ischaemia without a region depresses."""

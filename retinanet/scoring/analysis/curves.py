"""Interpolated precision over recall of each class.

Legend: K classes, T IoU thresholds, Q recalls.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.matches import Matches, precision_at_recalls


class PrecisionCurves(NamedTuple):
    """Interpolated precision at COCO's 101 recalls."""

    iou: float
    mean_Q: NDArray[np.float64] | None
    """Mean over the classes that have objects; None where none has."""
    class_QK: NDArray[np.float64]
    """-1 for a class without objects."""


def precision_curves(matches: Matches) -> tuple[PrecisionCurves, ...]:
    """Precision over recall at IoU 0.5 and 0.75."""
    precision_TQK = precision_at_recalls(matches)
    curves = []
    for iou, t in ((0.5, 0), (0.75, 5)):
        class_QK = precision_TQK[t]
        present = class_QK[0] > -1
        curves.append(PrecisionCurves(iou, class_QK[:, present].mean(axis=1) if present.any() else None, class_QK))
    return tuple(curves)

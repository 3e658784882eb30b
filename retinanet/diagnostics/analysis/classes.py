"""AP by class, with how much there was to find and what was found.

Legend: K classes, T IoU thresholds, Q recalls.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.analysis.columns import Scored
from retinanet.scoring.matches import AREAS, precision_at_recalls


class ClassRow(NamedTuple):
    """One class; AP is -1 where there is no object to find."""

    id: int
    name: str
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    objects: int
    """Without crowd."""
    images: int
    """With such objects."""
    detections: int
    """Those that COCO scores: at most 100 in an image."""


class PrecisionCurves(NamedTuple):
    """Interpolated precision at COCO's 101 recalls."""

    iou: float
    mean_Q: NDArray[np.float64] | None
    """Over the classes that have objects; None where none has."""
    class_QK: NDArray[np.float64]
    """-1 for a class without objects."""


def by_class(scored: Scored) -> tuple[ClassRow, ...]:
    """COCO's AP of every class, by rising id."""
    precision_ATQK = np.stack([precision_at_recalls(scored.matches, area) for area in AREAS])
    ap_AK = precision_ATQK.mean(axis=(1, 2))
    ap50_K, ap75_K = precision_ATQK[0, 0].mean(axis=0), precision_ATQK[0, 5].mean(axis=0)
    objects_K = scored.counts_K()
    kept = ~scored.objects.crowd_N
    images = np.unique(np.stack([scored.objects.class_N[kept], scored.objects.image_N[kept]], axis=1), axis=0)
    images_K = np.bincount(images[:, 0], minlength=len(objects_K))
    found_K = np.bincount(scored.found.class_D, minlength=len(objects_K))
    return tuple(
        ClassRow(
            number,
            name,
            float(ap_AK[0, k]),
            float(ap50_K[k]),
            float(ap75_K[k]),
            float(ap_AK[1, k]),
            float(ap_AK[2, k]),
            float(ap_AK[3, k]),
            int(objects_K[k]),
            int(images_K[k]),
            int(found_K[k]),
        )
        for k, (number, name) in enumerate(scored.categories)
    )


def precision_curves(scored: Scored) -> tuple[PrecisionCurves, ...]:
    """Precision over recall at IoU 0.5 and 0.75."""
    precision_TQK = precision_at_recalls(scored.matches)
    curves = []
    for iou, t in ((0.5, 0), (0.75, 5)):
        class_QK = precision_TQK[t]
        present = class_QK[0] > -1
        curves.append(PrecisionCurves(iou, class_QK[:, present].mean(axis=1) if present.any() else None, class_QK))
    return tuple(curves)

"""COCO's limit on detections, what it hides, and boxes that can match nothing.

Legend: K classes, I images, N annotations, D detections, Q recalls (RECALLS).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from retinanet.scoring.columns import DetectionColumns, TruthColumns
from retinanet.scoring.matches import average_precision


class DetectionLimit(NamedTuple):
    """What is lost because at most `limit` detections of a class count in an image."""

    limit: int
    images: int
    """Images that have more objects of a class."""
    most: int
    """The most objects of a class in an image."""
    reachable_ap: float
    """AP of perfect detections; -1 without any object."""


def measure_limit(truth: TruthColumns, limit: int) -> DetectionLimit:
    """How many images have more objects of a class than `limit`, and the AP of perfect detections scored with it."""
    images, classes = len(truth.image_ids_I), len(truth.category_ids_K)
    kept_N = ~truth.crowd_N
    pair_N = truth.class_N[kept_N] * images + truth.image_N[kept_N]
    pairs, counts_P = np.unique(pair_N, return_counts=True)
    class_P, image_P = np.divmod(pairs, max(images, 1))
    objects_K = np.bincount(class_P, weights=counts_P, minlength=classes).astype(np.int64)
    found_K = np.bincount(class_P, weights=counts_P.clip(max=limit), minlength=classes).astype(np.int64)
    aps = [
        average_precision(np.ones(found, dtype=np.bool_), objects)
        for found, objects in zip(found_K.tolist(), objects_K.tolist(), strict=True)
        if objects
    ]
    return DetectionLimit(
        limit=limit,
        images=len(np.unique(image_P[counts_P > limit])),
        most=int(counts_P.max(initial=0)),
        reachable_ap=float(np.mean(aps)) if aps else -1.0,
    )


def describe_limit(found: DetectionLimit, metric: Callable[[float], str]) -> str | None:
    """One line on images with more objects of a class than are scored; None if there are none. metric: writes AP."""
    if not found.images:
        return None
    have = "1 image has" if found.images == 1 else f"{found.images:,} images have"
    return (
        f"{have} more than {found.limit} objects of a class (up to {found.most:,}): with {found.limit} scored "
        f"detections AP cannot exceed {metric(found.reachable_ap)}; eval.max_detections (for files: --max-detections) "
        "raises it."
    )


def describe_empty_boxes(found: DetectionColumns) -> str | None:
    """One line on detections of zero or negative width or height; None if there are none."""
    empty = int(np.count_nonzero((found.boxes_D4[:, 2:] <= 0).any(axis=1)))
    if not empty:
        return None
    have = "1 detection has" if empty == 1 else f"{empty:,} detections have"
    return f"{have} a width or height of 0 or less; they match no object, as in pycocotools."

"""pycocotools' greedy matching of one class, over all images at once.

pycocotools processes the detections of an image best first; each takes, of the objects that are still free, the one
it overlaps most, an ignored one only where no other is left. Images are independent, so round r processes the r-th
detection of every image at once. Detections that reach no object at the lowest threshold take no part.

Legend: D detections, N annotations, P pairs of a detection and an annotation of its image, S detections of a round,
A areas, T IoU thresholds, 4 [x, y, width, height].
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

FREE = -1
"""Index of the annotation of a detection that is matched to none."""


class BoxPairs(NamedTuple):
    """Pairs of a box of one set and a box of another set in the same image."""

    first_P: Indices
    """(P,) rows of the first set (detections), ascending."""
    second_P: Indices
    """(P,) rows of the second set (annotations)."""
    iou_P: Floats


def overlapping_pairs(
    image_D: Indices, boxes_D4: Floats, image_N: Indices, boxes_N4: Floats, crowd_N: Bools, min_iou: float
) -> BoxPairs:
    """Pairs within an image with an IoU of at least `min_iou`, or one that is not a number.

    image_N is ascending. The arithmetic is that of pycocotools' `mask.iou`, operation by operation: with a crowd
    region the intersection is divided by the detection's area.
    """
    first_D, last_D = np.searchsorted(image_N, image_D, "left"), np.searchsorted(image_N, image_D, "right")
    count_D = last_D - first_D
    detection_P = np.repeat(np.arange(len(image_D)), count_D)
    begin_D = np.cumsum(count_D) - count_D
    annotation_P = np.arange(len(detection_P)) - np.repeat(begin_D - first_D, count_D)
    d_P4, n_P4 = boxes_D4[detection_P].T, boxes_N4[annotation_P].T
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        width_P = np.minimum(d_P4[2] + d_P4[0], n_P4[2] + n_P4[0]) - np.maximum(d_P4[0], n_P4[0])
        height_P = np.minimum(d_P4[3] + d_P4[1], n_P4[3] + n_P4[1]) - np.maximum(d_P4[1], n_P4[1])
        shared_P = width_P * height_P
        area_P = d_P4[2] * d_P4[3]
        union_P = np.where(crowd_N[annotation_P], area_P, area_P + n_P4[2] * n_P4[3] - shared_P)
        iou_P = np.where((width_P <= 0) | (height_P <= 0), 0.0, shared_P / union_P)
    kept = ~(iou_P < min_iou)
    return BoxPairs(detection_P[kept], annotation_P[kept], iou_P[kept])


def greedy_matches(
    pairs: BoxPairs, image_D: Indices, crowd_N: Bools, ignored_AN: Bools, thresholds: Floats
) -> NDArray[np.int32]:
    """(A, T, D) index of the annotation that each detection is matched to, or FREE.

    image_D is ascending, and detections of an image are sorted best first. ignored_AN: crowd regions, and annotations
    of another size than the area. A crowd region may be matched any number of times.
    """
    matched_ATD = np.full((len(ignored_AN), len(thresholds), len(image_D)), FREE, dtype=np.int32)
    if len(pairs.iou_P) == 0:
        return matched_ATD
    round_P = _rounds(pairs.first_P, image_D)
    for ignored_N, matched_TD in zip(ignored_AN, matched_ATD, strict=True):
        keys = (-pairs.second_P, -pairs.iou_P, ignored_N[pairs.second_P], pairs.first_P, round_P)
        order = np.lexsort(keys)
        preferred = BoxPairs(pairs.first_P[order], pairs.second_P[order], pairs.iou_P[order])
        ends = np.searchsorted(round_P[order], np.arange(round_P.max() + 2))
        taken_TN = np.zeros((len(thresholds), len(crowd_N)), dtype=bool)
        for begin, end in pairwise(ends):
            detection_P, annotation_P, iou_P = (column[begin:end] for column in preferred)
            usable_TP = ~taken_TN[:, annotation_P] | crowd_N[annotation_P]
            usable_TP &= iou_P >= thresholds[:, None]
            starts_S = np.flatnonzero(np.diff(detection_P, prepend=-1))
            place_TP = np.where(usable_TP, np.arange(len(iou_P)), len(iou_P))
            best_TS = np.minimum.reduceat(place_TP, starts_S, axis=1)
            t, s = np.nonzero(best_TS < len(iou_P))
            annotation = annotation_P[best_TS[t, s]]
            matched_TD[t, detection_P[starts_S[s]]] = annotation
            taken_TN[t, annotation] = True
    return matched_ATD


def _rounds(detection_P: Indices, image_D: Indices) -> Indices:
    """(P,) number of detections with pairs that precede each pair's detection in its image."""
    with_pairs, nth_P = np.unique(detection_P, return_inverse=True)
    image = image_D[with_pairs]
    round_of: Indices = np.arange(len(with_pairs)) - np.searchsorted(image, image, "left")
    return round_of[nth_P]

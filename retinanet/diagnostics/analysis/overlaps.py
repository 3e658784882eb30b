"""Overlap of boxes that lie in the same image, for a whole data set at once.

Legend: M boxes asked about, N boxes they are compared with, P pairs of the two within an image; 4 is [x, y, width,
height] in pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.matching import overlapping_pairs


class Pairs(NamedTuple):
    """Pairs of boxes of the same image with an IoU above 0; sorted by `first_P`."""

    first_P: NDArray[np.int64]
    """Row of the M boxes."""
    second_P: NDArray[np.int64]
    """Row of the N boxes; rising among the pairs of one first."""
    iou_P: NDArray[np.float64]


class Nearest(NamedTuple):
    """The box that overlaps each of M boxes most."""

    iou_M: NDArray[np.float64]
    """0 where there is none."""
    second_M: NDArray[np.int64]
    """Row of the N boxes, the first of equals; -1 where none overlaps."""


def pairs_within_images(
    image_M: NDArray[np.int64],
    boxes_M4: NDArray[np.float64],
    image_N: NDArray[np.int64],
    boxes_N4: NDArray[np.float64],
) -> Pairs:
    """Each of M boxes with every one of N boxes of its image that it overlaps; pycocotools' IoU."""
    by_image = np.argsort(image_N, kind="stable")
    no_crowd_N = np.zeros(len(image_N), dtype=bool)
    found = overlapping_pairs(
        image_M, boxes_M4, image_N[by_image], boxes_N4[by_image], no_crowd_N, least=np.nextafter(0.0, 1.0)
    )
    return Pairs(found.detection_P, by_image[found.annotation_P], found.iou_P)


def iou_of_rows(one_P4: NDArray[np.float64], other_P4: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) IoU of box p of the one with box p of the other; 0 where neither has an area."""
    high_P2 = np.minimum(one_P4[:, :2] + one_P4[:, 2:], other_P4[:, :2] + other_P4[:, 2:])
    common_P = (high_P2 - np.maximum(one_P4[:, :2], other_P4[:, :2])).clip(0).prod(axis=1)
    union_P = one_P4[:, 2:].prod(axis=1) + other_P4[:, 2:].prod(axis=1) - common_P
    return np.divide(common_P, union_P, out=np.zeros(len(common_P)), where=union_P > 0)


def nearest(pairs: Pairs, allowed_P: NDArray[np.bool_], count: int) -> Nearest:
    """Of the allowed pairs, the one with the largest IoU above 0 for each of `count` first boxes."""
    iou_M, second_M = np.zeros(count), np.full(count, -1, dtype=np.int64)
    kept = np.flatnonzero(allowed_P)
    # The last of equal keys is the one written: the largest IoU, and of equals the first in `pairs`.
    order = kept[np.lexsort((-kept, pairs.iou_P[kept], pairs.first_P[kept]))]
    iou_M[pairs.first_P[order]] = pairs.iou_P[order]
    second_M[pairs.first_P[order]] = pairs.second_P[order]
    return Nearest(iou_M, second_M)

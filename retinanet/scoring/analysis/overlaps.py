"""IoU of boxes in the same image, for a whole data set at once.

Legend: M boxes of a first set, N boxes of a second set, P pairs of the two within an image; 4 is [x, y, width, height]
in pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.matching import BoxPairs, overlapping_pairs


class BestOverlaps(NamedTuple):
    """For each of M boxes, the box of the second set with the largest IoU."""

    iou_M: NDArray[np.float64]
    """0 where no box overlaps."""
    second_M: NDArray[np.int64]
    """Row of the second set, the first of equals; -1 where no box overlaps."""


def pairs_within_images(
    image_M: NDArray[np.int64],
    boxes_M4: NDArray[np.float64],
    image_N: NDArray[np.int64],
    boxes_N4: NDArray[np.float64],
) -> BoxPairs:
    """All pairs of boxes of the same image with an IoU (pycocotools') above 0.

    Sorted by `first_P`; `second_P` is ascending among the pairs of one first box.
    """
    by_image = np.argsort(image_N, kind="stable")
    no_crowd_N = np.zeros(len(image_N), dtype=bool)
    above_0 = float(np.nextafter(0.0, 1.0))
    found = overlapping_pairs(image_M, boxes_M4, image_N[by_image], boxes_N4[by_image], no_crowd_N, min_iou=above_0)
    return found._replace(second_P=by_image[found.second_P])


def iou_of_rows(one_P4: NDArray[np.float64], other_P4: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) IoU of box p of the one with box p of the other; 0 where neither has an area."""
    high_P2 = np.minimum(one_P4[:, :2] + one_P4[:, 2:], other_P4[:, :2] + other_P4[:, 2:])
    common_P = (high_P2 - np.maximum(one_P4[:, :2], other_P4[:, :2])).clip(0).prod(axis=1)
    union_P = one_P4[:, 2:].prod(axis=1) + other_P4[:, 2:].prod(axis=1) - common_P
    iou_P = np.zeros(len(common_P))
    np.divide(common_P, union_P, out=iou_P, where=union_P > 0)
    return iou_P


def best_overlaps(pairs: BoxPairs, allowed_P: NDArray[np.bool_], count: int) -> BestOverlaps:
    """For each of `count` first boxes, the allowed pair with the largest IoU."""
    iou_M, second_M = np.zeros(count), np.full(count, -1, dtype=np.int64)
    kept = np.flatnonzero(allowed_P)
    # Of repeated indices the last assignment stays: the largest IoU, and of equals the first in `pairs`.
    order = kept[np.lexsort((-kept, pairs.iou_P[kept], pairs.first_P[kept]))]
    iou_M[pairs.first_P[order]] = pairs.iou_P[order]
    second_M[pairs.first_P[order]] = pairs.second_P[order]
    return BestOverlaps(iou_M, second_M)

"""AP by the size of objects, in finer ranges than COCO's small, medium and large.

Defined as COCO's: in each range of area, objects of another size are ignored, and so are detections that are matched
to such an object, or that are unmatched and of another size themselves.

Legend: T IoU thresholds, K classes, S size ranges, N annotations and D detections of a class.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import IOUS, average_precision
from retinanet.scoring.matching import FREE, greedy_matches, overlapping_pairs

SIDES = (0.0, 16.0, 32.0, 64.0, 96.0, 128.0, 256.0, math.inf)
"""Edges of the ranges: square root of an object's area, in pixels of the stored image. COCO's are 32 and 96."""


class SizeGroup(NamedTuple):
    """The objects in one range of sizes."""

    name: str
    objects: int
    ap: float
    """Mean over IoU 0.5 to 0.95 and the classes with such objects; -1 without any."""
    ap50: float


def by_size(scored: Scored) -> tuple[SizeGroup, ...]:
    """AP of the objects in each range of SIDES; an object whose side is an edge is in both ranges, as in COCO."""
    sides = list(pairwise(SIDES))
    lower_S1, upper_S1 = (np.array(sides) ** 2).T[:, :, None]
    areas = scored.objects.area_N[~scored.objects.crowd_N]
    count_S = ((areas >= lower_S1) & (areas <= upper_S1)).sum(axis=1).tolist()
    ap_KST = np.stack([_class_ap(scored, k, lower_S1, upper_S1) for k in range(len(scored.objects.category_ids_K))])
    groups = []
    for s, (low, high) in enumerate(sides):
        values = [part[part > -1] for part in (ap_KST[:, s], ap_KST[:, s, 0])]
        ap, ap50 = (float(part.mean()) if part.size else -1.0 for part in values)
        name = f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"
        groups.append(SizeGroup(name=name, objects=count_S[s], ap=ap, ap50=ap50))
    return tuple(groups)


def _class_ap(
    scored: Scored, k: int, lower_S1: NDArray[np.float64], upper_S1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S, T) AP of class k over the objects in each range of area; -1 where there are none."""
    objects, found = scored.objects, scored.found
    row_N, row_D = np.flatnonzero(objects.class_N == k), np.flatnonzero(found.class_D == k)
    row_N = row_N[np.argsort(objects.image_N[row_N], kind="stable")]
    row_D = row_D[np.argsort(found.image_D[row_D], kind="stable")]
    area_N, crowd_N, image_D = objects.area_N[row_N], objects.crowd_N[row_N], found.image_D[row_D]
    area_D = found.boxes_D4[row_D, 2:].prod(axis=1)
    ignored_SN = crowd_N | (area_N < lower_S1) | (area_N > upper_S1)
    other_size_SD = (area_D < lower_S1) | (area_D > upper_S1)
    ap_ST = np.full((len(lower_S1), len(IOUS)), -1.0)
    if ignored_SN.all():
        return ap_ST
    boxes_N4, image_N = objects.boxes_N4[row_N], objects.image_N[row_N]
    pairs = overlapping_pairs(image_D, found.boxes_D4[row_D], image_N, boxes_N4, crowd_N, IOUS[0])
    best_first_D = np.argsort(row_D)
    for s, matched_TD in enumerate(greedy_matches(pairs, image_D, crowd_N, ignored_SN, IOUS)):
        to_find = int((~ignored_SN[s]).sum())
        if to_find:
            is_free_TD = matched_TD == FREE
            counted_TD = np.where(is_free_TD, ~other_size_SD[s], ~ignored_SN[s][matched_TD])[:, best_first_D]
            hit_TD = ~is_free_TD[:, best_first_D]
            ap_ST[s] = [average_precision(hit[counted], to_find) for hit, counted in zip(hit_TD, counted_TD)]
    return ap_ST

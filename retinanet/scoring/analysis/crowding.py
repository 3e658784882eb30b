"""AP by the number of objects in an image, and recall by the overlap of an object with its neighbours.

Legend: I images, N annotations.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.overlaps import best_overlaps, pairs_within_images
from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import TRUE_POSITIVE, Matches, precision_at_recalls

COUNTS = ((1, 1), (2, 4), (5, 9), (10, math.inf))
"""Minimum and maximum objects (without crowd) of an image in each group."""
OVERLAPS = (0.0, 0.1, 0.3, 0.5, 1.0)
"""Edges of groups of objects by their largest IoU with another object of any class; a group includes its upper edge,
and the first group is IoU 0."""


class CrowdingGroup(NamedTuple):
    """The images with a number of objects in one range."""

    name: str
    images: int
    objects: int
    ap: float
    """COCO's AP on these images alone; -1 without objects."""
    ap50: float


class OverlapGroup(NamedTuple):
    """The objects whose largest IoU with a neighbour is in one range."""

    name: str
    objects: int
    found: int
    """Objects found at IoU 0.5 by a detection of any score."""
    found_from: int
    """Objects found at IoU 0.5 by a detection at or above the threshold."""


def by_crowding(scored: Scored) -> tuple[CrowdingGroup, ...]:
    """AP of the images with 1, 2 to 4, 5 to 9, and 10 or more objects."""
    images_N = scored.objects.image_N[~scored.objects.crowd_N]
    objects_I = np.bincount(images_N, minlength=len(scored.objects.image_ids_I))
    groups = []
    for lowest, highest in COUNTS:
        chosen_I = (objects_I >= lowest) & (objects_I <= highest)
        end = "" if highest == lowest else " or more" if math.isinf(highest) else f" to {highest}"
        precision_TQK = precision_at_recalls(of_images(scored.matches, chosen_I))
        values = [part[part > -1] for part in (precision_TQK, precision_TQK[0])]
        ap, ap50 = (float(part.mean()) if part.size else -1.0 for part in values)
        groups.append(
            CrowdingGroup(
                name=f"{lowest}{end}",
                images=int(chosen_I.sum()),
                objects=int(objects_I[chosen_I].sum()),
                ap=ap,
                ap50=ap50,
            )
        )
    return tuple(groups)


def of_images(matches: Matches, chosen_I: NDArray[np.bool_]) -> Matches:
    """The matches of some images alone; images keep their indices."""
    classes = []
    for found in matches.classes:
        kept_D, kept_N = chosen_I[found.image_D], chosen_I[found.object_image_N]
        classes.append(
            found._replace(
                image_D=found.image_D[kept_D],
                score_D=found.score_D[kept_D],
                outcome_ATD=found.outcome_ATD[:, :, kept_D],
                detection_D=found.detection_D[kept_D],
                matched_TD=found.matched_TD[:, kept_D],
                object_image_N=found.object_image_N[kept_N],
                objects_AN=found.objects_AN[:, kept_N],
            )
        )
    return matches._replace(classes=tuple(classes))


def by_overlap(scored: Scored, score: float) -> tuple[OverlapGroup, ...]:
    """Recall at IoU 0.5 by an object's largest IoU with another object, at any score and at or above `score`."""
    objects, found = scored.objects, scored.found
    plain = np.flatnonzero(~objects.crowd_N)
    images, boxes = objects.image_N[plain], objects.boxes_N4[plain]
    pairs = pairs_within_images(images, boxes, images, boxes)
    overlap = best_overlaps(pairs, pairs.first_P != pairs.second_P, len(plain)).iou_M
    hit_N, shown_N = np.zeros(len(objects.image_N), dtype=bool), np.zeros(len(objects.image_N), dtype=bool)
    right_D = found.outcome_D == TRUE_POSITIVE
    hit_N[found.object_D[right_D]] = True
    shown_N[found.object_D[right_D & (found.score_D >= score)]] = True
    names = ["none", *(f"{low:g} to {high:g}" for low, high in itertools.pairwise(OVERLAPS))]
    group = np.searchsorted(OVERLAPS, overlap, side="left")
    return tuple(
        OverlapGroup(
            name=name,
            objects=int((group == g).sum()),
            found=int(hit_N[plain][group == g].sum()),
            found_from=int(shown_N[plain][group == g].sum()),
        )
        for g, name in enumerate(names)
    )

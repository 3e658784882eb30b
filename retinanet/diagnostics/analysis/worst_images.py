"""Which images a detector does best and worst on.

Images are ranked by F1 of the detections from one score on, all classes together, at IoU 0.5. Among equals the worst
image is that with more errors, the best that with more hits; then that whose LRP error (Oksuz et al. 2018, arXiv
1807.01696, eq. 1) is larger, or smaller: (sum over hits of (1 - IoU) / 0.5 + false detections + objects not found) /
(hits + false + not found), which also tells how tight boxes are. An image with neither objects nor detections is in
no list.

Legend: I images, D detections best first, N annotations.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.overlaps import iou_of_rows
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE

IOU = 0.5


class ImageErrors(NamedTuple):
    """Every image from one score on."""

    score: float
    hits_I: NDArray[np.int64]
    false_I: NDArray[np.int64]
    unfound_I: NDArray[np.int64]
    f1_I: NDArray[np.float64]
    """NaN for an image with nothing in it, as is LRP."""
    lrp_I: NDArray[np.float64]


def measure_images(scored: Scored, score: float) -> ImageErrors:
    """Hits, errors, F1 and LRP error of every image."""
    found, objects, images = scored.found, scored.objects, len(scored.image_names)
    shown_D = found.score_D >= score
    hit_D, false_D = shown_D & (found.outcome_D == TRUE_POSITIVE), shown_D & (found.outcome_D == FALSE_POSITIVE)
    hits_I = np.bincount(found.image_D[hit_D], minlength=images)
    false_I = np.bincount(found.image_D[false_D], minlength=images)
    unfound_I = np.bincount(objects.image_N[~objects.crowd_N], minlength=images) - hits_I
    distance = 1 - iou_of_rows(found.boxes_D4[hit_D], objects.boxes_N4[found.object_D[hit_D]])
    placing_I = np.bincount(found.image_D[hit_D], weights=distance / (1 - IOU), minlength=images)
    errors_I = false_I + unfound_I
    nothing_I, any_I = np.full(images, np.nan), hits_I + errors_I > 0
    lrp_I = np.divide(placing_I + errors_I, hits_I + errors_I, out=nothing_I.copy(), where=any_I)
    f1_I = np.divide(2 * hits_I, 2 * hits_I + errors_I, out=nothing_I.copy(), where=any_I)
    return ImageErrors(score, hits_I, false_I, unfound_I, f1_I, lrp_I)


def worst(images: ImageErrors, most: int) -> list[int]:
    """Places of the images with the least F1; those without any error are not among them."""
    errors_I = images.false_I + images.unfound_I
    wrong = np.flatnonzero(errors_I > 0)
    order = np.lexsort((wrong, -images.lrp_I[wrong], -errors_I[wrong], images.f1_I[wrong]))
    return wrong[order][:most].tolist()


def best(images: ImageErrors, most: int) -> list[int]:
    """Places of the images with the largest F1; only such with a hit."""
    right = np.flatnonzero(images.hits_I > 0)
    order = np.lexsort((right, images.lrp_I[right], -images.hits_I[right], -images.f1_I[right]))
    return right[order][:most].tolist()

"""The images on which a detector performs best and worst.

Images are ranked by F1 at IoU 0.5 of the detections at or above one score, all classes together. Ties: the worst image
is the one with more errors, the best the one with more true positives; then the one with the larger, or smaller, LRP
error (Oksuz et al. 2018, arXiv 1807.01696, eq. 1): (sum over true positives of (1 - IoU) / 0.5 + false positives +
objects not found) / (true positives + false positives + objects not found), which also measures how tight boxes are.
Images with neither objects nor detections are not ranked.

Legend: I images, K classes, D detections best first, N annotations, P pairs of a class and an image with errors.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.overlaps import iou_of_rows
from retinanet.scoring.analysis.scored import HIT_IOU, Scored
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE


class ImageErrors(NamedTuple):
    """Counts and measures of every image at one score threshold."""

    score: float
    hits_I: NDArray[np.int64]
    false_I: NDArray[np.int64]
    unfound_I: NDArray[np.int64]
    f1_I: NDArray[np.float64]
    """NaN for an image with neither objects nor detections; so is LRP."""
    lrp_I: NDArray[np.float64]


class ClassImage(NamedTuple):
    """The errors of one class in an image."""

    image: int
    """Index of the image."""
    false: int
    """False positives of the class."""
    unfound: int
    """Objects of the class that are not found."""


def measure_images(scored: Scored, score: float) -> ImageErrors:
    """True positives, errors, F1 and LRP error of every image, with detections that score at least `score`."""
    found, objects, images = scored.found, scored.objects, len(scored.objects.image_ids_I)
    shown_D = found.score_D >= score
    hit_D, false_D = shown_D & (found.outcome_D == TRUE_POSITIVE), shown_D & (found.outcome_D == FALSE_POSITIVE)
    hits_I = np.bincount(found.image_D[hit_D], minlength=images)
    false_I = np.bincount(found.image_D[false_D], minlength=images)
    unfound_I = np.bincount(objects.image_N[~objects.crowd_N], minlength=images) - hits_I
    distance = 1 - iou_of_rows(found.boxes_D4[hit_D], objects.boxes_N4[found.object_D[hit_D]])
    placing_I = np.bincount(found.image_D[hit_D], weights=distance / (1 - HIT_IOU), minlength=images)
    errors_I = false_I + unfound_I
    nothing_I, any_I = np.full(images, np.nan), hits_I + errors_I > 0
    lrp_I = np.divide(placing_I + errors_I, hits_I + errors_I, out=nothing_I.copy(), where=any_I)
    f1_I = np.divide(2 * hits_I, 2 * hits_I + errors_I, out=nothing_I.copy(), where=any_I)
    return ImageErrors(score=score, hits_I=hits_I, false_I=false_I, unfound_I=unfound_I, f1_I=f1_I, lrp_I=lrp_I)


def worst_images(images: ImageErrors, most: int) -> list[int]:
    """Indices of at most `most` images with errors, smallest F1 first."""
    errors_I = images.false_I + images.unfound_I
    wrong = np.flatnonzero(errors_I > 0)
    order = np.lexsort((wrong, -images.lrp_I[wrong], -errors_I[wrong], images.f1_I[wrong]))
    return [int(image) for image in wrong[order][:most]]


def best_images(images: ImageErrors, most: int) -> list[int]:
    """Indices of at most `most` images with true positives, largest F1 first."""
    right = np.flatnonzero(images.hits_I > 0)
    order = np.lexsort((right, images.lrp_I[right], -images.hits_I[right], -images.f1_I[right]))
    return [int(image) for image in right[order][:most]]


def worst_images_of_classes(scored: Scored, score: float, most: int) -> list[list[ClassImage]]:
    """(K,) at most `most` images of each class, those with most errors of the class at this score first.

    Ties: the smaller index first. Images without an error of the class are not listed.
    """
    found, objects, images = scored.found, scored.objects, max(len(scored.objects.image_ids_I), 1)
    shown_D = found.score_D >= score
    false_D = shown_D & (found.outcome_D == FALSE_POSITIVE)
    free_N = ~objects.crowd_N
    free_N[found.object_D[shown_D & (found.outcome_D == TRUE_POSITIVE)]] = False
    # A key stands for a class and an image: most pairs have no error.
    of_false, of_free = (
        class_X * images + image_X
        for class_X, image_X in (
            (found.class_D[false_D], found.image_D[false_D]),
            (objects.class_N[free_N], objects.image_N[free_N]),
        )
    )
    key_P, place = np.unique(np.concatenate([of_false, of_free]), return_inverse=True)
    false_P = np.bincount(place[: len(of_false)], minlength=len(key_P))
    free_P = np.bincount(place[len(of_false) :], minlength=len(key_P))
    class_P, image_P = np.divmod(key_P, images)
    order = np.lexsort((image_P, -(false_P + free_P), class_P))
    ends = np.searchsorted(class_P[order], np.arange(len(objects.category_ids_K) + 1))
    return [
        [ClassImage(int(image_P[p]), int(false_P[p]), int(free_P[p])) for p in order[begin:end][:most]]
        for begin, end in pairwise(ends.tolist())
    ]

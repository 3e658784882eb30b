"""AP and AR of every class on resampled images, from matches and without matching again.

AP comes from `retinanet.scoring.bootstrap`. AR does not depend on the order of detections across images: it is the
share of objects that are found, averaged over IoU thresholds, and so follows from counts per image.

Legend: as in `retinanet.scoring.matches`, and R resamples, M metrics (METRIC_NAMES).
"""

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.bootstrap import weighted_metrics
from retinanet.scoring.evaluation import METRIC_NAMES
from retinanet.scoring.matches import AP_CELLS, AP_NAMES, AREAS, IOUS, TRUE_POSITIVE, ClassMatches, Matches

_ALL = 1 << 30
AR_CELLS: tuple[tuple[int, int], ...] = ((0, 1), (0, 10), (0, 100), (1, _ALL), (2, _ALL), (3, _ALL))
"""Area, and maximum detections of an image and class, of AR1, AR10, AR100, ARs, ARm, ARl; `_ALL`: those matched."""

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


def class_metrics(matches: Matches, multiplicity_RI: Ints) -> Floats:
    """(R, K, M) METRIC_NAMES of each class with image i counted multiplicity[r, i] times; NaN without objects.

    Equal to pycocotools' on the resampled data set. multiplicity_RI: as of `draw_multiplicities`.
    """
    metrics_RKM = np.full((len(multiplicity_RI), len(matches.classes), len(METRIC_NAMES)), np.nan)
    for k, found in enumerate(matches.classes):
        ap_RM = weighted_metrics(Matches(matches.image_ids_I, (found,)), multiplicity_RI)
        metrics_RKM[:, k, : len(AP_NAMES)] = np.where(ap_RM < 0, np.nan, ap_RM)
        metrics_RKM[:, k, len(AP_NAMES) :] = class_recalls(found, multiplicity_RI)
    return metrics_RKM


def class_recalls(found: ClassMatches, multiplicity_RI: Ints) -> Floats:
    """(R, 6) AR1 to ARl of one class; NaN where the resample has no object that counts."""
    rank_D = rank_in_image(found.image_D)
    weight_RI = multiplicity_RI.astype(np.float64)
    recall_R6 = np.full((len(weight_RI), len(AR_CELLS)), np.nan)
    for m, (area, limit) in enumerate(AR_CELLS):
        objects_R = weight_RI[:, found.object_image_N] @ found.objects_AN[area].astype(np.float64)
        hits_D = (found.outcome_ATD[area] == TRUE_POSITIVE).sum(axis=0) * (rank_D < limit)
        hits_I = np.bincount(found.image_D, hits_D, minlength=weight_RI.shape[1])
        np.divide(weight_RI @ hits_I, len(IOUS) * objects_R, out=recall_R6[:, m], where=objects_R > 0)
    return recall_R6


def rank_in_image(image_D: Ints) -> NDArray[np.intp]:
    """(D,) number of detections of the same image that precede each; D is best first."""
    order = np.argsort(image_D, kind="stable")
    sorted_D = image_D[order]
    rank_D = np.empty(len(image_D), dtype=np.intp)
    rank_D[order] = np.arange(len(image_D)) - np.searchsorted(sorted_D, sorted_D, side="left")
    return rank_D


def images_with_objects(matches: Matches) -> NDArray[np.int64]:
    """(M, K + 1) number of images with objects that count for each metric: of each class, and last of any class."""
    areas = [area for area, _ in (*AP_CELLS, *AR_CELLS)]
    seen = np.zeros((len(AREAS), len(matches.classes) + 1), dtype=np.int64)
    for a in range(len(AREAS)):
        of_class = [found.object_image_N[found.objects_AN[a] > 0] for found in matches.classes]
        seen[a, :-1] = [len(images) for images in of_class]
        seen[a, -1] = len(np.unique(np.concatenate([np.zeros(0, np.int32), *of_class])))
    return seen[areas]


def mean_over_classes(metrics_RKM: Floats) -> Floats:
    """(R, M) mean over the classes that have objects; NaN where none has."""
    known_RKM = ~np.isnan(metrics_RKM)
    total_RM = np.where(known_RKM, metrics_RKM, 0.0).sum(axis=1)
    classes_RM = known_RKM.sum(axis=1)
    mean_RM = np.full(total_RM.shape, np.nan)
    np.divide(total_RM, classes_RM, out=mean_RM, where=classes_RM > 0)
    return mean_RM

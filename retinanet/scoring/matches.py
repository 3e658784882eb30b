"""Which detections are true and which false positives, as pycocotools decides, in compact arrays.

AP of any multiset of images follows from these arrays without matching again (`retinanet.scoring.bootstrap`).

Legend: I images, D detections of a class (best first), N images with objects of a class,
A areas (AREAS), T IoU thresholds (IOUS), Q recalls (RECALLS), K classes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import ConfigError, DataError, list_errors
from retinanet.scoring.columns import DETECTIONS, DetectionColumns, TruthColumns, detection_columns, truth_columns
from retinanet.scoring.evaluation import METRIC_NAMES
from retinanet.scoring.matching import FREE, BoxPairs, greedy_matches, overlapping_pairs

AREAS = ("all", "small", "medium", "large")
AREA_RANGES = ((0.0, 1e5**2), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2))
"""Minimum and maximum square pixels of each area, both inclusive."""
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)

AP_NAMES = METRIC_NAMES[:6]
"""AP, AP50, AP75, APs, APm, APl: the last axis of every array of AP metrics."""

AP_CELLS: tuple[tuple[int, slice], ...] = (
    (0, slice(0, 10)),
    (0, slice(0, 1)),
    (0, slice(5, 6)),
    (1, slice(0, 10)),
    (2, slice(0, 10)),
    (3, slice(0, 10)),
)
"""Area and IoU thresholds that each of AP_NAMES is the mean over."""

FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2


class ClassMatches(NamedTuple):
    """Detections and objects of one class over a whole data set."""

    category_id: int
    image_D: NDArray[np.int32]
    """(D,) index into Matches.image_ids_I. D is in pycocotools' order: best score first, ties by image id, and
    within an image as in the results; at most DETECTIONS an image."""
    score_D: NDArray[np.float64]
    outcome_ATD: NDArray[np.uint8]
    """(4, 10, D) FALSE_POSITIVE, TRUE_POSITIVE, or IGNORED (matched to a crowd or to an object of another size, or
    unmatched and itself of another size)."""
    object_image_N: NDArray[np.int32]
    """(N,) index into Matches.image_ids_I, ascending."""
    objects_AN: NDArray[np.int32]
    """(4, N) number of objects of the image that count at each area: neither crowd nor of another size."""
    detection_D: NDArray[np.int32]
    """(D,) row in the results."""
    matched_TD: NDArray[np.int32]
    """(10, D) row in the ground truth's annotations, a crowd region included, that the detection is matched to at area
    "all"; -1 for none."""


class Matches(NamedTuple):
    """One set of detections against one ground truth."""

    image_ids_I: NDArray[np.int64]
    """(I,) ascending."""
    classes: tuple[ClassMatches, ...]
    """By ascending category id, including those without objects or detections."""


class ScoreSamples(NamedTuple):
    """Scores of all classes together, for histograms."""

    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]


def match_detections(
    ground_truth: dict[str, Any], results: list[dict[str, Any]] | None, max_detections: int | None = DETECTIONS
) -> Matches:
    """`match_columns` of a validated COCO dict and validated COCO results; neither is changed.

    None stands for the detections of a run that diverged and equals an empty list: no detections, so AP is 0 wherever
    there is something to find. Such a run has no model to evaluate; leaving it out instead would reward an arm for
    failing on its hard seeds.
    """
    truth = truth_columns(ground_truth)
    return match_columns(truth, detection_columns(truth, results or []), max_detections)


def match_columns(truth: TruthColumns, found: DetectionColumns, max_detections: int | None = DETECTIONS) -> Matches:
    """Pycocotools' matching of a set of detections.

    max_detections: best detections of an image and class that count; None: all.
    Raises DataError where boxes are so large or small that an IoU is not a number.
    """
    # Class by class, image by image, best first, ties as in the results.
    order = np.lexsort((-found.score_D, found.image_D, found.class_D))
    if max_detections is not None:
        order = order[_rank_in_image(found.class_D[order], found.image_D[order]) < max_detections]
    ends = np.searchsorted(found.class_D[order], np.arange(len(truth.category_ids_K) + 1))
    by_image = np.lexsort((truth.image_N, truth.class_N))
    object_ends = np.searchsorted(truth.class_N[by_image], np.arange(len(truth.category_ids_K) + 1))
    classes = tuple(
        _match_class(
            int(category_id),
            truth,
            found,
            row_N=by_image[object_ends[k] : object_ends[k + 1]],
            row_D=order[ends[k] : ends[k + 1]],
        )
        for k, category_id in enumerate(truth.category_ids_K)
    )
    return Matches(truth.image_ids_I, classes)


def _rank_in_image(class_D: NDArray[np.int64], image_D: NDArray[np.int64]) -> NDArray[np.int64]:
    """(D,) index among the detections of the same class and image, which are contiguous."""
    starts = np.flatnonzero((np.diff(class_D, prepend=-1) != 0) | (np.diff(image_D, prepend=-1) != 0))
    lengths = np.diff(starts, append=len(class_D))
    return np.arange(len(class_D)) - np.repeat(starts, lengths)


def _match_class(
    category_id: int, truth: TruthColumns, found: DetectionColumns, row_N: NDArray[np.intp], row_D: NDArray[np.intp]
) -> ClassMatches:
    """One class from its rows: annotations grouped by image, detections too and best first within each."""
    image_N, crowd_N, image_D = truth.image_N[row_N], truth.crowd_N[row_N], found.image_D[row_D]
    boxes_D4 = found.boxes_D4[row_D]
    area_N = truth.area_N[row_N]
    with np.errstate(over="ignore", under="ignore"):
        area_D = boxes_D4[:, 2] * boxes_D4[:, 3]
    lower_A1, upper_A1 = np.array(AREA_RANGES).T[:, :, None]
    ignored_AN = crowd_N | (area_N < lower_A1) | (area_N > upper_A1)
    other_size_AD = (area_D < lower_A1) | (area_D > upper_A1)
    pairs = overlapping_pairs(image_D, boxes_D4, image_N, truth.boxes_N4[row_N], crowd_N, IOUS[0])
    _check_overlaps(pairs, truth, found, row_N, row_D)
    matched_ATD = greedy_matches(pairs, image_D, crowd_N, ignored_AN, IOUS)

    is_free_ATD = matched_ATD == FREE
    outcome_ATD = np.where(is_free_ATD, FALSE_POSITIVE, TRUE_POSITIVE).astype(np.uint8)
    if len(row_N):
        on_ignored_ATD = np.stack([ignored_N[matched] for ignored_N, matched in zip(ignored_AN, matched_ATD)])
        outcome_ATD[~is_free_ATD & on_ignored_ATD] = IGNORED
    outcome_ATD[is_free_ATD & other_size_AD[:, None]] = IGNORED
    images, place_N = np.unique(image_N, return_inverse=True)
    objects_AN = np.stack([np.bincount(place_N[~ignored_N], minlength=len(images)) for ignored_N in ignored_AN])
    with_objects = objects_AN.any(axis=0)
    best_first_D = np.argsort(-found.score_D[row_D], kind="stable")
    # FREE is -1 and so indexes the last entry.
    row_or_free = np.append(row_N, FREE).astype(np.int32)
    return ClassMatches(
        category_id=category_id,
        image_D=image_D[best_first_D].astype(np.int32),
        score_D=found.score_D[row_D][best_first_D],
        outcome_ATD=outcome_ATD[:, :, best_first_D],
        object_image_N=images[with_objects].astype(np.int32),
        objects_AN=objects_AN[:, with_objects].astype(np.int32),
        detection_D=row_D[best_first_D].astype(np.int32),
        matched_TD=row_or_free[matched_ATD[0][:, best_first_D]],
    )


def _check_overlaps(
    pairs: BoxPairs, truth: TruthColumns, found: DetectionColumns, row_N: NDArray[np.intp], row_D: NDArray[np.intp]
) -> None:
    """Raise DataError where an IoU is not a number; rows as in `_match_class`."""
    bad = np.flatnonzero(np.isnan(pairs.iou_P))
    if len(bad):
        rows = zip(row_D[pairs.first_P[bad]], row_N[pairs.second_P[bad]], strict=True)
        errors = [
            f"detection {d} (from 0) with bbox {found.boxes_D4[d].tolist()} and annotation {n} with bbox "
            f"{truth.boxes_N4[n].tolist()}, image_id {truth.image_ids_I[found.image_D[d]]}"
            for d, n in rows
        ]
        raise DataError(list_errors("boxes too large or too small for their IoU to be a number; correct them", errors))


def precision_at_recalls(matches: Matches, area: str = "all") -> NDArray[np.float64]:
    """(T, Q, K) interpolated precision, -1 for a class without objects.

    Equal to pycocotools' `eval["precision"]` to the last bit.
    """
    a = AREAS.index(area)
    precision_TQK = np.full((len(IOUS), len(RECALLS), len(matches.classes)), -1.0)
    for k, found in enumerate(matches.classes):
        objects = int(found.objects_AN[a].sum())
        if objects == 0:
            continue
        hits_TD = np.cumsum(found.outcome_ATD[a] == TRUE_POSITIVE, axis=1, dtype=np.float64)
        misses_TD = np.cumsum(found.outcome_ATD[a] == FALSE_POSITIVE, axis=1, dtype=np.float64)
        precision_TD = hits_TD / (misses_TD + hits_TD + np.spacing(1))
        best_ahead_TD = np.maximum.accumulate(precision_TD[:, ::-1], axis=1)[:, ::-1]
        for t in range(len(IOUS)):
            at_Q = np.searchsorted(hits_TD[t] / objects, RECALLS, side="left")
            reached = int(np.count_nonzero(at_Q < hits_TD.shape[1]))
            precision_TQK[t, :reached, k] = best_ahead_TD[t, at_Q[:reached]]
            precision_TQK[t, reached:, k] = 0.0
    return precision_TQK


def average_precisions(matches: Matches) -> dict[str, float]:
    """AP_NAMES of the data set as it is, bit for bit `coco_evaluation`'s; -1 where there is nothing to measure."""
    of_area = [precision_at_recalls(matches, area) for area in AREAS]
    values = [of_area[a][thresholds] for a, thresholds in AP_CELLS]
    known = [value[value > -1] for value in values]
    return {name: float(value.mean()) if value.size else -1.0 for name, value in zip(AP_NAMES, known, strict=True)}


def precision_recall_curve(matches: Matches, iou: float = 0.5) -> NDArray[np.float64]:
    """(Q,) interpolated precision at RECALLS, the mean over the classes that have objects; -1 without any object.

    Raises ConfigError unless iou is one of IOUS.
    """
    precision_QK = precision_at_recalls(matches)[_threshold(iou)]
    present_QK = precision_QK[:, precision_QK[0] > -1]
    return present_QK.mean(axis=1) if present_QK.size else np.full(len(RECALLS), -1.0)


def hit_and_miss_scores(matches: Matches, iou: float = 0.5) -> ScoreSamples:
    """Scores of true and of false positives, all classes and sizes; ignored detections are left out.

    Raises ConfigError unless iou is one of IOUS.
    """
    t = _threshold(iou)

    def scores(outcome: int) -> NDArray[np.float64]:
        parts = [found.score_D[found.outcome_ATD[0, t] == outcome] for found in matches.classes]
        return np.concatenate([np.zeros(0), *parts])

    return ScoreSamples(scores(TRUE_POSITIVE), scores(FALSE_POSITIVE))


def _threshold(iou: float) -> int:
    near = np.flatnonzero(np.abs(IOUS - iou) < 1e-9)
    if len(near) == 0:
        raise ConfigError(f"IoU threshold {iou}: use one of {', '.join(f'{value:.2f}' for value in IOUS)}")
    return int(near[0])


def interpolated_precision(hit_D: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """(Q,) the best precision at each of COCO's 101 recalls or beyond; 0 where the recall is not reached.

    objects: number of objects to find, at least 1.
    """
    hits_D = np.cumsum(hit_D, dtype=np.float64)
    precision_D = hits_D / (np.arange(1, len(hit_D) + 1) + np.spacing(1))
    best_ahead_D = np.maximum.accumulate(precision_D[::-1])[::-1]
    at_Q = np.searchsorted(hits_D / objects, RECALLS, side="left")
    return np.where(at_Q < len(hit_D), np.append(best_ahead_D, 0.0)[at_Q.clip(max=len(hit_D))], 0.0)


def average_precision(hit_D: NDArray[np.bool_], objects: int) -> float:
    """AP at one IoU threshold, as COCO defines it: the mean of `interpolated_precision`."""
    return float(interpolated_precision(hit_D, objects).mean())

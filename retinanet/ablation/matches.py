"""Which detections hit and which miss, found once by pycocotools and kept as small arrays.

AP of any multiset of images follows from these arrays without matching again (`retinanet.ablation.bootstrap`).

Legend: I images, D detections of a class (best first), N images with objects of a class,
A areas (AREAS), T IoU thresholds (IOUS), Q recalls (RECALLS), K classes.
"""

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from retinanet.errors import ConfigFault
from retinanet.evaluate import METRIC_NAMES, index_coco

AREAS = ("all", "small", "medium", "large")
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)

AP_NAMES = METRIC_NAMES[:6]
"""AP, AP50, AP75, APs, APm, APl: the last axis of every array of metrics in this package."""

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
    within an image as in the results; at most 100 detections an image."""
    score_D: NDArray[np.float64]
    outcome_ATD: NDArray[np.uint8]
    """(4, 10, D) FALSE_POSITIVE, TRUE_POSITIVE, or IGNORED (matched to a crowd or to an object of another size, or
    unmatched and itself of another size)."""
    object_image_N: NDArray[np.int32]
    """(N,) index into Matches.image_ids_I, rising."""
    objects_AN: NDArray[np.int32]
    """(4, N) objects of the image that count at each area: neither crowd nor of another size."""


class Matches(NamedTuple):
    """One set of detections against one ground truth."""

    image_ids_I: NDArray[np.int64]
    """(I,) rising."""
    classes: tuple[ClassMatches, ...]
    """By rising category id, those without objects or detections too."""


class ScoreSamples(NamedTuple):
    """Scores of all classes together, for histograms."""

    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]


def match_detections(ground_truth: dict[str, Any], results: list[dict[str, Any]] | None) -> Matches:
    """pycocotools' matching of a set of detections.

    ground_truth: a validated COCO dict; results: validated COCO results. Neither is changed.
    None stands for the detections of a run that diverged and is the same as an empty list: no detections, so AP is 0
    wherever there is something to find. A run that diverged has no model that could be evaluated; leaving it out
    instead would reward an arm for failing on its hard seeds.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # COCOeval and loadRes write keys of their own into what they are given.
        truth = index_coco({**ground_truth, "annotations": [dict(row) for row in ground_truth["annotations"]]})
        found = (
            truth.loadRes([dict(result) for result in results])
            if results
            else index_coco({**ground_truth, "annotations": []})
        )
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
    image_ids, category_ids = evaluation.params.imgIds, evaluation.params.catIds
    per_class = len(AREAS) * len(image_ids)
    classes = tuple(
        _class_matches(int(category_id), evaluation.evalImgs[k * per_class : (k + 1) * per_class])
        for k, category_id in enumerate(category_ids)
    )
    return Matches(np.array(image_ids, dtype=np.int64), classes)


def _class_matches(category_id: int, entries: list[dict[str, Any] | None]) -> ClassMatches:
    """From pycocotools' entries of one class, area by area and image by image; None where an image has nothing."""
    images = len(entries) // len(AREAS)
    known = [(i, entry) for i, entry in enumerate(entries[:images]) if entry is not None]
    image_D = np.array([i for i, entry in known for _ in entry["dtScores"]], dtype=np.int32)
    score_D = np.array([score for _, entry in known for score in entry["dtScores"]], dtype=np.float64)
    order_D = np.argsort(-score_D, kind="stable")
    outcome_ATD = np.zeros((len(AREAS), len(IOUS), len(score_D)), dtype=np.uint8)
    objects_AN = np.zeros((len(AREAS), len(known)), dtype=np.int32)
    for a in range(len(AREAS)) if known else ():
        # An image has entries at every area or at none.
        of_area = [entry for entry in entries[a * images : (a + 1) * images] if entry is not None]
        matched_TD = np.concatenate([entry["dtMatches"] for entry in of_area], axis=1) != 0
        ignored_TD = np.concatenate([entry["dtIgnore"] for entry in of_area], axis=1).astype(bool)
        outcome_ATD[a] = np.where(ignored_TD, IGNORED, np.where(matched_TD, TRUE_POSITIVE, FALSE_POSITIVE))[:, order_D]
        objects_AN[a] = [np.count_nonzero(entry["gtIgnore"] == 0) for entry in of_area]
    with_objects_N = np.flatnonzero(objects_AN.any(axis=0))
    return ClassMatches(
        category_id,
        image_D[order_D],
        score_D[order_D],
        outcome_ATD,
        np.array([known[n][0] for n in with_objects_N], dtype=np.int32),
        objects_AN[:, with_objects_N],
    )


def precision_at_recalls(matches: Matches, area: str = "all") -> NDArray[np.float64]:
    """(T, Q, K) interpolated precision, to the last bit pycocotools' `eval["precision"]`; -1 for absent classes."""
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
    """AP_NAMES of the data set as it is, equal to `coco_evaluation`'s to the last bit; -1 where nothing to measure."""
    of_area = [precision_at_recalls(matches, area) for area in AREAS]
    values = [of_area[a][thresholds] for a, thresholds in AP_CELLS]
    known = [value[value > -1] for value in values]
    return {name: float(value.mean()) if value.size else -1.0 for name, value in zip(AP_NAMES, known, strict=True)}


def precision_recall_curve(matches: Matches, iou: float = 0.5) -> NDArray[np.float64]:
    """(Q,) interpolated precision at RECALLS, the mean over the classes that have objects; -1 without any object.

    Raises ConfigFault unless iou is one of IOUS.
    """
    precision_QK = precision_at_recalls(matches)[_threshold(iou)]
    present_QK = precision_QK[:, precision_QK[0] > -1]
    return present_QK.mean(axis=1) if present_QK.size else np.full(len(RECALLS), -1.0)


def hit_and_miss_scores(matches: Matches, iou: float = 0.5) -> ScoreSamples:
    """Scores of true and of false positives, all classes and sizes; ignored detections are in neither.

    Raises ConfigFault unless iou is one of IOUS.
    """
    t = _threshold(iou)

    def scores(outcome: int) -> NDArray[np.float64]:
        parts = [found.score_D[found.outcome_ATD[0, t] == outcome] for found in matches.classes]
        return np.concatenate([np.zeros(0), *parts])

    return ScoreSamples(scores(TRUE_POSITIVE), scores(FALSE_POSITIVE))


def _threshold(iou: float) -> int:
    near = np.flatnonzero(np.abs(IOUS - iou) < 1e-9)
    if len(near) == 0:
        raise ConfigFault(f"IoU threshold {iou}: use one of {', '.join(f'{value:.2f}' for value in IOUS)}")
    return int(near[0])

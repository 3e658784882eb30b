"""Types of error and the AP50 lost to each: TIDE (Bolya et al. 2020, arXiv 2008.08115).

A false positive at IoU 0.5 has one type, the first that applies (section 2.2, in the order of the authors' code):
localisation (IoU 0.1 to 0.5 with an object of its class), classification (IoU of at least 0.5 with an object of another
class), duplicate (IoU of at least 0.5 with an object of its class that a better detection is matched to), background
(IoU of at most 0.1 with every object), both (the rest: poorly localised and of the wrong class). An object is missed if
no detection found it and no localisation or classification error would when corrected.
The AP50 lost to a type is AP50 with this type alone corrected, minus AP50. The best localisation or classification
error of each free object becomes a true positive, and the others are removed; duplicate, background and both errors are
removed; missed objects are not counted. Differences from the authors' code: detections in a crowd are not errors, and
a class all of whose objects are missed has AP 1 when that is corrected, where the authors' code gives 0.

Legend: D detections best first, N annotations, K classes, P pairs of the two.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.overlaps import best_overlaps, pairs_within_images
from retinanet.scoring.analysis.scored import HIT_IOU, NO_OBJECT, Scored
from retinanet.scoring.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, average_precision

BACKGROUND_IOU = 0.1

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
NO_ERROR = -1


class Errors(NamedTuple):
    """The type of error of every detection and object."""

    kind_D: NDArray[np.int64]
    """Index into KINDS, never MISSED; NO_ERROR for true positives and detections in a crowd."""
    target_D: NDArray[np.int64]
    """Row of the object that a classification or localisation error overlaps most, else NO_OBJECT."""
    winner_D: NDArray[np.bool_]
    """The best classification or localisation error of an object that no detection found."""
    unfound_N: NDArray[np.bool_]
    """Objects that no detection found: false negatives, without crowd regions."""
    missed_N: NDArray[np.bool_]
    """Objects of unfound_N without a winner."""


class ErrorCost(NamedTuple):
    """One type of error."""

    kind: str
    errors: int
    """Count."""
    ap50: float
    """AP50 that correcting them would gain, in 0..1."""


class ErrorReport(NamedTuple):
    """All types; AP50 is -1 where there is no object."""

    ap50: float
    main: tuple[ErrorCost, ...]
    """In the order of KINDS."""
    special: tuple[ErrorCost, ...]
    """False positives (corrected: all scored below every true positive), false negatives (all counted as found)."""
    counts_TK: NDArray[np.int64]
    """(6, K) errors of each type by class of the detection, or of the object where missed."""


def classify_errors(scored: Scored) -> Errors:
    """The type of every false positive and of every object that was not found."""
    found, objects = scored.found, scored.objects
    plain = np.flatnonzero(~objects.crowd_N)
    pairs = pairs_within_images(found.image_D, found.boxes_D4, objects.image_N[plain], objects.boxes_N4[plain])
    same_P = found.class_D[pairs.first_P] == objects.class_N[plain][pairs.second_P]
    count = len(found.score_D)
    own, other = best_overlaps(pairs, same_P, count), best_overlaps(pairs, ~same_P, count)
    false_D = found.outcome_D == FALSE_POSITIVE
    poorly_placed_D = (own.iou_M >= BACKGROUND_IOU) & (own.iou_M < HIT_IOU)
    cases = [poorly_placed_D, other.iou_M >= HIT_IOU, own.iou_M >= HIT_IOU, other.iou_M <= BACKGROUND_IOU]
    kind_D = np.where(false_D, np.select(cases, [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH), NO_ERROR)

    nearest_D = np.where(kind_D == LOCALISATION, own.second_M, other.second_M)
    has_target_D = (kind_D == LOCALISATION) | (kind_D == CLASSIFICATION)
    target_D = np.full(count, NO_OBJECT, dtype=np.int64)
    target_D[has_target_D] = plain[nearest_D[has_target_D]]

    unfound_N = ~objects.crowd_N
    unfound_N[found.object_D[found.outcome_D == TRUE_POSITIVE]] = False
    candidates = np.flatnonzero(has_target_D)
    candidates = candidates[unfound_N[target_D[candidates]]]
    won, first = np.unique(target_D[candidates], return_index=True)
    winner_D = np.zeros(count, dtype=bool)
    winner_D[candidates[first]] = True
    missed_N = unfound_N.copy()
    missed_N[won] = False
    return Errors(kind_D=kind_D, target_D=target_D, winner_D=winner_D, unfound_N=unfound_N, missed_N=missed_N)


def report_errors(scored: Scored, errors: Errors) -> ErrorReport:
    """Count of each type and the AP50 that correcting it would gain."""
    found, objects_K = scored.found, scored.objects.objects_K()
    class_N = scored.objects.class_N
    kept_D = found.outcome_D != IGNORED
    hit_D = found.outcome_D == TRUE_POSITIVE
    ap50 = mean_ap(found.class_D, hit_D, kept_D, objects_K, objects_K)

    def per_class(chosen_N: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(class_N[chosen_N], minlength=len(objects_K))

    def gain(kind: int) -> float:
        of_kind_D = errors.kind_D == kind
        if kind == MISSED:
            fixed = mean_ap(found.class_D, hit_D, kept_D, objects_K - per_class(errors.missed_N), objects_K)
        else:
            turned_D = of_kind_D & errors.winner_D
            class_D = found.class_D.copy()
            class_D[turned_D] = class_N[errors.target_D[turned_D]]
            fixed = mean_ap(class_D, hit_D | turned_D, kept_D & ~(of_kind_D & ~turned_D), objects_K, objects_K)
        return fixed - ap50

    counts_TK = np.array(
        [np.bincount(found.class_D[errors.kind_D == kind], minlength=len(objects_K)) for kind in range(5)]
    )
    counts_TK = np.concatenate([counts_TK, per_class(errors.missed_N)[None]])
    # False positives scored 0 rank below every true positive, where their precision affects no recall: leave them out.
    without_false = mean_ap(found.class_D, hit_D, hit_D, objects_K, objects_K)
    without_unfound = mean_ap(found.class_D, hit_D, kept_D, objects_K - per_class(errors.unfound_N), objects_K)
    special = (
        ErrorCost("false positives", int((kept_D & ~hit_D).sum()), without_false - ap50),
        ErrorCost("false negatives", int(errors.unfound_N.sum()), without_unfound - ap50),
    )
    main = tuple(ErrorCost(name, int(counts_TK[kind].sum()), gain(kind)) for kind, name in enumerate(KINDS))
    return ErrorReport(ap50=ap50, main=main, special=special, counts_TK=counts_TK)


def mean_ap(
    class_D: NDArray[np.int64],
    hit_D: NDArray[np.bool_],
    kept_D: NDArray[np.bool_],
    to_find_K: NDArray[np.int64],
    objects_K: NDArray[np.int64],
) -> float:
    """Mean AP over the classes with objects, AP 1 for a class with none left to find; -1 without such a class."""
    chosen = np.flatnonzero(kept_D)
    chosen = chosen[np.argsort(class_D[chosen], kind="stable")]
    ends = np.searchsorted(class_D[chosen], np.arange(len(objects_K) + 1))
    hits = hit_D[chosen]
    values = [
        average_precision(hits[ends[k] : ends[k + 1]], int(to_find_K[k])) if to_find_K[k] > 0 else 1.0
        for k in np.flatnonzero(objects_K).tolist()
    ]
    return float(np.mean(values)) if values else -1.0

"""What kinds of error a detector makes, and the AP50 that each costs: TIDE (Bolya et al. 2020, arXiv 2008.08115).

A detection that is false at IoU 0.5 has one kind, the first that fits (section 2.2 and the authors' own order):
localisation (overlaps an object of its class by 0.1 to 0.5), classification (overlaps an object of another class by
0.5), duplicate (overlaps an object of its class by 0.5 that a better detection has), background (overlaps nothing by
more than 0.1), both (the rest: badly placed and of the wrong class). An object that nothing found and that no
localisation or classification error would give is missed.
The cost is AP50 with that kind put right, alone, minus AP50: a localisation or classification error turns into a hit
if its object is free, the best one for each object, and the others go; duplicates, background and both go; missed
objects are not counted. Not as in the authors' program: detections in a crowd are no errors, and a class all of whose
objects are missed counts as AP 1 when those are put right, where theirs says 0.

Legend: D detections best first, N annotations, K classes, P pairs of the two.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.analysis.columns import NO_OBJECT, Scored
from retinanet.diagnostics.analysis.overlaps import nearest, pairs_within_images
from retinanet.scoring.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, average_precision

HIT_IOU = 0.5
BACKGROUND_IOU = 0.1

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
NO_ERROR = -1


class Errors(NamedTuple):
    """The kind of every detection and object."""

    kind_D: NDArray[np.int64]
    """Place in KINDS, never MISSED; NO_ERROR for hits and what is in a crowd."""
    target_D: NDArray[np.int64]
    """Row of the object that a classification or localisation error is about, else NO_OBJECT."""
    winner_D: NDArray[np.bool_]
    """The best classification or localisation error of an object that nothing found."""
    unfound_N: NDArray[np.bool_]
    """Objects that no detection found: false negatives. Crowd regions are no objects."""
    missed_N: NDArray[np.bool_]
    """Those of them that no winner would find."""


class Cost(NamedTuple):
    """One kind of error."""

    kind: str
    errors: int
    """How many."""
    ap50: float
    """AP50 that would be gained, in 0..1."""


class ErrorReport(NamedTuple):
    """Costs of all kinds; AP50 -1 where there is no object."""

    ap50: float
    main: tuple[Cost, ...]
    """By KINDS."""
    special: tuple[Cost, ...]
    """false positives (all scored below every hit), false negatives (all counted as found)."""
    counts_TK: NDArray[np.int64]
    """(6, K) errors of each kind by class: that of the detection; of the object where missed."""


def find_errors(scored: Scored) -> Errors:
    """The kind of every false detection and of every object that was not found."""
    found, objects = scored.found, scored.objects
    plain = np.flatnonzero(~objects.crowd_N)
    pairs = pairs_within_images(found.image_D, found.boxes_D4, objects.image_N[plain], objects.boxes_N4[plain])
    same_P = found.class_D[pairs.first_P] == objects.class_N[plain][pairs.second_P]
    count = len(found.score_D)
    own, other = nearest(pairs, same_P, count), nearest(pairs, ~same_P, count)
    false_D = found.outcome_D == FALSE_POSITIVE
    badly_placed_D = (own.iou_M >= BACKGROUND_IOU) & (own.iou_M < HIT_IOU)
    cases = [badly_placed_D, other.iou_M >= HIT_IOU, own.iou_M >= HIT_IOU, other.iou_M <= BACKGROUND_IOU]
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
    return Errors(kind_D, target_D, winner_D, unfound_N, missed_N)


def report_errors(scored: Scored, errors: Errors) -> ErrorReport:
    """Counts of each kind and what AP50 would gain without it."""
    found, objects_K = scored.found, scored.counts_K()
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
    # Hits first is what false positives scored 0 come to; their precision beyond the last hit reaches no recall.
    without_false = mean_ap(found.class_D, hit_D, hit_D, objects_K, objects_K)
    without_unfound = mean_ap(found.class_D, hit_D, kept_D, objects_K - per_class(errors.unfound_N), objects_K)
    special = (
        Cost("false positives", int((kept_D & ~hit_D).sum()), without_false - ap50),
        Cost("false negatives", int(errors.unfound_N.sum()), without_unfound - ap50),
    )
    main = tuple(Cost(name, int(counts_TK[kind].sum()), gain(kind)) for kind, name in enumerate(KINDS))
    return ErrorReport(ap50, main, special, counts_TK)


def mean_ap(
    class_D: NDArray[np.int64],
    hit_D: NDArray[np.bool_],
    kept_D: NDArray[np.bool_],
    to_find_K: NDArray[np.int64],
    objects_K: NDArray[np.int64],
) -> float:
    """Mean AP over the classes that have objects; 1 for one in which nothing is left to find; -1 without any class."""
    chosen = np.flatnonzero(kept_D)
    chosen = chosen[np.argsort(class_D[chosen], kind="stable")]
    ends = np.searchsorted(class_D[chosen], np.arange(len(objects_K) + 1))
    hits = hit_D[chosen]
    values = [
        average_precision(hits[ends[k] : ends[k + 1]], int(to_find_K[k])) if to_find_K[k] > 0 else 1.0
        for k in np.flatnonzero(objects_K).tolist()
    ]
    return float(np.mean(values)) if values else -1.0

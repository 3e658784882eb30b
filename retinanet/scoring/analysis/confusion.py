"""The confusion matrix: which class is detected as which, at IoU 0.5 and at or above one score.

Every detection at or above the score is paired with at most one object and vice versa: first the true positives, as
COCO matches them within a class, then the remaining detections with the remaining objects of any class, largest IoU
first, down to 0.5. So the diagonal holds exactly the true positives at that score, and an object counts as right even
where a detection of another class overlaps it more. A detection without a partner counts as background, although it
may lie on an object that is already paired (a duplicate, or a second class for it); so does an object without one.
Crowd regions and detections in them do not count.

Legend: K classes, D detections, P pairs.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.overlaps import pairs_within_images
from retinanet.scoring.analysis.scored import HIT_IOU, Scored
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE


class Confusion(NamedTuple):
    """Counts of pairs of an object and a detection."""

    score: float
    """Detections that score at least this are counted."""
    counts: NDArray[np.int64]
    """(K + 1, K + 1) by true class (row) and detected class (column); the last row and column are background."""


class ConfusedPair(NamedTuple):
    """Objects of one class detected as another."""

    true_class: int
    found_class: int
    objects: int
    share: float
    """Fraction of all objects of the true class."""


class ConfusedClasses(NamedTuple):
    """The part of a confusion matrix with the classes that are confused most; S of them."""

    classes: tuple[int, ...]
    """(S,) indices of the classes, ascending."""
    counts: NDArray[np.int64]
    """(S + 2, S + 2): these classes, all other classes together, and background. Its sum is that of the whole matrix;
    the diagonal of the other classes holds the right ones and those that they are confused with among themselves."""


def confusion_matrix(scored: Scored, score: float) -> Confusion:
    """Pair detections that score at least `score` with objects and count the pairs by class."""
    found, objects = scored.found, scored.objects
    classes = len(scored.objects.category_ids_K)
    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    shown_D = found.score_D >= score
    hits = np.flatnonzero(shown_D & (found.outcome_D == TRUE_POSITIVE))
    np.add.at(counts, (found.class_D[hits], found.class_D[hits]), 1)
    free_N = ~objects.crowd_N
    free_N[found.object_D[hits]] = False
    left, free = np.flatnonzero(shown_D & (found.outcome_D == FALSE_POSITIVE)), np.flatnonzero(free_N)
    pairs = pairs_within_images(
        found.image_D[left], found.boxes_D4[left], objects.image_N[free], objects.boxes_N4[free]
    )
    near = np.flatnonzero(pairs.iou_P >= HIT_IOU)
    paired = np.zeros(len(left), dtype=bool)
    taken = np.zeros(len(free), dtype=bool)
    for pair in near[np.argsort(-pairs.iou_P[near], kind="stable")].tolist():
        detection, target = pairs.first_P[pair], pairs.second_P[pair]
        if not paired[detection] and not taken[target]:
            paired[detection] = taken[target] = True
            counts[objects.class_N[free[target]], found.class_D[left[detection]]] += 1
    np.add.at(counts[classes], found.class_D[left[~paired]], 1)
    np.add.at(counts[:, classes], objects.class_N[free[~taken]], 1)
    return Confusion(score, counts)


def most_confused(confusion: Confusion, most: int) -> list[ConfusedPair]:
    """The `most` most frequent pairs of two different classes, most frequent first; without background."""
    between = confusion.counts[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    objects = confusion.counts[:-1].sum(axis=1)
    order = np.argsort(-between, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(between)) for place in order] if len(between) else []
    return [
        ConfusedPair(true_class=a, found_class=b, objects=int(between[a, b]), share=float(between[a, b] / objects[a]))
        for a, b in places
        if between[a, b] > 0
    ]


def confused_classes(confusion: Confusion, most: int) -> ConfusedClasses:
    """The classes of the most frequent pairs, at most `most`; a pair that does not fit is passed over."""
    classes = len(confusion.counts) - 1
    chosen: set[int] = set()
    for pair in most_confused(confusion, classes * classes):
        if len(chosen | {pair.true_class, pair.found_class}) <= most:
            chosen |= {pair.true_class, pair.found_class}
        if len(chosen) == most:
            break
    kept = sorted(chosen)
    place_K = np.full(classes + 1, len(kept))
    place_K[kept] = np.arange(len(kept))
    place_K[classes] = len(kept) + 1
    counts = np.zeros((len(kept) + 2, len(kept) + 2), dtype=np.int64)
    np.add.at(counts, (place_K[:, None], place_K[None]), confusion.counts)
    return ConfusedClasses(classes=tuple(kept), counts=counts)

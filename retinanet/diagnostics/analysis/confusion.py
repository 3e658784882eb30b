"""Which class is taken for which, at IoU 0.5 and from one score on.

Every detection that scores enough is paired with at most one object and the reverse: first the hits, as COCO pairs
them within a class, then what is left with what is left, of any class, largest IoU first, down to 0.5. So the
diagonal holds exactly the true positives of that score, and an object counts as right even where a detection of another
class overlaps it more. A detection without a partner stands under background, though it may lie on an object that has
been found already (a duplicate, or a second class for it); an object without one stands there too. Crowd regions and
detections in them do not count.

Legend: K classes, D detections, P pairs.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.overlaps import pairs_within_images
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE

IOU = 0.5


class Confusion(NamedTuple):
    """Counts of pairs."""

    score: float
    """Detections that score at least this are in it."""
    counts: NDArray[np.int64]
    """(K + 1, K + 1) by true class and by detected class; the last row and column are background."""


class ConfusedPair(NamedTuple):
    """Objects of one class detected as another."""

    true_class: int
    found_class: int
    objects: int
    share: float
    """Of all objects of the true class."""


def confusion_matrix(scored: Scored, score: float) -> Confusion:
    """Pair detections that score at least `score` with objects and count the pairs by class."""
    found, objects = scored.found, scored.objects
    classes = len(scored.categories)
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
    near = np.flatnonzero(pairs.iou_P >= IOU)
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
    """Pairs of two different classes, commonest first; background is not among them."""
    between = confusion.counts[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    objects = confusion.counts[:-1].sum(axis=1)
    order = np.argsort(-between, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(between)) for place in order] if len(between) else []
    return [
        ConfusedPair(a, b, int(between[a, b]), float(between[a, b] / objects[a]))
        for a, b in places
        if between[a, b] > 0
    ]

"""Precision, recall and F1 at IoU 0.5 as functions of the score threshold, and the threshold with the best F1.

Legend: D detections best first, S distinct scores, G points of a curve.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import IGNORED, TRUE_POSITIVE

NO_THRESHOLD = 0.5
"""Threshold in use where none can be chosen, since no object was found."""
CURVE_POINTS = 201
LOW_SCORES = 0.5
"""If no score is larger than this, curves end at the largest score instead of 1, to stay readable."""


class OperatingPoint(NamedTuple):
    """A detector used at one score threshold. All None without objects or true positives to choose one by."""

    score: float | None
    """The threshold: detections that score at least this count."""
    precision: float | None
    recall: float | None
    f1: float | None


class ThresholdCurve(NamedTuple):
    """Numbers by threshold; precision is NaN where no detection scores that high."""

    score_G: NDArray[np.float64]
    precision_G: NDArray[np.float64]
    recall_G: NDArray[np.float64]
    f1_G: NDArray[np.float64]


class Thresholds(NamedTuple):
    """Best thresholds, and the curves behind them."""

    overall: OperatingPoint
    """Of the detections and objects of all classes together."""
    by_class: tuple[OperatingPoint, ...]
    """(K,)"""
    curve: ThresholdCurve
    class_curves: tuple[ThresholdCurve, ...]
    """(K,)"""

    def score(self) -> float:
        """The overall threshold, or NO_THRESHOLD."""
        return NO_THRESHOLD if self.overall.score is None else self.overall.score


def find_thresholds(scored: Scored) -> Thresholds:
    """Sweep the threshold of each class, and one threshold for all classes together."""
    found, objects_K = scored.found, scored.objects.objects_K()
    kept = np.flatnonzero(found.outcome_D != IGNORED)
    score_D, hit_D = found.score_D[kept], found.outcome_D[kept] == TRUE_POSITIVE
    grid_G = np.linspace(score_D.min(initial=0.0), _end_of_curves(score_D.max(initial=0.0)), CURVE_POINTS)
    order = np.argsort(found.class_D[kept], kind="stable")
    ends = np.searchsorted(found.class_D[kept][order], np.arange(len(objects_K) + 1))
    classes = [(order[ends[k] : ends[k + 1]], int(objects_K[k])) for k in range(len(objects_K))]
    return Thresholds(
        overall=best_operating_point(score_D, hit_D, int(objects_K.sum())),
        by_class=tuple(best_operating_point(score_D[rows], hit_D[rows], objects) for rows, objects in classes),
        curve=curve_over_scores(score_D, hit_D, int(objects_K.sum()), grid_G),
        class_curves=tuple(curve_over_scores(score_D[rows], hit_D[rows], objects, grid_G) for rows, objects in classes),
    )


def _end_of_curves(largest: float) -> float:
    """Right end of the curves: at least 1, except for a detector all of whose scores are low."""
    return max(1.0, largest) if largest > LOW_SCORES or largest == 0 else largest


def best_operating_point(score_D: NDArray[np.float64], hit_D: NDArray[np.bool_], objects: int) -> OperatingPoint:
    """The threshold with the largest F1, the highest of equals. score_D is descending."""
    if objects == 0 or not hit_D.any():
        return OperatingPoint(score=None, precision=None, recall=None, f1=None)
    last_S = np.flatnonzero(np.append(score_D[1:] < score_D[:-1], True))
    hits_S = np.cumsum(hit_D)[last_S]
    f1_S = 2 * hits_S / (last_S + 1 + objects)
    best = int(np.argmax(f1_S))
    kept, hits = int(last_S[best]) + 1, int(hits_S[best])
    return OperatingPoint(
        score=float(score_D[kept - 1]), precision=hits / kept, recall=hits / objects, f1=float(f1_S[best])
    )


def curve_over_scores(
    score_D: NDArray[np.float64], hit_D: NDArray[np.bool_], objects: int, grid_G: NDArray[np.float64]
) -> ThresholdCurve:
    """The numbers at each threshold of grid_G. score_D is descending; recall and F1 are NaN without objects."""
    kept_G = len(score_D) - np.searchsorted(score_D[::-1], grid_G, side="left")
    hits_G = np.append(0, np.cumsum(hit_D))[kept_G].astype(np.float64)
    nothing_G = np.full(len(grid_G), np.nan)
    precision_G = np.divide(hits_G, kept_G, out=nothing_G.copy(), where=kept_G > 0)
    recall_G, f1_G = (hits_G / objects, 2 * hits_G / (kept_G + objects)) if objects else (nothing_G, nothing_G)
    return ThresholdCurve(score_G=grid_G, precision_G=precision_G, recall_G=recall_G, f1_G=f1_G)

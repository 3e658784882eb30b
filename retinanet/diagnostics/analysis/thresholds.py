"""Precision, recall and F1 at IoU 0.5 over the score from which detections count, and where F1 is best.

Legend: D detections best first, S distinct scores, G points of a curve.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.analysis.columns import Scored
from retinanet.scoring.matches import IGNORED, TRUE_POSITIVE

IOU = 0.5
CURVE_POINTS = 201
LOW_SCORES = 0.5
"""Where no score is larger, curves end at the largest, so that something can be seen of them."""


class OperatingPoint(NamedTuple):
    """A detector used from one score on. All None where there is nothing to choose by: no object, or no hit."""

    score: float | None
    """Detections that score at least this count."""
    precision: float | None
    recall: float | None
    f1: float | None


class ThresholdCurve(NamedTuple):
    """Numbers over the score; precision is NaN where no detection scores so high."""

    score_G: NDArray[np.float64]
    precision_G: NDArray[np.float64]
    recall_G: NDArray[np.float64]
    f1_G: NDArray[np.float64]


class Thresholds(NamedTuple):
    """Best thresholds, and the curves behind them."""

    overall: OperatingPoint
    """All classes' detections and objects taken together."""
    by_class: tuple[OperatingPoint, ...]
    """(K,)"""
    curve: ThresholdCurve
    class_curves: tuple[ThresholdCurve, ...]
    """(K,)"""

    def as_dict(self, categories: tuple[tuple[int, str], ...]) -> dict[str, Any]:
        """What eval.json holds under "thresholds"."""
        rows = [{"id": id_, "name": name, **o._asdict()} for (id_, name), o in zip(categories, self.by_class)]
        return {"iou": IOU, "overall": self.overall._asdict(), "by_class": rows}


def find_thresholds(scored: Scored) -> Thresholds:
    """Sweep the score over each class, and over all together with one threshold for every class."""
    found, objects_K = scored.found, scored.counts_K()
    kept = np.flatnonzero(found.outcome_D != IGNORED)
    score_D, hit_D = found.score_D[kept], found.outcome_D[kept] == TRUE_POSITIVE
    grid_G = np.linspace(score_D.min(initial=0.0), _end_of_curves(score_D.max(initial=0.0)), CURVE_POINTS)
    order = np.argsort(found.class_D[kept], kind="stable")
    ends = np.searchsorted(found.class_D[kept][order], np.arange(len(objects_K) + 1))
    classes = [(order[ends[k] : ends[k + 1]], int(objects_K[k])) for k in range(len(objects_K))]
    return Thresholds(
        best_operation(score_D, hit_D, int(objects_K.sum())),
        tuple(best_operation(score_D[rows], hit_D[rows], objects) for rows, objects in classes),
        curve_over_scores(score_D, hit_D, int(objects_K.sum()), grid_G),
        tuple(curve_over_scores(score_D[rows], hit_D[rows], objects, grid_G) for rows, objects in classes),
    )


def _end_of_curves(largest: float) -> float:
    """Where curves over the score end: at 1 or beyond, but for a detector all of whose scores are low."""
    return max(1.0, largest) if largest > LOW_SCORES or largest == 0 else largest


def best_operation(score_D: NDArray[np.float64], hit_D: NDArray[np.bool_], objects: int) -> OperatingPoint:
    """The score from which F1 is largest; the highest of equals. score_D falls."""
    if objects == 0 or not hit_D.any():
        return OperatingPoint(None, None, None, None)
    last_S = np.flatnonzero(np.append(score_D[1:] < score_D[:-1], True))
    hits_S = np.cumsum(hit_D)[last_S]
    f1_S = 2 * hits_S / (last_S + 1 + objects)
    best = int(np.argmax(f1_S))
    kept, hits = int(last_S[best]) + 1, int(hits_S[best])
    return OperatingPoint(float(score_D[kept - 1]), hits / kept, hits / objects, float(f1_S[best]))


def curve_over_scores(
    score_D: NDArray[np.float64], hit_D: NDArray[np.bool_], objects: int, grid_G: NDArray[np.float64]
) -> ThresholdCurve:
    """The numbers at each threshold of grid_G. score_D falls; recall and F1 are NaN without objects."""
    kept_G = len(score_D) - np.searchsorted(score_D[::-1], grid_G, side="left")
    hits_G = np.append(0, np.cumsum(hit_D))[kept_G].astype(np.float64)
    nothing_G = np.full(len(grid_G), np.nan)
    precision_G = np.divide(hits_G, kept_G, out=nothing_G.copy(), where=kept_G > 0)
    if objects == 0:
        return ThresholdCurve(grid_G, precision_G, nothing_G, nothing_G)
    return ThresholdCurve(grid_G, precision_G, hits_G / objects, 2 * hits_G / (kept_G + objects))

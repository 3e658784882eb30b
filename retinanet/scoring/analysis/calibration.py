"""Calibration: whether scores equal the precision of the detections that have them.

Expected calibration error (ECE) of Naeini et al. (2015) and Guo et al. (2017, arXiv 1706.04599, eq. 3): the mean over
detections of |precision at IoU 0.5 - mean score| in their bin, with bins of equal width. Detections in a crowd do not
count.

Legend: D detections, K classes, B bins.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import IGNORED, TRUE_POSITIVE

BINS = 20


class Reliability(NamedTuple):
    """One set of detections; means are NaN in empty bins."""

    edges: NDArray[np.float64]
    """(B + 1,) a bin includes its lower edge, the last bin both."""
    count_B: NDArray[np.int64]
    score_B: NDArray[np.float64]
    """Mean score."""
    right_B: NDArray[np.float64]
    """Precision: share of true positives."""
    ece: float
    """NaN without detections."""


class ShownScores(NamedTuple):
    """The detections that score at least `from_score`, all classes together."""

    from_score: float
    detections: int
    mean_score: float
    right: float
    """Precision: share of true positives."""


class Calibration(NamedTuple):
    """Of all classes together, and of each."""

    overall: Reliability
    by_class: tuple[Reliability, ...]
    shown: ShownScores | None
    """None where no detection scores that high. ECE is dominated by low scores; these are the detections in use."""


def measure_calibration(scored: Scored, from_score: float) -> Calibration | None:
    """Reliability of the scores, and their mean error at and above `from_score`.

    None where some scores lie outside 0..1 and so are not probabilities.
    """
    found = scored.found
    if len(found.score_D) and not (found.score_D[-1] >= 0 and found.score_D[0] <= 1):
        return None
    kept = found.outcome_D != IGNORED
    score_D, hit_D, class_D = found.score_D[kept], found.outcome_D[kept] == TRUE_POSITIVE, found.class_D[kept]
    classes = [class_D == k for k in range(len(scored.objects.category_ids_K))]
    above_D = score_D >= from_score
    count = int(above_D.sum())
    shown = (
        ShownScores(
            from_score=from_score,
            detections=count,
            mean_score=float(score_D[above_D].mean()),
            right=float(hit_D[above_D].mean()),
        )
        if count
        else None
    )
    by_class = tuple(reliability(score_D[of_class], hit_D[of_class]) for of_class in classes)
    return Calibration(reliability(score_D, hit_D), by_class, shown)


def reliability(score_D: NDArray[np.float64], hit_D: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Reliability of scores in 0..1, in bins of equal width."""
    bin_D = np.minimum((score_D * bins).astype(np.int64), bins - 1)
    count_B = np.bincount(bin_D, minlength=bins)
    sums_B = np.bincount(bin_D, weights=score_D, minlength=bins)
    hits_B = np.bincount(bin_D, weights=hit_D, minlength=bins)
    nothing_B = np.full(bins, np.nan)
    score_B = np.divide(sums_B, count_B, out=nothing_B.copy(), where=count_B > 0)
    right_B = np.divide(hits_B, count_B, out=nothing_B.copy(), where=count_B > 0)
    ece = float(np.abs(hits_B - sums_B).sum() / len(score_D)) if len(score_D) else float("nan")
    edges = np.linspace(0, 1, bins + 1)
    return Reliability(edges=edges, count_B=count_B, score_B=score_B, right_B=right_B, ece=ece)

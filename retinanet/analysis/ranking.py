"""Precision, recall and AP of a ranked list of hits and misses.

Legend: D detections best first, ignored ones left out; Q recalls.
"""

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.matches import RECALLS


def interpolated_precision(hit_D: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """(Q,) the best precision at each of COCO's 101 recalls or beyond; 0 where the recall is not reached.

    objects: how many there are to find, at least 1.
    """
    hits_D = np.cumsum(hit_D, dtype=np.float64)
    precision_D = hits_D / (np.arange(1, len(hit_D) + 1) + np.spacing(1))
    best_ahead_D = np.maximum.accumulate(precision_D[::-1])[::-1]
    at_Q = np.searchsorted(hits_D / objects, RECALLS, side="left")
    return np.where(at_Q < len(hit_D), np.append(best_ahead_D, 0.0)[at_Q.clip(max=len(hit_D))], 0.0)


def average_precision(hit_D: NDArray[np.bool_], objects: int) -> float:
    """AP at one IoU threshold, as COCO takes it: the mean of `interpolated_precision`."""
    return float(interpolated_precision(hit_D, objects).mean())

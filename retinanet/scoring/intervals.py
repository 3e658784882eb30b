"""Intervals and p-values from bootstrap samples, and the correction of p-values for multiple comparisons."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIGNIFICANCE = 0.05
DEFAULT_RESAMPLES = 1000
FEWEST_IMAGES = 6
"""Minimum number of images with objects for a verdict or an interval: if all n favour one of two detectors, the exact
test that swaps the two image by image gives p = 2^(1 - n), which is below 0.05 for n >= 6."""

Floats = NDArray[np.float64]


def percentile_interval(samples_R: Floats, level: float = 0.95) -> tuple[float, float]:
    """Central `level` of the samples, ignoring NaN: quantiles (1 - level) / 2 and (1 + level) / 2, interpolated."""
    known = samples_R[~np.isnan(samples_R)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p_value(samples_R: Floats) -> float:
    """Two-sided p-value of "no difference" from bootstrap samples of the difference, ignoring NaN.

    p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (R + 1)). The 1 counts the data set itself among the resamples: p
    is never 0, its minimum is 2 / (R + 1), and samples that are all 0 give 1. NaN without samples.
    """
    known = samples_R[~np.isnan(samples_R)]
    if len(known) == 0:
        return float("nan")
    tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return float(min(1.0, 2 * (1 + tail) / (len(known) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the order given.

    p_(i) becomes the maximum over j <= i of (n - j + 1) p_(j), at most 1. NaN stays NaN and does not count towards n.
    """
    corrected = [float("nan")] * len(p_values)
    ascending = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    largest_so_far = 0.0
    for place, (p, i) in enumerate(ascending):
        largest_so_far = max(largest_so_far, min(1.0, (len(ascending) - place) * p))
        corrected[i] = largest_so_far
    return corrected


def fewest_resamples(comparisons: int) -> int:
    """Minimum number of resamples with which a comparison in a family of this size can reach 5 % after Holm.

    From the minimum p-value: comparisons x 2 / (R + 1) < 0.05; 1000 suffice for 25.
    """
    return round(2 * comparisons / SIGNIFICANCE)

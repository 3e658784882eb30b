"""The power of a paired t-test over seeds, and the width of the intervals of the report: pure functions.

Student's t, central or not, is a standard normal Z plus a shift, divided by S = sqrt(chi-square / df) that is
independent of Z; its distribution is integrated over S. Seeds are the units: S - 1 degrees of freedom.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

POWER = 0.8
SIGNIFICANT = 0.05
GRID = 4001
"""Points of the integration over S."""
MOST_SEEDS = 1000
DRAWS = 200_000

Floats = NDArray[np.float64]


class PairedSpread(NamedTuple):
    """Variation of the difference between two arms, as standard deviations in AP of 0..1."""

    seeds: float
    """Over seeds, on the same test images."""
    images_shared: float
    """Over test images, of what all seeds have in common: more seeds do not reduce it."""
    images_own: float
    """Over test images, of each seed's own."""

    def of_one_seed(self, seeds: int) -> float:
        """The deviation whose square over `seeds` is the variance of the mean difference."""
        return math.sqrt(self.seeds**2 + self.images_own**2 + seeds * self.images_shared**2)


def paired_spread(point_S: Floats, samples_SR: Floats) -> PairedSpread:
    """The spread of (S,) differences on the test images and (S, R) of resampled images, S at least 2.

    The variance over images of the mean of S seeds is shared² + own² / S: the mean covariance of two seeds is the
    first, what a seed's variance has beyond it the second.
    """
    covariance_SS = np.cov(samples_SR)
    shared = max(0.0, float(covariance_SS[~np.eye(len(point_S), dtype=bool)].mean()))
    own = max(0.0, float(np.diag(covariance_SS).mean()) - shared)
    return PairedSpread(seeds=float(point_S.std(ddof=1)), images_shared=math.sqrt(shared), images_own=math.sqrt(own))


def t_cdf(t: float, df: int, shift: float = 0.0) -> float:
    """P(T <= t) of Student's t with df degrees of freedom and noncentrality `shift`."""
    s_G = np.linspace(1e-9, 1 + 9 / math.sqrt(df), GRID)
    log_G = (df - 1) * np.log(s_G) - df * s_G**2 / 2
    constant = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
    density_G = np.exp(constant + log_G)
    below_G = np.array([0.5 * math.erfc((shift - t * s) / math.sqrt(2)) for s in s_G.tolist()])
    values_G = density_G * below_G
    return float((values_G.sum() - (values_G[0] + values_G[-1]) / 2) * (s_G[1] - s_G[0]))


def t_quantile(p: float, df: int) -> float:
    """The t for which `t_cdf` is p, of 0.5 to 1."""
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def paired_power(difference: float, deviation: float, seeds: int, comparisons: int) -> float:
    """Probability that a two-sided paired t-test over seeds finds a true difference at 0.05 / comparisons.

    That is what Holm's correction demands of the smallest p-value, so the power is the least among the comparisons.
    """
    df = seeds - 1
    critical = t_quantile(1 - SIGNIFICANT / (2 * comparisons), df)
    shift = difference / deviation * math.sqrt(seeds)
    return 1 - t_cdf(critical, df, shift) + t_cdf(-critical, df, shift)


def detectable_difference(deviation: float, seeds: int, comparisons: int) -> float:
    """The smallest difference that is found with POWER; infinite with one seed."""
    if seeds < 2:
        return math.inf
    if deviation == 0:
        return 0.0
    df = seeds - 1
    critical = t_quantile(1 - SIGNIFICANT / (2 * comparisons), df)
    low, high = 0.0, 2 * critical + 10
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if 1 - t_cdf(critical, df, middle) >= POWER else (middle, high)
    return high * deviation / math.sqrt(seeds)


def seeds_needed(difference: float, spread: PairedSpread, comparisons: int) -> int | None:
    """The fewest seeds that find a difference with POWER; None if more than MOST_SEEDS, or if test images limit it."""

    def is_enough(seeds: int) -> bool:
        return detectable_difference(spread.of_one_seed(seeds), seeds, comparisons) <= difference

    high = 2
    while not is_enough(high):
        if high >= MOST_SEEDS:
            return None
        high = min(2 * high, MOST_SEEDS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def predicted_width(spread: PairedSpread, seeds: int) -> float:
    """Width of the report's 95 % interval over images and seeds, in AP of 0..1; infinite with one seed."""
    if seeds < 2:
        return math.inf
    rng = np.random.default_rng(0)
    images = math.sqrt(spread.images_shared**2 + spread.images_own**2 / seeds) * rng.standard_normal(DRAWS)
    draws = images + spread.seeds / math.sqrt(seeds) * rng.standard_t(seeds - 1, DRAWS)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(high - low)

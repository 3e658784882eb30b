"""Statistics of repetitions. Pure."""

from collections.abc import Sequence

import numpy as np

from retinanet.config.fields import Section


class Spread(Section):
    """Median and spread of a figure over repetitions."""

    median: float
    quartiles: tuple[float, float]
    least: float
    most: float
    count: int


def spread_of(values: Sequence[float]) -> Spread:
    """Median, quartiles (linear interpolation), extremes and number of `values`, at least one of them."""
    least, low, middle, high, most = np.percentile(np.asarray(values, dtype=np.float64), [0, 25, 50, 75, 100]).tolist()
    return Spread(median=middle, quartiles=(low, high), least=least, most=most, count=len(values))


def paired_ratios(peer: Sequence[float], ours: Sequence[float]) -> Spread:
    """Spread of peer / ours over repetitions: what ran one after the other shares the machine's mood."""
    return spread_of([theirs / own for theirs, own in zip(peer, ours, strict=True)])

"""How unevenly a loss is distributed over samples: the paper's Figure 4 as pure functions of an array of losses.

Legend: N samples, M points of a curve, S losses (different functions on the same samples), G groups.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CURVE_POINTS = 400
HARDEST_FRACTIONS = (0.001, 0.01, 0.2)
"""Fractions of the samples whose share of the loss is reported."""


class CumulativeCurve(NamedTuple):
    """Cumulative normalised loss of samples sorted by increasing loss, both (M,) float64 from 0 to 1."""

    fraction_M: NDArray[np.float64]
    """Fraction of the samples."""
    cumulative_M: NDArray[np.float64]
    """Fraction of the loss."""


class LossSpread(NamedTuple):
    """How concentrated the loss of N samples is."""

    samples: int
    mean: float
    """Mean loss of a sample, in the loss's own scale."""
    hardest: tuple[float, ...]
    """Fraction of the loss that the hardest HARDEST_FRACTIONS of the samples carry."""
    half: float
    """Smallest fraction of the samples that carries half of the loss."""
    effective: float
    """exp(entropy) of the normalised losses: N where all are equal, 1 where one sample has all of the loss."""


class Distribution(NamedTuple):
    """How the loss of one set of samples is distributed."""

    curve: CumulativeCurve
    spread: LossSpread


@dataclass(eq=False)
class Breakdown:
    """Anchors counted, and their losses summed, by a property that groups them."""

    of: str
    """positives, negatives or all (both)."""
    by: str
    """level, size, class or label."""
    names: tuple[str, ...]
    anchors_G: NDArray[np.int64]
    loss_SG: NDArray[np.float64]

    @classmethod
    def empty(cls, of: str, by: str, names: tuple[str, ...], losses: int) -> "Breakdown":
        """No anchors yet, for this number of losses."""
        return cls(of, by, names, np.zeros(len(names), dtype=np.int64), np.zeros((losses, len(names))))

    def add(self, losses_SN: NDArray[np.float32], group_N: NDArray[np.int64]) -> None:
        """Add anchors by their losses and groups."""
        self.anchors_G += np.bincount(group_N, minlength=len(self.names))
        for row_G, loss_N in zip(self.loss_SG, losses_SN, strict=True):
            row_G += np.bincount(group_N, weights=loss_N, minlength=len(self.names))

    def shares_SG(self) -> NDArray[np.float64]:
        """Each group's fraction of its loss: rows sum to 1. The sums of loss_SG must be above 0."""
        shares_SG: NDArray[np.float64] = self.loss_SG / self.loss_SG.sum(axis=1, keepdims=True)
        return shares_SG

    def anchor_shares_G(self) -> NDArray[np.float64]:
        """Each group's fraction of the anchors, summing to 1; zeros where there are no anchors."""
        shares_G: NDArray[np.float64] = self.anchors_G / max(int(self.anchors_G.sum()), 1)
        return shares_G


def distribution_of(losses_N: NDArray[np.floating], points: int = CURVE_POINTS) -> Distribution:
    """The curve of the paper's Figure 4 (sorted by increasing loss, normalised to sum 1, accumulated), and its numbers.

    losses_N: (N,), finite and not negative, in any order. Raises ValueError as `cumulative_loss`.
    """
    cumulative = cumulative_loss(losses_N)
    fraction_M = curve_fractions(len(losses_N), points)
    easiest = part_of_easiest(cumulative, 1.0 - np.array(HARDEST_FRACTIONS))
    spread = LossSpread(
        samples=len(losses_N),
        mean=float(losses_N.mean(dtype=np.float64)),
        hardest=tuple((1.0 - easiest).tolist()),
        half=half_fraction(cumulative),
        effective=effective_number(losses_N),
    )
    return Distribution(CumulativeCurve(fraction_M, part_of_easiest(cumulative, fraction_M)), spread)


def cumulative_loss(losses_N: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N + 1,) float64: entry i is the fraction of the loss that the i easiest samples carry, from 0 to 1.

    Raises ValueError where there is no sample, a negative or non-finite loss, or no loss above zero.
    """
    if not len(losses_N):
        raise ValueError("no samples: their loss has no distribution")
    ordered_N = np.sort(losses_N)
    if not ordered_N[0] >= 0 or not np.isfinite(ordered_N[-1]):
        raise ValueError("losses must be finite and not negative")
    cumulative = np.zeros(len(ordered_N) + 1)
    np.cumsum(ordered_N, dtype=np.float64, out=cumulative[1:])
    if cumulative[-1] == 0:
        raise ValueError("all losses are zero: they have no distribution")
    cumulative /= cumulative[-1]
    return cumulative


def curve_fractions(samples: int, points: int) -> NDArray[np.float64]:
    """Fractions at which a curve is sampled: (M,) ascending from 0 to 1, M at most `points`.

    Half are evenly spaced; the others approach 1 geometrically to within one sample, where a concentrated loss rises.
    """
    even = np.linspace(0.0, 1.0, points - points // 2)
    tail = 1.0 - np.geomspace(1.0 / max(samples, 2), 0.5, points // 2)
    fractions: NDArray[np.float64] = np.union1d(even, tail)
    return fractions


def part_of_easiest(cumulative: NDArray[np.float64], fraction_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fraction of the loss that these fractions of the easiest samples carry; linear within a sample."""
    position_M = np.clip(fraction_M, 0.0, 1.0) * (len(cumulative) - 1)
    below_M = np.minimum(position_M.astype(np.int64), len(cumulative) - 2)
    step_M = cumulative[below_M + 1] - cumulative[below_M]
    part_M: NDArray[np.float64] = cumulative[below_M] + (position_M - below_M) * step_M
    return part_M


def half_fraction(cumulative: NDArray[np.float64]) -> float:
    """Smallest fraction of the samples, hardest first, that carries half of the loss; linear within a sample."""
    upper = int(np.searchsorted(cumulative, 0.5))
    step = cumulative[upper] - cumulative[upper - 1]
    position = upper - (cumulative[upper] - 0.5) / step
    return float(1.0 - position / (len(cumulative) - 1))


def effective_number(losses_N: NDArray[np.floating]) -> float:
    """exp(entropy) of losses (N,) normalised to sum 1: the number of equal losses that would be spread as evenly."""
    weights = losses_N[losses_N > 0].astype(np.float64)
    weights /= weights.sum()
    return float(np.exp(-(weights * np.log(weights)).sum()))

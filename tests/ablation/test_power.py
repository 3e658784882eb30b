"""Power: against tables of Student's t, and against simulated studies."""

import math

import numpy as np
import pytest

from retinanet.ablation.power import (
    PairedSpread,
    detectable_difference,
    paired_power,
    paired_spread,
    predicted_width,
    seeds_needed,
    t_cdf,
    t_quantile,
)


@pytest.mark.parametrize(
    ("p", "df", "expected"),
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.995, 2, 9.925), (0.975, 7, 2.3646), (0.995, 30, 2.750)],
)
def test_quantiles_are_those_of_the_tables(p: float, df: int, expected: float) -> None:
    assert t_quantile(p, df) == pytest.approx(expected, rel=2e-4)
    assert t_cdf(-expected, df) == pytest.approx(1 - p, abs=1e-5)


def test_power_is_that_of_simulated_studies() -> None:
    rng = np.random.default_rng(0)
    points_RS = rng.normal(1.5, 1.0, (40_000, 5))
    t_R = points_RS.mean(axis=1) / points_RS.std(axis=1, ddof=1) * math.sqrt(5)
    found = float(np.mean(np.abs(t_R) > t_quantile(1 - 0.05 / 6, 4)))
    assert paired_power(1.5, 1.0, 5, 3) == pytest.approx(found, abs=0.01)


def test_three_seeds_and_five_comparisons_need_large_differences() -> None:
    assert detectable_difference(0.88, 3, 5) == pytest.approx(6.4, abs=0.05)
    assert detectable_difference(5.5, 3, 5) == pytest.approx(40, abs=0.5)
    assert detectable_difference(1.0, 1, 1) == math.inf
    assert paired_power(6.44, 0.88, 3, 5) == pytest.approx(0.8, abs=0.005)


@pytest.mark.slow
def test_the_fewest_seeds_are_found_and_test_images_can_be_too_few() -> None:
    spread = PairedSpread(0.0088, 0.0, 0.0)
    needed = seeds_needed(0.02, spread, 5)
    assert needed == 6
    assert detectable_difference(0.0088, needed, 5) <= 0.02 < detectable_difference(0.0088, needed - 1, 5)
    assert seeds_needed(0.02, spread._replace(images_shared=0.01), 5) is None


def test_the_spread_of_a_pilot_is_taken_apart() -> None:
    rng = np.random.default_rng(1)
    shared_R, own_SR = rng.normal(0, 0.03, 20_000), rng.normal(0, 0.04, (4, 20_000))
    spread = paired_spread(np.array([0.01, 0.02, 0.03, 0.04]), shared_R + own_SR)
    assert spread.seeds == pytest.approx(0.01291, rel=1e-3)
    assert (spread.images_shared, spread.images_own) == pytest.approx((0.03, 0.04), rel=0.03)
    # The variance of the mean of the four, both ways.
    assert spread.of_one_seed(4) ** 2 / 4 == pytest.approx(0.01291**2 / 4 + 0.03**2 + 0.04**2 / 4, rel=0.05)


def test_the_predicted_width_is_that_of_the_reports_interval() -> None:
    assert predicted_width(PairedSpread(0.01, 0.0, 0.0), 8) == pytest.approx(2 * 2.365 * 0.01 / math.sqrt(8), rel=0.01)
    images = predicted_width(PairedSpread(0.0, 0.01, 0.02), 4)
    assert images == pytest.approx(2 * 1.96 * math.sqrt(0.01**2 + 0.02**2 / 4), rel=0.01)
    assert predicted_width(PairedSpread(0.01, 0.0, 0.0), 1) == math.inf

"""Intervals that cover, p-values that are calibrated, and Holm by hand."""

import math

import numpy as np
import pytest

from retinanet.scoring.intervals import bootstrap_p_value, fewest_resamples, holm, percentile_interval


def test_interval_is_the_central_part_and_leaves_nan_out() -> None:
    samples = np.r_[np.arange(0, 1001) / 1000, np.nan]
    assert percentile_interval(samples) == pytest.approx((0.025, 0.975))
    assert percentile_interval(samples, 0.5) == pytest.approx((0.25, 0.75))
    assert all(math.isnan(end) for end in percentile_interval(np.full(3, np.nan)))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([1.0] * 99, 2 * 1 / 100),
        ([-1.0] * 99, 2 * 1 / 100),
        ([-1.0] * 4 + [1.0] * 95, 2 * 5 / 100),
        ([-1.0] * 3 + [0.0] + [1.0] * 95, 2 * 5 / 100),
        ([0.0] * 99, 1.0),
        ([-1.0] * 49 + [1.0] * 50, 1.0),
        ([1.0] * 99 + [math.nan] * 50, 2 * 1 / 100),
    ],
)
def test_p_value_by_hand(samples: list[float], expected: float) -> None:
    assert bootstrap_p_value(np.array(samples)) == pytest.approx(expected)


def test_p_value_without_samples_is_not_a_number() -> None:
    assert math.isnan(bootstrap_p_value(np.array([math.nan])))


def test_holm_by_hand() -> None:
    # Rising .005 .01 .03 .04: 4 x .005 = .02, 3 x .01 = .03, 2 x .03 = .06, 1 x .04 = .04 but not under .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([]) == []
    with_gap = holm([0.02, math.nan, 0.03])
    assert with_gap[::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(with_gap[1])


def test_fewest_resamples_is_the_least_that_can_reach_five_percent() -> None:
    for comparisons in (1, 6, 25):
        resamples = fewest_resamples(comparisons)
        assert holm([2 / (resamples + 1)] * comparisons)[0] < 0.05
        assert holm([2 / resamples] * comparisons)[0] >= 0.05 - 1e-12
    assert fewest_resamples(25) == 1000


def test_p_values_are_calibrated_and_intervals_cover_for_a_mean() -> None:
    rng = np.random.default_rng(5)
    trials, images, resamples, true = 400, 50, 300, 0.1
    weights = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
    values = rng.normal(0, 1, (trials, images))
    p = np.array([bootstrap_p_value(weights @ value) for value in values])
    assert 0.02 < (p < 0.05).mean() < 0.10
    assert 0.42 < np.median(p) < 0.58
    intervals = [percentile_interval(weights @ (value + true)) for value in values]
    assert 0.90 < np.mean([low <= true <= high for low, high in intervals]) < 0.98

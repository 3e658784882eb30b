"""Comparisons of arms and their verdicts."""

import math

import numpy as np
import pytest

from retinanet.ablation.report.statistics import ArmSamples, compare_arms, spread_over_seeds
from retinanet.errors import ConfigError
from retinanet.scoring.bootstrap import resample
from retinanet.scoring.intervals import bootstrap_p_value
from retinanet.scoring.matches import AP_NAMES, ClassMatches, Matches

RESAMPLES = 999


def arm(name: str, seeds: tuple[int, ...], points: list[float], noise_seed: int, sd: float = 0.005) -> ArmSamples:
    """AP of each seed, all six metrics alike; resamples scatter around it by sd."""
    rng = np.random.default_rng(noise_seed)
    points_SM = np.repeat(np.array(points)[:, None], len(AP_NAMES), axis=1)
    noise = rng.normal(0, sd, (len(seeds), RESAMPLES, len(AP_NAMES)))
    resampled_SRM = np.clip(points_SM[:, None] + noise, 0, 1)
    return ArmSamples(name=name, seeds=seeds, points_SM=points_SM, resampled_SRM=resampled_SRM)


def test_spread_is_the_sample_standard_deviation() -> None:
    assert spread_over_seeds([0.30, 0.31, 0.35]) == pytest.approx((0.32, math.sqrt((0.02**2 + 0.01**2 + 0.03**2) / 2)))
    assert spread_over_seeds([0.3, -1.0, 0.5]) == pytest.approx((0.4, math.sqrt(0.02)))
    assert spread_over_seeds([0.3]).mean == 0.3
    assert math.isnan(spread_over_seeds([0.3]).deviation)
    assert math.isnan(spread_over_seeds([-1.0, -1.0]).mean)


def test_verdicts_of_a_better_a_worse_an_equal_and_a_diverged_arm() -> None:
    arms = [
        arm("better", (0, 1, 2), [0.36, 0.372, 0.348], 1),
        arm("focal", (0, 1, 2), [0.32, 0.33, 0.31], 2),
        arm("same", (0, 1, 2), [0.321, 0.329, 0.311], 3),
        arm("diverged", (0, 1, 2), [0.0, 0.0, 0.0], 4, sd=0.0),
    ]
    better, same, diverged = compare_arms(arms, "focal", "AP")
    assert (better.arm, better.reference, better.metric) == ("better", "focal", "AP")
    assert better.difference == pytest.approx(0.04)
    assert 0.03 < better.low < 0.04 < better.high < 0.05
    assert better.p == pytest.approx(2 / (RESAMPLES + 1))
    assert better.p_holm == pytest.approx(3 * better.p)
    assert (better.verdict, better.seeds_agree) == ("better", "3 of 3")
    assert (same.verdict, same.seeds_agree) == ("not distinguishable", "2 of 3")
    assert same.low < 0 < same.high
    assert (diverged.verdict, diverged.seeds_agree) == ("worse", "3 of 3")
    assert diverged.difference == pytest.approx(-0.32)


def test_a_difference_clear_over_images_may_be_in_doubt_over_seeds() -> None:
    """Differences .04, .03, -.01: mean .02, standard error .0153, t = 1.31 with two degrees of freedom, p = 0.32."""
    focal = arm("focal", (0, 1, 2), [0.30, 0.30, 0.30], 1, sd=0.0001)
    mixed = arm("mixed", (0, 1, 2), [0.34, 0.33, 0.29], 2, sd=0.0001)
    found = compare_arms([focal, mixed], "focal", "AP")[0]
    assert found.difference == pytest.approx(0.02)
    assert found.low > 0.019
    assert found.p_holm < 0.05
    assert found.seeds_low < 0 < found.seeds_high
    assert found.seeds_p_holm == pytest.approx(0.32, abs=0.04)
    assert found.verdict == "not distinguishable over seeds"


def test_the_interval_over_seeds_is_students() -> None:
    """Without noise over images: .04 +- 4.303 x .01 / sqrt(3), the 97.5 % point of t with two degrees of freedom."""
    focal = arm("focal", (0, 1, 2), [0.30, 0.30, 0.30], 1, sd=0.0)
    other = arm("other", (0, 1, 2), [0.33, 0.34, 0.35], 2, sd=0.0)
    found = compare_arms([focal, other], "focal", "AP")[0]
    assert found.low == pytest.approx(found.high) == pytest.approx(0.04)
    half = 4.303 * 0.01 / math.sqrt(3)
    assert (found.seeds_low, found.seeds_high) == (
        pytest.approx(0.04 - half, abs=0.006),
        pytest.approx(0.04 + half, abs=0.006),
    )
    assert found.verdict == "better"


def test_one_seed_says_nothing_of_other_seeds() -> None:
    found = compare_arms([arm("focal", (0,), [0.30], 1), arm("other", (0,), [0.33], 2)], "focal", "AP")[0]
    assert found.p_holm < 0.05
    assert math.isnan(found.seeds_low)
    assert math.isnan(found.seeds_p_holm)
    assert found.verdict == "not distinguishable over seeds"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_losses_that_do_not_differ_are_rarely_told_apart(seeds: int) -> None:
    """Seeds scatter five times as much as images: at most one study in ten names a winner (nominal: one in twenty)."""
    rng = np.random.default_rng(seeds)
    named = 0
    for trial in range(200):
        points = 0.3 + rng.normal(0, 0.01, (2, seeds))
        names = tuple(range(seeds))
        pair = [
            arm("focal", names, list(points[0]), trial, 0.002),
            arm("other", names, list(points[1]), 1000 + trial, 0.002),
        ]
        named += compare_arms(pair, "focal", "AP")[0].verdict in ("better", "worse")
    assert named <= 20


def test_what_holm_takes_back_is_not_distinguishable() -> None:
    rng = np.random.default_rng(0)
    focal = arm("focal", (0,), [0.30], 0, sd=0.0)
    # z = 2.3 has a two-sided p of about 0.02, and 5 of them 0.1 after Holm.
    shifted = [arm(f"arm{n}", (0,), [0.30 + 0.0023], int(rng.integers(1e6)), sd=0.001) for n in range(5)]
    alone = compare_arms([focal, shifted[0]], "focal", "AP")[0]
    family = compare_arms([focal, *shifted], "focal", "AP")
    assert alone.p_holm < 0.05
    assert {comparison.verdict for comparison in family} == {"not distinguishable"}
    assert family[0].p == alone.p
    assert family[0].low > 0, "the interval is each comparison's own"


def test_only_seeds_of_both_arms_are_compared() -> None:
    focal = arm("focal", (0, 1, 2), [0.30, 0.32, 0.90], 0)
    other = arm("other", (1, 0), [0.33, 0.30], 1)
    comparison = compare_arms([focal, other], "focal", "AP50")[0]
    assert comparison.difference == pytest.approx(0.005)
    assert comparison.seeds_agree == "1 of 2"


def test_an_unmeasured_metric_is_said_to_be_so_and_leaves_the_family() -> None:
    focal, other = arm("focal", (0, 1), [0.3, 0.3], 0), arm("other", (0, 1), [0.4, 0.4], 1)
    for samples in (focal, other):
        samples.points_SM[:, 3] = -1
        samples.resampled_SRM[:, :, 3] = -1
        samples.resampled_SRM[:, ::2, 4] = -1  # absent from half of the resamples
    small, medium = (compare_arms([focal, other], "focal", name)[0] for name in ("APs", "APm"))
    assert small.verdict == "not measured"
    assert all(math.isnan(value) for value in (small.difference, small.low, small.high, small.p, small.p_holm))
    assert medium.verdict == "better"
    assert medium.p == pytest.approx(2 / (RESAMPLES // 2 + 1))


def test_errors_come_together() -> None:
    focal = arm("focal", (0, 1), [0.3, 0.3], 0)
    short = focal._replace(name="short", resampled_SRM=focal.resampled_SRM[:, :10])
    alien = focal._replace(name="alien", seeds=(7, 8))
    with pytest.raises(ConfigError) as caught:
        compare_arms([focal, short, alien, short], "focal", "mAP")
    for part in ("(5 errors)", "metric 'mAP'", "'short' occurs twice", "reference's 999", "'alien' shares no seed"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="'ce' is not an arm: use one of focal"):
        compare_arms([focal], "ce", "AP")


def random_matches(rng: np.random.Generator, images: int, found: float) -> Matches:
    """One class, one object an image, found with the given chance; three misses an image; all IoU thresholds alike."""
    hit = rng.random(images) < found
    image_D = np.r_[np.flatnonzero(hit), np.repeat(np.arange(images), 3)].astype(np.int32)
    score_D = np.r_[rng.beta(4, 2, hit.sum()), rng.beta(2, 4, 3 * images)]
    order = np.argsort(-score_D)
    outcome_D = (order < hit.sum()).astype(np.uint8)
    outcome_ATD = np.broadcast_to(outcome_D, (4, 10, len(order))).copy()
    everywhere = np.arange(images, dtype=np.int32)
    objects_AN = np.ones((4, images), dtype=np.int32)
    unread = order.astype(np.int32), np.full((10, len(order)), -1, dtype=np.int32)
    found_in_class = ClassMatches(1, image_D[order], score_D[order], outcome_ATD, everywhere, objects_AN, *unread)
    return Matches(np.arange(images), (found_in_class,))


@pytest.mark.slow
def test_average_precision_of_equal_detectors_is_rarely_called_different() -> None:
    rng = np.random.default_rng(11)
    p_null, p_worse = [], []
    for trial in range(100):
        sets = [random_matches(rng, 60, found) for found in (0.7, 0.7, 0.25)]
        values = resample(sets, resamples=100, seed=trial)[:, :, 0]
        p_null.append(bootstrap_p_value(values[1] - values[0]))
        p_worse.append(bootstrap_p_value(values[2] - values[0]))
    assert 0.0 < np.mean(np.array(p_null) < 0.05) < 0.15
    assert 0.35 < np.median(p_null) < 0.65
    assert np.mean(np.array(p_worse) < 0.05) > 0.9

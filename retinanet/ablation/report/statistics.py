"""What may be said of the difference between two arms. Pure functions over the bootstrap's numbers.

The bootstrap over test images speaks of the trained networks at hand: its interval and p-value say how their
difference would vary with other images. Whether the losses differ is another question, for the same loss with another
seed gives another network. So a second interval adds Student's t of the seeds' own differences (S - 1 degrees of
freedom), and an arm is called better or worse only where both p-values say so. With one seed nothing is known of that,
and with three a difference must be about six times its standard error over seeds to stand out beside four others.

Legend: S seeds, R resamples, M metrics (AP_NAMES).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import ConfigError, list_errors
from retinanet.scoring.intervals import SIGNIFICANCE, bootstrap_p_value, holm, percentile_interval
from retinanet.scoring.matches import AP_NAMES

BETTER, WORSE, SAME, NOT_MEASURED = "better", "worse", "not distinguishable", "not measured"
SEEDS_DOUBT = "not distinguishable over seeds"
"""These networks differ on other images too, but other seeds could turn the sign."""
T_DRAWS = 1
"""Seed of the draws of Student's t."""

Floats = NDArray[np.float64]


class ArmSamples(NamedTuple):
    """COCO numbers of one arm; -1 where the (resampled) ground truth has nothing to measure.

    A seed that diverged is kept, with the numbers of no detections at all: AP 0 (see `match_detections`).
    """

    name: str
    seeds: tuple[int, ...]
    points_SM: Floats
    """(S, M) on the test images as they are."""
    resampled_SRM: Floats
    """(S, R, M) from `bootstrap.resample`, the same resamples for every arm."""


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of one metric over seeds."""

    mean: float
    """NaN where nothing was measured."""
    deviation: float
    """NaN for fewer than two seeds."""


class Comparison(NamedTuple):
    """One arm against the reference in one metric; numbers are NaN where nothing could be measured."""

    arm: str
    reference: str
    metric: str
    difference: float
    """Arm minus reference, each the mean over the seeds that both have."""
    low: float
    high: float
    """95 % percentile interval of `difference`, of this comparison alone (not widened for the family)."""
    p: float
    p_holm: float
    """Corrected over the arms compared in this metric."""
    seeds_low: float
    seeds_high: float
    """95 % interval over images and seeds; NaN with one seed."""
    seeds_p_holm: float
    """Corrected p-value over images and seeds."""
    verdict: str
    """BETTER or WORSE where both corrected p-values are below 0.05, SAME where p_holm is not, SEEDS_DOUBT where only
    p_holm is, NOT_MEASURED without a number."""
    seeds_agree: str
    """"2 of 3": seeds, out of those both arms have, whose own difference has the sign of the mean's."""


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation over seeds; values of -1 (nothing to measure) are left out."""
    known = _measured(np.array(values, dtype=np.float64))
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else float("nan")
    return Spread(mean, float(known.std(ddof=1)) if len(known) > 1 else float("nan"))


def compare_arms(arms: Sequence[ArmSamples], reference: str, metric: str) -> list[Comparison]:
    """Every other arm against the reference in one metric; these comparisons are one family for Holm.

    Seeds are paired: only those that both arms have are compared. The family is the arms within one metric, so a
    study names its main metric (AP) beforehand and reads the others as description.
    Raises ConfigError for an unknown reference or metric, repeated names, arms that share no seed with the reference,
    or arrays that do not fit each other.
    """
    errors = _errors(arms, reference, metric)
    if errors:
        raise ConfigError(list_errors("these arms cannot be compared", errors))
    base = next(arm for arm in arms if arm.name == reference)
    others = [arm for arm in arms if arm.name != reference]
    compared = [_compare(arm, base, metric) for arm in others]
    over_images = holm([comparison.p for comparison in compared])
    over_seeds = holm([comparison.seeds_p_holm for comparison in compared])
    return [
        comparison._replace(p_holm=images, seeds_p_holm=seeds, verdict=_verdict(comparison.difference, images, seeds))
        for comparison, images, seeds in zip(compared, over_images, over_seeds, strict=True)
    ]


def _compare(arm: ArmSamples, reference: ArmSamples, metric: str) -> Comparison:
    """Without Holm's correction; seeds_p_holm holds the p-value to correct."""
    m = AP_NAMES.index(metric)
    common = [seed for seed in arm.seeds if seed in reference.seeds]
    ours, theirs = [arm.seeds.index(s) for s in common], [reference.seeds.index(s) for s in common]
    point_S = _measured(arm.points_SM[ours, m]) - _measured(reference.points_SM[theirs, m])
    samples_SR = _measured(arm.resampled_SRM[ours, :, m]) - _measured(reference.resampled_SRM[theirs, :, m])
    samples_R = samples_SR.mean(axis=0)
    both_R = _with_other_seeds(samples_R, point_S)
    difference = float(point_S.mean())
    if np.isnan(difference):
        samples_R, both_R = np.full_like(samples_R, np.nan), np.full_like(both_R, np.nan)
    agree = int(np.count_nonzero(np.sign(point_S) == np.sign(difference)))
    return Comparison(
        arm.name,
        reference.name,
        metric,
        difference,
        *percentile_interval(samples_R),
        bootstrap_p_value(samples_R),
        float("nan"),
        *percentile_interval(both_R),
        bootstrap_p_value(both_R),
        NOT_MEASURED,
        f"{agree} of {len(common)}",
    )


def _with_other_seeds(samples_R: Floats, point_S: Floats) -> Floats:
    """(R,) the samples, each moved by the standard error of the seeds' differences times a draw of Student's t.

    A bootstrap of the seeds themselves would not do: three seeds that agree in sign by chance, as a quarter of all
    do, agree in every resample.
    """
    if len(point_S) < 2:
        return np.full_like(samples_R, np.nan)
    error = float(point_S.std(ddof=1)) / math.sqrt(len(point_S))
    return samples_R + error * np.random.default_rng(T_DRAWS).standard_t(len(point_S) - 1, len(samples_R))


def _verdict(difference: float, p_holm: float, seeds_p_holm: float) -> str:
    if np.isnan(p_holm):
        return NOT_MEASURED
    if p_holm >= SIGNIFICANCE or difference == 0:
        return SAME
    if not seeds_p_holm < SIGNIFICANCE:  # NaN, one seed, is a doubt too
        return SEEDS_DOUBT
    return BETTER if difference > 0 else WORSE


def _measured(values: Floats) -> Floats:
    """Pycocotools' -1 (nothing to measure) as NaN."""
    return np.where(values < 0, np.nan, values)


def _errors(arms: Sequence[ArmSamples], reference: str, metric: str) -> list[str]:
    names = [arm.name for arm in arms]
    errors = [f"metric {metric!r}: use one of {', '.join(AP_NAMES)}"] if metric not in AP_NAMES else []
    errors += [
        f"arm {name!r} occurs twice: give each arm a name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    base = next((arm for arm in arms if arm.name == reference), None)
    if base is None:
        return [*errors, f"reference {reference!r} is no arm: use one of {', '.join(names)}"]
    resamples = base.resampled_SRM.shape[1]
    for arm in arms:
        wanted = (len(arm.seeds), resamples, len(AP_NAMES))
        if arm.resampled_SRM.shape != wanted or arm.points_SM.shape != (wanted[0], wanted[2]):
            errors.append(
                f"arm {arm.name!r}: points {arm.points_SM.shape} and resamples {arm.resampled_SRM.shape} "
                f"do not fit {len(arm.seeds)} seeds and the reference's {resamples} resamples: "
                "resample all arms at once"
            )
        if not set(arm.seeds) & set(base.seeds):
            errors.append(f"arm {arm.name!r} shares no seed with {reference!r}: run both with the same seeds")
    return errors

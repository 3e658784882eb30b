"""Statistics of the difference between two arms: pure functions of bootstrap samples.

The bootstrap over test images concerns the trained networks at hand: its interval and p-value state how their
difference would vary with other images. Whether the losses differ is another question, because the same loss with
another seed gives another network. So a second interval adds Student's t of the differences between seeds (S - 1
degrees of freedom), and an arm is called better or worse only if both p-values are significant. With one seed that
variation is unknown; with three, a difference must be about six times its standard error over seeds to be significant
among four others.

Legend: S seeds, R resamples, M metrics (AP_NAMES).
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import ConfigError, list_errors
from retinanet.scoring.intervals import SIGNIFICANCE, bootstrap_p_value, holm, percentile_interval
from retinanet.scoring.matches import AP_NAMES

T_DRAWS = 1
"""Seed of the draws of Student's t."""

Floats = NDArray[np.float64]


class ArmVerdict(StrEnum):
    """Conclusion of a comparison."""

    BETTER = "better"
    """Both corrected p-values are below 0.05 and the difference is positive."""
    WORSE = "worse"
    """Both corrected p-values are below 0.05 and the difference is negative."""
    SEEDS_DOUBT = "not distinguishable over seeds"
    """Only the p-value over images is below 0.05: these networks differ, but other seeds could reverse the sign."""
    SAME = "not distinguishable"
    """The p-value over images is not below 0.05."""
    NOT_MEASURED = "not measured"
    """There is nothing to measure."""


class ArmSamples(NamedTuple):
    """COCO metrics of one arm; -1 where the (resampled) ground truth has nothing to measure.

    A seed that diverged is kept, with the metrics of no detections: AP 0 (see `match_detections`).
    """

    name: str
    seeds: tuple[int, ...]
    points_SM: Floats
    """(S, M) on the test images."""
    resampled_SRM: Floats
    """(S, R, M) from `bootstrap.resample`, the same resamples for every arm."""


class ArmSpread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of one metric over seeds."""

    mean: float
    """NaN where nothing was measured."""
    deviation: float
    """NaN for fewer than two seeds."""


class ArmComparison(NamedTuple):
    """One arm against the reference in one metric; numbers are NaN if nothing could be measured."""

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
    verdict: ArmVerdict
    seeds_agree: str
    """"2 of 3": of the seeds that both arms have, those whose difference has the sign of the mean difference."""
    seeds_p: float = float("nan")
    """P-value over images and seeds, not corrected."""


class Differences(NamedTuple):
    """Paired differences between two arms in one metric."""

    point_S: Floats
    """(S,) on the test images, of the seeds that both arms have; NaN where nothing can be measured."""
    samples_SR: Floats
    """(S, R) over resampled images."""


def spread_over_seeds(values: Sequence[float]) -> ArmSpread:
    """Mean and standard deviation over seeds; values of -1 (nothing to measure) are ignored."""
    known = _measured(np.array(values, dtype=np.float64))
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else float("nan")
    return ArmSpread(mean, float(known.std(ddof=1)) if len(known) > 1 else float("nan"))


def compare_arms(arms: Sequence[ArmSamples], reference: str, metric: str) -> list[ArmComparison]:
    """Every other arm against the reference in one metric; these comparisons are one family for Holm.

    Seeds are paired: only those that both arms have are compared. The family is the arms within one metric, so a
    study names its main metric (AP) beforehand and treats the others as descriptive.
    Raises ConfigError for an unknown reference or metric, repeated names, arms that share no seed with the reference,
    or arrays of inconsistent shapes.
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
        comparison._replace(p_holm=images, seeds_p_holm=seeds, verdict=verdict_of(comparison.difference, images, seeds))
        for comparison, images, seeds in zip(compared, over_images, over_seeds, strict=True)
    ]


def _compare(arm: ArmSamples, reference: ArmSamples, metric: str) -> ArmComparison:
    """Without Holm's correction; seeds_p_holm is the uncorrected p-value."""
    point_S, samples_SR = paired_differences(arm, reference, metric)
    samples_R = samples_SR.mean(axis=0)
    both_R = with_other_seeds(samples_R, point_S)
    difference = float(point_S.mean())
    if np.isnan(difference):
        samples_R, both_R = np.full_like(samples_R, np.nan), np.full_like(both_R, np.nan)
    agree = int(np.count_nonzero(np.sign(point_S) == np.sign(difference)))
    low, high = percentile_interval(samples_R)
    seeds_low, seeds_high = percentile_interval(both_R)
    return ArmComparison(
        arm=arm.name,
        reference=reference.name,
        metric=metric,
        difference=difference,
        low=low,
        high=high,
        p=bootstrap_p_value(samples_R),
        p_holm=float("nan"),
        seeds_low=seeds_low,
        seeds_high=seeds_high,
        seeds_p_holm=bootstrap_p_value(both_R),
        verdict=ArmVerdict.NOT_MEASURED,
        seeds_agree=f"{agree} of {len(point_S)}",
        seeds_p=bootstrap_p_value(both_R),
    )


def paired_differences(arm: ArmSamples, reference: ArmSamples, metric: str) -> Differences:
    """Arm minus reference, of the seeds that both have."""
    m = AP_NAMES.index(metric)
    common = [seed for seed in arm.seeds if seed in reference.seeds]
    rows, reference_rows = [arm.seeds.index(s) for s in common], [reference.seeds.index(s) for s in common]
    return Differences(
        _measured(arm.points_SM[rows, m]) - _measured(reference.points_SM[reference_rows, m]),
        _measured(arm.resampled_SRM[rows, :, m]) - _measured(reference.resampled_SRM[reference_rows, :, m]),
    )


def with_other_seeds(samples_R: Floats, point_S: Floats, draws: int | Sequence[int] = T_DRAWS) -> Floats:
    """(R,) the samples, each shifted by the standard error of the seeds' differences times a draw of Student's t.

    A bootstrap of the seeds themselves would not suffice: three seeds that agree in sign by chance, which happens in a
    quarter of all cases, agree in every resample. draws: seed of the draws.
    """
    if len(point_S) < 2:
        return np.full_like(samples_R, np.nan)
    error = float(point_S.std(ddof=1)) / math.sqrt(len(point_S))
    return samples_R + error * np.random.default_rng(draws).standard_t(len(point_S) - 1, len(samples_R))


def verdict_of(difference: float, p_holm: float, seeds_p_holm: float) -> ArmVerdict:
    """The conclusion from a difference and its two corrected p-values, over images and over images and seeds."""
    if np.isnan(p_holm):
        return ArmVerdict.NOT_MEASURED
    if p_holm >= SIGNIFICANCE or difference == 0:
        return ArmVerdict.SAME
    if not seeds_p_holm < SIGNIFICANCE:  # NaN, with one seed, too
        return ArmVerdict.SEEDS_DOUBT
    return ArmVerdict.BETTER if difference > 0 else ArmVerdict.WORSE


def _measured(values: Floats) -> Floats:
    """Pycocotools' -1 (nothing to measure) as NaN."""
    return np.where(values < 0, np.nan, values)


def _errors(arms: Sequence[ArmSamples], reference: str, metric: str) -> list[str]:
    names = [arm.name for arm in arms]
    errors = [f"metric {metric!r}: use one of {', '.join(AP_NAMES)}"] if metric not in AP_NAMES else []
    errors += [
        f"arm {name!r} occurs twice: give each arm its own name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    base = next((arm for arm in arms if arm.name == reference), None)
    if base is None:
        return [*errors, f"reference {reference!r} is not an arm: use one of {', '.join(names)}"]
    resamples = base.resampled_SRM.shape[1]
    for arm in arms:
        shape = (len(arm.seeds), resamples, len(AP_NAMES))
        if arm.resampled_SRM.shape != shape or arm.points_SM.shape != (shape[0], shape[2]):
            errors.append(
                f"arm {arm.name!r}: points {arm.points_SM.shape} and resamples {arm.resampled_SRM.shape} "
                f"do not match {len(arm.seeds)} seeds and the reference's {resamples} resamples: "
                "resample all arms together"
            )
        if not set(arm.seeds) & set(base.seeds):
            errors.append(f"arm {arm.name!r} shares no seed with {reference!r}: run both with the same seeds")
    return errors

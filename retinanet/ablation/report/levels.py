"""The numbers of a study over its levels: imbalance, differences with simultaneous intervals, the primary comparison.

A study without levels that names thresholds or a primary comparison has one level without a name.

Legend: J differences in a figure, R resamples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.ablation.report.collect import StudyResult
from retinanet.ablation.report.data import MAIN_METRIC, ArmData, ReportData, common_steps, evaluation_curve, gather
from retinanet.ablation.report.statistics import ArmComparison, paired_differences, verdict_of, with_other_seeds
from retinanet.scoring.intervals import holm

SIMULTANEOUS = 0.95
"""Probability that all intervals of a figure hold together."""
LAST_PART = 0.25
"""Part of the steps at the end of training over which a learning curve is judged."""
FLAT_POINTS = 1.0
"""AP points by which validation AP may change over LAST_PART of the steps for a curve to count as flat."""

Floats = NDArray[np.float64]


class Imbalance(NamedTuple):
    """Means over the results' trainings, an image each; NaN where no run has logged them."""

    positives: float
    anchors: float
    logits: float

    def ratio(self) -> float:
        """Anchors for each positive one."""
        return self.anchors / self.positives


class LevelData(NamedTuple):
    """One level."""

    result: StudyResult
    at: tuple[ReportData, ...]
    """The numbers at each threshold, the main one first."""
    imbalance: Imbalance

    def main(self) -> ReportData:
        """The numbers at the main threshold."""
        return self.at[0]


class ArmDifference(NamedTuple):
    """AP of an arm minus that of the reference at one level and threshold, 0..1, with a simultaneous interval."""

    level: str
    arm: str
    threshold: float | None
    ratio: float
    """Anchors for each positive one."""
    difference: float
    low: float
    high: float


class PrimaryResult(NamedTuple):
    """The primary comparison at one level."""

    level: LevelData
    comparison: ArmComparison | None
    """P-values are corrected over the levels of the primary comparison alone; None: nothing was measured."""


class CurveEnd(NamedTuple):
    """The end of an arm's learning curve: mean validation AP of its finished seeds, in points."""

    level: str
    arm: str
    last: float
    change: float
    """Slope of a straight line through the evaluations of LAST_PART times its steps; NaN with fewer than two."""

    def is_flat(self) -> bool:
        """Whether the change is known and less than FLAT_POINTS."""
        return bool(abs(self.change) < FLAT_POINTS)


def gather_level(result: StudyResult) -> LevelData:
    """Match and resample the level's cells at each threshold. Raises as `gather`."""
    thresholds = result.thresholds or (None,)
    records = [cell.record for cell in result.cells if not cell.tuning and cell.record.anchors_per_image]
    columns = [(r.positives_per_image, r.anchors_per_image, r.logits_per_image) for r in records]
    means = np.mean(columns, axis=0) if columns else np.full(3, np.nan)
    return LevelData(
        result=result,
        at=tuple(gather(result, threshold=threshold) for threshold in thresholds),
        imbalance=Imbalance(*map(float, means)),
    )


def arm_differences(levels: Sequence[LevelData]) -> list[ArmDifference]:
    """Every arm against the reference at every level and threshold; all intervals hold together with SIMULTANEOUS.

    They are over images and seeds, as `ArmComparison.seeds_low` and `seeds_high`; draws of Student's t are independent
    between differences, which is conservative, since all have the reference in common.
    """
    found: list[ArmDifference] = []
    samples: list[Floats] = []
    for level in levels:
        for data in level.at:
            base = next(arm for arm in data.arms if arm.info.name == data.result.reference)
            for arm in data.arms:
                if arm.samples is None or base.samples is None or arm.comparison is None:
                    continue
                pairs = paired_differences(arm.samples, base.samples, MAIN_METRIC)
                samples_R = with_other_seeds(pairs.samples_SR.mean(axis=0), pairs.point_S, (1, len(found)))
                if np.isnan(arm.comparison.difference):
                    continue
                samples.append(samples_R)
                found.append(
                    ArmDifference(
                        level=level.result.level,
                        arm=arm.info.name,
                        threshold=data.threshold,
                        ratio=level.imbalance.ratio(),
                        difference=arm.comparison.difference,
                        low=float("nan"),
                        high=float("nan"),
                    )
                )
    halves = simultaneous_half_widths(samples)
    return [
        one._replace(low=one.difference - half, high=one.difference + half)
        for one, half in zip(found, halves, strict=True)
    ]


def simultaneous_half_widths(samples_JR: Sequence[Floats], level: float = SIMULTANEOUS) -> list[float]:
    """Half widths of symmetric intervals that all hold together with probability `level`.

    Each is the same multiple of its own half width: the `level` quantile, over resamples, of the largest deviation
    among the differences, each in units of the `level` quantile of its own (which, unlike a standard deviation, exists
    for two seeds too). NaN for samples that have NaN, as those of one seed.
    """
    known = [samples_R for samples_R in samples_JR if not np.isnan(samples_R).any()]
    if not known:
        return [float("nan")] * len(samples_JR)
    deviations_JR = np.abs(np.stack(known) - np.median(known, axis=1, keepdims=True))
    own_J = np.quantile(deviations_JR, level, axis=1)
    # Without spread there is no deviation: 0 of 1.
    scaled_JR = deviations_JR / np.where(own_J > 0, own_J, 1.0)[:, None]
    multiple = float(np.quantile(scaled_JR.max(axis=0), level))
    halves = iter(multiple * own_J)
    return [float("nan") if np.isnan(samples_R).any() else float(next(halves)) for samples_R in samples_JR]


def primary_results(levels: Sequence[LevelData]) -> list[PrimaryResult]:
    """The primary comparison at the level that it names, or at every one; empty if the study names none."""
    primary = levels[0].result.primary
    if primary is None:
        return []
    asked = [level for level in levels if primary.level in (None, level.result.level)]
    compared = [next((a.comparison for a in level.main().arms if a.info.name == primary.arm), None) for level in asked]
    over_images = holm([float("nan") if one is None else one.p for one in compared])
    over_seeds = holm([float("nan") if one is None else one.seeds_p for one in compared])
    return [
        PrimaryResult(
            level,
            None
            if one is None
            else one._replace(p_holm=images, seeds_p_holm=seeds, verdict=verdict_of(one.difference, images, seeds)),
        )
        for level, one, images, seeds in zip(asked, compared, over_images, over_seeds, strict=True)
    ]


def curve_ends(level: LevelData) -> list[CurveEnd]:
    """The end of every arm's learning curve that has finished seeds."""
    ends = [_curve_end(level.result.level, arm) for arm in level.main().arms]
    return [end for end in ends if end is not None]


def _curve_end(level: str, arm: ArmData) -> CurveEnd | None:
    done = {cell.record.cell for cell in arm.finished()}
    curves = [evaluation_curve(cell) for cell in arm.cells if cell.record.cell in done]
    steps, values = common_steps([curve for curve in curves if len(curve.steps)])
    if not len(steps):
        return None
    mean = values.mean(axis=0)
    late = steps >= (1 - LAST_PART) * steps[-1]
    change = float("nan")
    if late.sum() > 1:
        change = float(np.polyfit(steps[late], mean[late], 1)[0] * LAST_PART * steps[-1])
    return CurveEnd(level=level, arm=arm.info.name, last=float(mean[-1]), change=change)

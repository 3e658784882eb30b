"""Intervals of one detector's metrics over images: the pivotal bootstrap.

The interval is about this trained detector: where its metrics on all images like these would be, judged from the images
at hand. It does not include another training, other places or cameras, or mistakes of the labels.

AP of few images is too high, since fewer false positives compete with each true one: by 5 points on 100 images of
VOC2007 test, 1.6 on 500. A resample, which has fewer different images, is too high in turn. So the interval is pivotal
(Davison and Hinkley 1997, eq. 5.6): the deviations of the resamples from the metric are subtracted from it, not added.
Of intervals from 500 images, 92 % contained the AP of all 4,952, of those of percentiles 56 %; from 100 images 73 % and
37 % (benchmarks/interval_coverage.py). For a class with few images an interval is too narrow; with fewer than
FEWEST_IMAGES there is none.

Legend: R resamples, K classes, M metrics (METRIC_NAMES).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.bootstrap import draw_multiplicities
from retinanet.scoring.evaluation import METRIC_NAMES, Evaluation
from retinanet.scoring.intervals import DEFAULT_RESAMPLES, FEWEST_IMAGES, percentile_interval
from retinanet.scoring.matches import match_columns
from retinanet.scoring.samples import class_metrics, images_with_objects, mean_over_classes

LEVEL = 0.95


class Interval(NamedTuple):
    """An interval of LEVEL, 0..1; NaN where there is none."""

    low: float
    high: float

    def known(self) -> bool:
        """Whether there is one."""
        return not np.isnan(self.low)


class MetricIntervals(NamedTuple):
    """Intervals of the metrics of an evaluation."""

    resamples: int
    metrics: dict[str, Interval]
    """By METRIC_NAMES."""
    classes: tuple[Interval, ...]
    """(K,) of each class's AP, by ascending category id."""


def measure_intervals(evaluation: Evaluation, resamples: int = DEFAULT_RESAMPLES, seed: int = 0) -> MetricIntervals:
    """Pivotal intervals of all metrics and of each class's AP over `resamples` resamples of the images.

    The same arguments give the same intervals. Raises DataError as `match_columns`.
    """
    none, images = Interval(np.nan, np.nan), len(evaluation.truth.image_ids_I)
    if images < FEWEST_IMAGES:
        return MetricIntervals(resamples, dict.fromkeys(METRIC_NAMES, none), (none,) * len(evaluation.per_class))
    matches = match_columns(evaluation.truth, evaluation.found, evaluation.max_detections)
    itself_1I = np.ones((1, images), dtype=np.int32)
    multiplicity_RI = np.concatenate([itself_1I, draw_multiplicities(images, resamples, seed)])
    metrics_RKM = class_metrics(matches, multiplicity_RI)
    metrics_RM = mean_over_classes(metrics_RKM)
    enough_MK = images_with_objects(matches) >= FEWEST_IMAGES
    ap = METRIC_NAMES.index("AP")
    return MetricIntervals(
        resamples=resamples,
        metrics={
            name: pivotal_interval(metrics_RM[:, m]) if enough_MK[m, -1] else none
            for m, name in enumerate(METRIC_NAMES)
        },
        classes=tuple(
            pivotal_interval(metrics_RKM[:, k, ap]) if enough_MK[ap, k] else none for k in range(enough_MK.shape[1] - 1)
        ),
    )


def pivotal_interval(metric_R: NDArray[np.float64]) -> Interval:
    """The interval of a metric, within 0..1. Row 0 is the data set itself, the others are its resamples."""
    low, high = percentile_interval(metric_R[1:], LEVEL)
    return Interval(*np.clip((2 * metric_R[0] - high, 2 * metric_R[0] - low), 0.0, 1.0).tolist())

"""How two detectors differ on the same images, and how uncertain that is over images: the paired bootstrap.

Both detectors are measured on the same resamples, so what makes an image easy or hard for both cancels. The interval is
about these two trained detectors on images like these; it does not include the variation between trainings.

A bootstrap cannot know about images that it never saw: for a class with objects in one image, all resamples agree. So
no p-value is smaller than an exact test on the same number of images could give, and below FEWEST_IMAGES there is no
interval.

Legend: I images, R resamples, K classes, M metrics (METRIC_NAMES).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import ConfigError, DataError
from retinanet.scoring.bootstrap import draw_multiplicities
from retinanet.scoring.evaluation import METRIC_NAMES
from retinanet.scoring.intervals import (
    DEFAULT_RESAMPLES,
    FEWEST_IMAGES,
    SIGNIFICANCE,
    bootstrap_p_value,
    fewest_resamples,
    holm,
    percentile_interval,
)
from retinanet.scoring.matches import Matches
from retinanet.scoring.samples import class_metrics, images_with_objects, mean_over_classes

MAIN_METRIC = "AP"
OVERALL = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")
SIZES = ("APs", "APm", "APl")
SIZE_RECALLS = ("ARs", "ARm", "ARl")

FEWEST_RESAMPLES = fewest_resamples(1)
"""Minimum: with fewer, even the single comparison over all classes cannot reach 5 %."""

DIFFERENT, SAME, NOT_MEASURED = "distinguishable", "not distinguishable", "not measured"
TOO_FEW = "too few images"
NO_VERDICT = ""
"""Of metrics that are only shown and not tested."""

Floats = NDArray[np.float64]


class MetricDifference(NamedTuple):
    """The second detector compared with the first in one metric; NaN where nothing can be measured."""

    name: str
    """A metric; or a class, whose AP is compared."""
    first: float
    second: float
    difference: float
    """Second minus first."""
    low: float
    high: float
    """With `low`, the 95 % percentile interval of the difference, of this comparison alone; NaN for TOO_FEW."""
    p: float
    """Two-sided, of this comparison alone."""
    p_holm: float
    """Corrected for the other comparisons of its family; NaN outside families."""
    verdict: str
    """DIFFERENT or SAME by p_holm, or by p for the main metric; TOO_FEW, NOT_MEASURED; NO_VERDICT where only shown."""
    images: int
    """Images with objects that count."""


class DetectorComparison(NamedTuple):
    """Two detectors on one data set."""

    images: int
    resamples: int
    overall: tuple[MetricDifference, ...]
    """OVERALL; the main metric is first and the only one with a verdict."""
    sizes: tuple[MetricDifference, ...]
    """SIZES, one family, then SIZE_RECALLS, which are only shown."""
    classes: tuple[MetricDifference, ...]
    """AP of each class by ascending category id, one family."""
    objects_K: tuple[int, ...]
    """Objects of each class, without crowd."""
    resampled_RM: Floats
    """(R, M) differences over all classes on the resamples; NaN where there is nothing to measure."""

    @property
    def main(self) -> MetricDifference:
        """The difference in MAIN_METRIC over all classes."""
        return self.overall[0]


def compare_detectors(
    first: Matches, second: Matches, class_names: Sequence[str], resamples: int | None = None, seed: int = 0
) -> DetectorComparison:
    """Second minus first, over all classes, by size and by class.

    first, second: matches against one ground truth; class_names: (K,). resamples None means DEFAULT_RESAMPLES, or more
    where Holm's correction over many classes needs them to reach 5 %. The same arguments give the same numbers. Raises
    DataError where the two do not have the same images and classes or there is no image, ConfigError for fewer than
    FEWEST_RESAMPLES.
    """
    if resamples is not None:
        check_resamples(resamples)
    check_same_truth(first, second)
    images = len(first.image_ids_I)
    if images == 0:
        raise DataError("the ground truth has no images, so there is nothing to compare on")
    seen_MK = images_with_objects(first)
    ap = METRIC_NAMES.index(MAIN_METRIC)
    if resamples is None:
        resamples = max(DEFAULT_RESAMPLES, fewest_resamples(int((seen_MK[ap, :-1] >= FEWEST_IMAGES).sum())))
    multiplicity_RI = np.concatenate(
        [np.ones((1, images), dtype=np.int32), draw_multiplicities(images, resamples, seed)]
    )
    first_RKM, second_RKM = class_metrics(first, multiplicity_RI), class_metrics(second, multiplicity_RI)
    first_RM, second_RM = mean_over_classes(first_RKM), mean_over_classes(second_RKM)

    def of_metrics(names: Sequence[str]) -> list[MetricDifference]:
        places = [METRIC_NAMES.index(name) for name in names]
        return [difference_of(METRIC_NAMES[m], seen_MK[m, -1], first_RM[:, m], second_RM[:, m]) for m in places]

    main, *others = of_metrics(OVERALL)
    classes = [
        difference_of(name, seen_MK[ap, k], first_RKM[:, k, ap], second_RKM[:, k, ap])
        for k, name in enumerate(class_names)
    ]
    return DetectorComparison(
        images=images,
        resamples=resamples,
        overall=(main._replace(verdict=judged(main, main.p)), *others),
        sizes=(*as_family(of_metrics(SIZES)), *of_metrics(SIZE_RECALLS)),
        classes=tuple(as_family(classes)),
        objects_K=tuple(int(found.objects_AN[0].sum()) for found in first.classes),
        resampled_RM=(second_RM - first_RM)[1:],
    )


def check_resamples(resamples: int) -> None:
    """Raise ConfigError for fewer than FEWEST_RESAMPLES."""
    if resamples < FEWEST_RESAMPLES:
        raise ConfigError(
            f"--resamples: must be at least {FEWEST_RESAMPLES}, got {resamples}: with fewer, no difference can reach "
            f"p < {SIGNIFICANCE:g}, however clear it is; leave the option out for {DEFAULT_RESAMPLES} or more"
        )


def difference_of(name: str, images: int, first_R: Floats, second_R: Floats) -> MetricDifference:
    """The difference without a verdict. Row 0 of both arrays is the data set itself, the others are its resamples."""
    difference_R = second_R - first_R
    judged_by = difference_R[1:] if images >= FEWEST_IMAGES else np.full(1, np.nan)
    p = max(bootstrap_p_value(judged_by), minimum_p(images)) if images >= FEWEST_IMAGES else float("nan")
    low, high = percentile_interval(judged_by)
    return MetricDifference(
        name=name,
        first=float(first_R[0]),
        second=float(second_R[0]),
        difference=float(difference_R[0]),
        low=low,
        high=high,
        p=p,
        p_holm=float("nan"),
        verdict=NO_VERDICT,
        images=int(images),
    )


def minimum_p(images: int) -> float:
    """p-value of the exact test that swaps the detectors image by image, if all images favour one of them."""
    return 2.0 ** (1 - images)


def as_family(differences: Sequence[MetricDifference]) -> list[MetricDifference]:
    """The differences with p-values after Holm's correction over all of them, and the verdicts that follow."""
    corrected = holm([found.p for found in differences])
    return [found._replace(p_holm=p, verdict=judged(found, p)) for found, p in zip(differences, corrected, strict=True)]


def judged(found: MetricDifference, p: float) -> str:
    """The verdict on a difference by its p-value; SAME if its interval reaches 0 or lies beyond it."""
    if np.isnan(found.difference):
        return NOT_MEASURED
    if found.images < FEWEST_IMAGES:
        return TOO_FEW
    same_side = min(found.low * found.difference, found.high * found.difference) > 0
    return DIFFERENT if p < SIGNIFICANCE and same_side else SAME


def check_same_truth(first: Matches, second: Matches) -> None:
    """Raise DataError unless both were matched against the same images and classes."""
    same_images = np.array_equal(first.image_ids_I, second.image_ids_I)
    classes = [[found.category_id for found in matches.classes] for matches in (first, second)]
    if not same_images or classes[0] != classes[1]:
        what = "classes" if same_images else "images"
        raise DataError(f"the two detectors were matched against different {what}; compare on one ground truth")

"""How two detectors differ on the same images, with what other images would make of it: the paired bootstrap.

Both detectors see the same resamples, so that what makes an image easy or hard for both cancels. The interval speaks
of these two trained detectors on images like these; that another training of either would do the same, it cannot say.

A bootstrap knows nothing of images that it never saw: of a class with objects in one image, every resample says the
same. So no p-value here is below what an exact test of as many images could reach, and under FEWEST_IMAGES no interval
is given.

Legend: I images, R resamples, K classes, M metrics (METRIC_NAMES).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.compare.samples import AR_CELLS, class_metrics, mean_over_classes
from retinanet.errors import ConfigError, DataError
from retinanet.scoring.bootstrap import draw_multiplicities
from retinanet.scoring.evaluation import METRIC_NAMES
from retinanet.scoring.intervals import SIGNIFICANCE, bootstrap_p_value, fewest_resamples, holm, percentile_interval
from retinanet.scoring.matches import AP_CELLS, AREAS, Matches

MAIN_METRIC = "AP"
OVERALL = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")
SIZES = ("APs", "APm", "APl")
SIZE_RECALLS = ("ARs", "ARm", "ARl")
DEFAULT_RESAMPLES = 1000

FEWEST_IMAGES = 6
"""Images with objects from which a difference can be judged: were all n in one detector's favour, the exact test that
swaps the two image by image could still not say less than p = 2^(1 - n), which is under 0.05 from 6 on."""

FEWEST_RESAMPLES = fewest_resamples(1)
"""Below this even the one question over all classes cannot reach 5 %."""

DIFFERENT, SAME, NOT_MEASURED = "distinguishable", "not distinguishable", "not measured"
TOO_FEW = "too few images"
NO_VERDICT = ""
"""A number that is shown beside the question, not asked."""

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """The second detector against the first in one metric; numbers are NaN where nothing could be measured."""

    name: str
    """A metric, or a class (of which it is the AP)."""
    first: float
    second: float
    difference: float
    """Second minus first."""
    low: float
    high: float
    """95 % percentile interval of the difference, of this comparison alone; NaN for TOO_FEW."""
    p: float
    """Two-sided, of this comparison alone."""
    p_holm: float
    """Corrected for the others of its family; NaN outside families."""
    verdict: str
    """DIFFERENT or SAME by p_holm, or by p for the main metric; TOO_FEW, NOT_MEASURED; NO_VERDICT for what is only
    shown."""
    images: int
    """Images with objects that count."""


class Comparison(NamedTuple):
    """Two detectors on one data set."""

    images: int
    resamples: int
    overall: tuple[Difference, ...]
    """OVERALL; the main metric first and alone with a verdict."""
    sizes: tuple[Difference, ...]
    """SIZES, one family, then SIZE_RECALLS, only shown."""
    classes: tuple[Difference, ...]
    """AP of each class, by rising category id, one family."""
    objects_K: tuple[int, ...]
    """Objects of each class, without crowd."""
    resampled_RM: Floats
    """(R, M) the differences over all classes on the resamples; NaN where nothing to measure."""

    @property
    def main(self) -> Difference:
        return self.overall[0]


def compare(
    first: Matches, second: Matches, class_names: Sequence[str], resamples: int | None = None, seed: int = 0
) -> Comparison:
    """Second against first, over all classes, by size and by class.

    first, second: `match_detections` against one ground truth; class_names: (K,). resamples None takes
    DEFAULT_RESAMPLES, and more where Holm's correction over many classes needs them to reach 5 %. The same arguments
    give the same numbers. Raises DataError where the two are not of the same images and classes or there is no image,
    ConfigError for fewer than FEWEST_RESAMPLES.
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

    def of_metrics(names: Sequence[str]) -> list[Difference]:
        places = [METRIC_NAMES.index(name) for name in names]
        return [difference_of(METRIC_NAMES[m], seen_MK[m, -1], first_RM[:, m], second_RM[:, m]) for m in places]

    main, *others = of_metrics(OVERALL)
    classes = [
        difference_of(name, seen_MK[ap, k], first_RKM[:, k, ap], second_RKM[:, k, ap])
        for k, name in enumerate(class_names)
    ]
    return Comparison(
        images=images,
        resamples=resamples,
        overall=(main._replace(verdict=judged(main, main.p)), *others),
        sizes=(*as_family(of_metrics(SIZES)), *of_metrics(SIZE_RECALLS)),
        classes=tuple(as_family(classes)),
        objects_K=tuple(int(found.objects_AN[0].sum()) for found in first.classes),
        resampled_RM=(second_RM - first_RM)[1:],
    )


def check_resamples(resamples: int) -> None:
    """ConfigError for fewer than FEWEST_RESAMPLES."""
    if resamples < FEWEST_RESAMPLES:
        raise ConfigError(
            f"--resamples: wants at least {FEWEST_RESAMPLES}, got {resamples}: with fewer, no difference, however "
            f"clear, can reach p < {SIGNIFICANCE:g}; leave the option out for {DEFAULT_RESAMPLES} or more"
        )


def images_with_objects(matches: Matches) -> NDArray[np.int64]:
    """(M, K + 1) images with objects that count for each metric: of each class, and last of any."""
    areas = [area for area, _ in (*AP_CELLS, *AR_CELLS)]
    seen = np.zeros((len(AREAS), len(matches.classes) + 1), dtype=np.int64)
    for a in range(len(AREAS)):
        of_class = [found.object_image_N[found.objects_AN[a] > 0] for found in matches.classes]
        seen[a, :-1] = [len(images) for images in of_class]
        seen[a, -1] = len(np.unique(np.concatenate([np.zeros(0, np.int32), *of_class])))
    return seen[areas]


def difference_of(name: str, images: int, first_R: Floats, second_R: Floats) -> Difference:
    """Without a verdict; row 0 of both is the data set as it is, the others are its resamples."""
    difference_R = second_R - first_R
    judged_by = difference_R[1:] if images >= FEWEST_IMAGES else np.full(1, np.nan)
    p = max(bootstrap_p_value(judged_by), least_p(images)) if images >= FEWEST_IMAGES else float("nan")
    ends = (float(first_R[0]), float(second_R[0]), float(difference_R[0]))
    return Difference(name, *ends, *percentile_interval(judged_by), p, float("nan"), NO_VERDICT, int(images))


def least_p(images: int) -> float:
    """What the exact test that swaps the detectors image by image says where all images favour one of them."""
    return 2.0 ** (1 - images)


def as_family(differences: Sequence[Difference]) -> list[Difference]:
    """With Holm's correction over all of them, and the verdict that follows."""
    corrected = holm([found.p for found in differences])
    return [found._replace(p_holm=p, verdict=judged(found, p)) for found, p in zip(differences, corrected, strict=True)]


def judged(found: Difference, p: float) -> str:
    """The verdict on a difference by its p-value; one whose interval lies wholly on the other side of 0 is SAME."""
    if np.isnan(found.difference):
        return NOT_MEASURED
    if found.images < FEWEST_IMAGES:
        return TOO_FEW
    same_side = min(found.low * found.difference, found.high * found.difference) > 0
    return DIFFERENT if p < SIGNIFICANCE and same_side else SAME


def check_same_truth(first: Matches, second: Matches) -> None:
    """DataError unless both were matched against the same images and classes."""
    same_images = np.array_equal(first.image_ids_I, second.image_ids_I)
    classes = [[found.category_id for found in matches.classes] for matches in (first, second)]
    if not same_images or classes[0] != classes[1]:
        what = "classes" if same_images else "images"
        raise DataError(f"the two detectors were matched against different {what}; compare on one ground truth")

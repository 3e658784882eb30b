"""The most important findings of an analysis, in sentences."""

import math
from collections.abc import Callable

import numpy as np

from retinanet.display.numbers import amount, points
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.analysis.confusion import most_confused
from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.intervals import FEWEST_IMAGES
from retinanet.scoring.limits import describe_empty_boxes, describe_limit

LOW_SCORE = 0.1
"""An edge of the bins of `calibration`: the share of detections that score below it is reported."""


def describe_findings(analysis: Analysis, metric: Callable[[float], str] = points) -> list[str]:
    """A few sentences, each on one aspect; aspects with nothing to report are left out.

    metric: writes an AP in 0..1 as what is next to the sentences does: points in a report, fractions on a terminal.
    """
    scored = analysis.scored
    if not scored.objects.objects_K().any():
        return ["The ground truth has no objects: there is nothing to find, and every detection is a false positive."]
    if not len(scored.found.score_D):
        return ["There are no detections."]
    sentences = (
        _interval(analysis, metric),
        _without_detections(scored),
        describe_limit(analysis.limit, metric),
        describe_empty_boxes(analysis.evaluation.found),
        _errors(analysis, metric),
        _threshold(analysis),
        _calibration(analysis),
        _sizes(analysis, metric),
        _classes(analysis, metric),
        _confused(analysis),
    )
    return [sentence for sentence in sentences if sentence]


def describe_calibration(mean_score: float, precision: float) -> str:
    """Whether scores are too high or too low, such as "under-confident: mean score 0.754, precision 0.801"."""
    word = "over-confident" if mean_score > precision else "under-confident"
    return f"{word}: mean score {mean_score:.3f}, precision {precision:.3f}"


def _interval(analysis: Analysis, metric: Callable[[float], str]) -> str:
    if analysis.intervals is None:
        return ""
    found, images = analysis.intervals.metrics["AP"], len(analysis.scored.objects.image_ids_I)
    if not found.known():
        return f"No interval of AP: fewer than {FEWEST_IMAGES} images have objects."
    return (
        f"AP {metric(analysis.evaluation.metrics['AP'])}, 95 % interval {metric(found.low)} to {metric(found.high)} "
        f"on images like these {images:,} ({analysis.intervals.resamples:,} resamples); it covers no other training."
    )


def _without_detections(scored: Scored) -> str:
    images = len(scored.objects.image_ids_I)
    objects_I = np.bincount(scored.objects.image_N[~scored.objects.crowd_N], minlength=images)
    empty_I = np.bincount(scored.found.image_D, minlength=images) == 0
    empty, with_objects = int(empty_I.sum()), int((empty_I & (objects_I > 0)).sum())
    if not empty:
        return ""
    have = "has no detections" if empty == 1 else "have no detections"
    text = f"{empty:,} of {images:,} images {have}, {with_objects:,} of them with objects."
    return text + (" Was the detector run on the whole data set?" if 2 * with_objects > (objects_I > 0).sum() else "")


def _errors(analysis: Analysis, metric: Callable[[float], str]) -> str:
    costs = sorted((cost for cost in analysis.errors.main if cost.ap50 > 0), key=lambda cost: -cost.ap50)
    if not costs:
        return "No AP50 is lost to any type of error."
    lost = ", ".join(f"{cost.kind} {metric(cost.ap50)} ({cost.errors:,})" for cost in costs)
    return f"AP50 lost to each type of error (count): {lost}."


def _threshold(analysis: Analysis) -> str:
    best = analysis.thresholds.overall
    if best.score is None or best.f1 is None:
        return "No detection is a true positive at IoU 0.5."
    return (
        f"Best F1 {best.f1:.3f} at score threshold {best.score:.3f}: precision {best.precision:.3f}, recall "
        f"{best.recall:.3f}, over all classes."
    )


def _calibration(analysis: Analysis) -> str:
    if analysis.calibration is None:
        return "Some scores are outside 0 to 1 and so are not probabilities; calibration is not measured."
    found = analysis.calibration.overall
    if math.isnan(found.ece):
        return ""
    counted = found.count_B > 0
    low = float(found.count_B[counted & (found.edges[1:] <= LOW_SCORE)].sum() / found.count_B.sum())
    text = f"Expected calibration error {found.ece:.3f} over all detections ({low:.0%} score below {LOW_SCORE:g})"
    shown = analysis.calibration.shown
    if shown is None:
        return f"{text}."
    gap = describe_calibration(shown.mean_score, shown.right)
    return f"{text}; above score {shown.from_score:.3f} the detector is {gap}."


def _sizes(analysis: Analysis, metric: Callable[[float], str]) -> str:
    known = [group for group in analysis.sizes if group.ap > -1]
    if len(known) < 2:
        return ""
    weak, strong = min(known, key=lambda group: group.ap), max(known, key=lambda group: group.ap)
    return (
        f"By object size (side in pixels), AP ranges from {metric(weak.ap)} ({weak.name}, "
        f"{amount(weak.objects, 'object')}) to {metric(strong.ap)} ({strong.name}, {amount(strong.objects, 'object')})."
    )


def _classes(analysis: Analysis, metric: Callable[[float], str]) -> str:
    known = sorted((row for row in analysis.evaluation.per_class if row.ap > -1), key=lambda row: row.ap)
    if len(known) < 2:
        return ""
    lowest = ", ".join(f"{row.name} {metric(row.ap)}" for row in known[: min(3, len(known) - 1)])
    return f"Lowest AP: {lowest}; highest: {known[-1].name} {metric(known[-1].ap)}."


def _confused(analysis: Analysis) -> str:
    pairs = most_confused(analysis.confusion, 1)
    if not pairs:
        return ""
    names, pair = analysis.scored.names(), pairs[0]
    times = "once" if pair.objects == 1 else f"{pair.objects:,} times"
    return (
        f"Most confused: {names[pair.true_class]} detected as {names[pair.found_class]}, {times} "
        f"({pair.share:.0%} of {names[pair.true_class]})."
    )

"""What stands out in an analysis, in sentences."""

import math

import numpy as np

from retinanet.diagnostics.analysis.analyse import Analysis
from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.confusion import most_confused

LOW_SCORE = 0.1
"""An edge of the bins of `calibration`: below it, it is told how many of the detections are."""


def findings(analysis: Analysis, scored: Scored) -> list[str]:
    """A few sentences, what costs most first; those that have nothing to say are left out."""
    if not scored.counts_K().any():
        return ["The ground truth has no objects: there is nothing to find, and every detection is false."]
    if not len(scored.found.score_D):
        return ["There are no detections."]
    told = (
        _without_detections(scored),
        _errors(analysis),
        _threshold(analysis),
        _calibration(analysis),
        _sizes(analysis),
        _classes(analysis),
    )
    return [text for text in (*told, _confused(analysis, scored)) if text]


def _without_detections(scored: Scored) -> str:
    images = len(scored.image_names)
    objects_I = np.bincount(scored.objects.image_N[~scored.objects.crowd_N], minlength=images)
    empty_I = np.bincount(scored.found.image_D, minlength=images) == 0
    empty, with_objects = int(empty_I.sum()), int((empty_I & (objects_I > 0)).sum())
    if not empty:
        return ""
    have = "has no detection" if empty == 1 else "have no detection"
    told = f"{empty:,} of {images:,} images {have}, of which {with_objects:,} with objects."
    return told + (" Was all of the data set detected on?" if 2 * with_objects > (objects_I > 0).sum() else "")


def _errors(analysis: Analysis) -> str:
    costs = sorted((cost for cost in analysis.errors.main if cost.ap50 > 0), key=lambda cost: -cost.ap50)
    if not costs:
        return "No error costs any AP50."
    told = [f"{cost.kind} {100 * cost.ap50:.1f} ({cost.errors:,})" for cost in costs]
    return f"Errors by the points of AP50 that each kind costs (how many): {', '.join(told)}."


def _threshold(analysis: Analysis) -> str:
    best = analysis.thresholds.overall
    if best.score is None or best.f1 is None:
        return "No detection is right at IoU 0.5."
    return (
        f"Best F1 {best.f1:.3f} from score {best.score:.3f} on: precision {best.precision:.3f}, recall "
        f"{best.recall:.3f}, all classes together."
    )


def _calibration(analysis: Analysis) -> str:
    if analysis.calibration is None:
        return "Scores reach outside 0 to 1, so they are no probabilities and their calibration is not measured."
    found = analysis.calibration.overall
    if math.isnan(found.ece):
        return ""
    counted = found.count_B > 0
    low = float(found.count_B[counted & (found.edges[1:] <= LOW_SCORE)].sum() / found.count_B.sum())
    told = f"Expected calibration error {found.ece:.3f} over all detections ({low:.0%} score below {LOW_SCORE:g})"
    shown = analysis.calibration.shown
    if shown is None:
        return f"{told}."
    gap = shown.mean_score - shown.right
    side = "too high" if gap > 0 else "too low"
    return (
        f"{told}; from score {shown.from_score:.3f} on, scores are {abs(gap):.3f} {side} on average: mean "
        f"{shown.mean_score:.3f}, right {shown.right:.3f}."
    )


def _sizes(analysis: Analysis) -> str:
    known = [group for group in analysis.sizes if group.ap > -1]
    if len(known) < 2:
        return ""
    weak, strong = min(known, key=lambda group: group.ap), max(known, key=lambda group: group.ap)
    return (
        f"By size, AP goes from {100 * weak.ap:.1f} (side {weak.name} pixels, {weak.objects:,} objects) to "
        f"{100 * strong.ap:.1f} (side {strong.name} pixels, {strong.objects:,})."
    )


def _classes(analysis: Analysis) -> str:
    known = sorted((row for row in analysis.classes if row.ap > -1), key=lambda row: row.ap)
    if len(known) < 2:
        return ""
    told = [f"{row.name} {100 * row.ap:.1f}" for row in known[: min(3, len(known) - 1)]]
    return f"Lowest AP: {', '.join(told)}; highest: {known[-1].name} {100 * known[-1].ap:.1f}."


def _confused(analysis: Analysis, scored: Scored) -> str:
    pairs = most_confused(analysis.confusion, 1)
    if not pairs:
        return ""
    names, pair = scored.names(), pairs[0]
    return (
        f"Most confused: {names[pair.true_class]} detected as {names[pair.found_class]}, {pair.objects:,} times "
        f"({pair.share:.0%} of {names[pair.true_class]})."
    )

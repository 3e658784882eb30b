"""All analyses of one set of detections, and what eval.json holds of them."""

import math
from typing import Any, NamedTuple

import numpy as np

from retinanet.diagnostics.analysis.calibration import Calibration, Reliability, measure_calibration
from retinanet.diagnostics.analysis.classes import ClassRow, PrecisionCurves, by_class, precision_curves
from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.confusion import Confusion, confusion_matrix, most_confused
from retinanet.diagnostics.analysis.crowding import CrowdingGroup, OverlapGroup, by_crowding, by_overlap
from retinanet.diagnostics.analysis.error_types import KINDS, ErrorReport, find_errors, report_errors
from retinanet.diagnostics.analysis.sizes import SizeGroup, by_size
from retinanet.diagnostics.analysis.thresholds import Thresholds, find_thresholds
from retinanet.diagnostics.analysis.worst_images import ImageErrors, best, measure_images, worst

SHOWN_IMAGES = 20
"""Images in each of the lists of the worst and the best."""
SHOWN_PAIRS = 20
NO_THRESHOLD = 0.5
"""Score from which detections count where no threshold can be chosen: no object was found at all."""


class Analysis(NamedTuple):
    """What is known of the detections beyond COCO's twelve numbers."""

    classes: tuple[ClassRow, ...]
    curves: tuple[PrecisionCurves, ...]
    sizes: tuple[SizeGroup, ...]
    crowding: tuple[CrowdingGroup, ...]
    overlaps: tuple[OverlapGroup, ...]
    errors: ErrorReport
    thresholds: Thresholds
    score: float
    """The overall threshold of best F1: from it on, detections count in `overlaps`, `confusion`, `images` and
    `calibration.shown`."""
    confusion: Confusion
    calibration: Calibration | None
    images: ImageErrors
    worst: list[int]
    """Places of images."""
    best: list[int]


def analyse(scored: Scored) -> Analysis:
    """Every analysis; any of its inputs may be empty."""
    thresholds = find_thresholds(scored)
    score = NO_THRESHOLD if thresholds.overall.score is None else thresholds.overall.score
    images = measure_images(scored, score)
    return Analysis(
        classes=by_class(scored),
        curves=precision_curves(scored),
        sizes=by_size(scored),
        crowding=by_crowding(scored),
        overlaps=by_overlap(scored, score),
        errors=report_errors(scored, find_errors(scored)),
        thresholds=thresholds,
        score=score,
        confusion=confusion_matrix(scored, score),
        calibration=measure_calibration(scored, score),
        images=images,
        worst=worst(images, SHOWN_IMAGES),
        best=best(images, SHOWN_IMAGES),
    )


def as_dict(analysis: Analysis, scored: Scored) -> dict[str, Any]:
    """The analyses as plain data; null stands for what cannot be measured."""
    names = scored.names()
    pairs = most_confused(analysis.confusion, SHOWN_PAIRS)
    return {
        "thresholds": analysis.thresholds.as_dict(scored.categories),
        "errors": {
            "AP50": analysis.errors.ap50,
            "cost_in_AP50": {cost.kind: cost.ap50 for cost in (*analysis.errors.main, *analysis.errors.special)},
            "count": {cost.kind: cost.errors for cost in (*analysis.errors.main, *analysis.errors.special)},
            "count_by_class": dict(zip(KINDS, analysis.errors.counts_TK.tolist())),
        },
        "calibration": _calibration(analysis.calibration, scored.categories),
        "sizes": [group._asdict() for group in analysis.sizes],
        "crowding": [group._asdict() for group in analysis.crowding],
        "overlap_with_neighbours": [group._asdict() for group in analysis.overlaps],
        "confusion": {
            "iou": 0.5,
            "score": analysis.score,
            "labels": [*names, "background"],
            "true_by_found": analysis.confusion.counts.tolist(),
            "most_confused": [
                {"true": names[p.true_class], "found": names[p.found_class], "count": p.objects, "share": p.share}
                for p in pairs
            ],
        },
        "precision_at_recall": {
            f"{curve.iou:g}": None if curve.mean_Q is None else _plain(curve.mean_Q) for curve in analysis.curves
        },
        "images": {
            "score": analysis.score,
            "worst": [image_row(analysis.images, scored, place) for place in analysis.worst],
            "best": [image_row(analysis.images, scored, place) for place in analysis.best],
        },
    }


def image_row(images: ImageErrors, scored: Scored, place: int) -> dict[str, Any]:
    """One image of a list."""
    return {
        "image_id": int(scored.objects.image_ids_I[place]),
        "file_name": scored.image_names[place],
        "f1": float(images.f1_I[place]),
        "LRP": float(images.lrp_I[place]),
        "right": int(images.hits_I[place]),
        "false": int(images.false_I[place]),
        "not_found": int(images.unfound_I[place]),
    }


def _calibration(calibration: Calibration | None, categories: tuple[tuple[int, str], ...]) -> dict[str, Any] | None:
    if calibration is None:
        return None

    def numbers(found: Reliability) -> dict[str, Any]:
        return {
            "ECE": None if math.isnan(found.ece) else found.ece,
            "detections": found.count_B.tolist(),
            "mean_score": _plain(found.score_B),
            "right": _plain(found.right_B),
        }

    return {
        "bins": len(calibration.overall.count_B),
        "overall": numbers(calibration.overall),
        "from_best_threshold": None if calibration.shown is None else calibration.shown._asdict(),
        "by_class": [
            {"id": id_, "name": name, **numbers(found)} for (id_, name), found in zip(categories, calibration.by_class)
        ],
    }


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON knows them: null for NaN."""
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]

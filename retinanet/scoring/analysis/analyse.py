"""All analyses of one evaluation."""

from typing import Any, NamedTuple

from retinanet.scoring.analysis.calibration import Calibration, measure_calibration
from retinanet.scoring.analysis.confusion import Confusion, confusion_matrix
from retinanet.scoring.analysis.crowding import CrowdingGroup, OverlapGroup, by_crowding, by_overlap
from retinanet.scoring.analysis.curves import PrecisionCurves, precision_curves
from retinanet.scoring.analysis.error_types import ErrorReport, classify_errors, report_errors
from retinanet.scoring.analysis.scored import Scored, score_detections
from retinanet.scoring.analysis.sizes import SizeGroup, by_size
from retinanet.scoring.analysis.thresholds import Thresholds, find_thresholds
from retinanet.scoring.analysis.worst_images import ImageErrors, best_images, measure_images, worst_images
from retinanet.scoring.evaluation import Evaluation
from retinanet.scoring.limits import DetectionLimit, measure_limit
from retinanet.scoring.metric_intervals import MetricIntervals, measure_intervals

SHOWN_IMAGES = 20
"""Images in each of the lists of the worst and the best."""


class Analysis(NamedTuple):
    """An evaluation with what is measured beyond COCO's twelve metrics."""

    evaluation: Evaluation
    limit: DetectionLimit
    scored: Scored
    """All detections, whatever `evaluation.max_detections`."""
    curves: tuple[PrecisionCurves, ...]
    sizes: tuple[SizeGroup, ...]
    crowding: tuple[CrowdingGroup, ...]
    overlaps: tuple[OverlapGroup, ...]
    errors: ErrorReport
    thresholds: Thresholds
    score: float
    """The threshold of `overlaps`, `confusion`, `images` and `calibration.shown`: `thresholds.score()`."""
    confusion: Confusion
    calibration: Calibration | None
    images: ImageErrors
    worst: list[int]
    """Indices of images, at most SHOWN_IMAGES."""
    best: list[int]
    intervals: MetricIntervals | None = None
    """None: not measured."""

    def image_row(self, image: int) -> dict[str, Any]:
        """The image at this index, as in eval.json."""
        images, truth = self.images, self.scored.objects
        return {
            "image_id": int(truth.image_ids_I[image]),
            "file_name": truth.image_names_I[image],
            "f1": float(images.f1_I[image]),
            "LRP": float(images.lrp_I[image]),
            "right": int(images.hits_I[image]),
            "false": int(images.false_I[image]),
            "not_found": int(images.unfound_I[image]),
        }


def analyse(evaluation: Evaluation, *, intervals: bool = False) -> Analysis:
    """Every analysis; ground truth and detections may be empty. Raises DataError as `match_columns`.

    intervals: also measure those of the metrics, which takes longer than everything else.
    """
    scored = score_detections(evaluation.truth, evaluation.found)
    thresholds = find_thresholds(scored)
    score = thresholds.score()
    images = measure_images(scored, score)
    return Analysis(
        evaluation=evaluation,
        limit=measure_limit(evaluation.truth, evaluation.max_detections),
        scored=scored,
        curves=precision_curves(scored.matches),
        sizes=by_size(scored),
        crowding=by_crowding(scored),
        overlaps=by_overlap(scored, score),
        errors=report_errors(scored, classify_errors(scored)),
        thresholds=thresholds,
        score=score,
        confusion=confusion_matrix(scored, score),
        calibration=measure_calibration(scored, score),
        images=images,
        worst=worst_images(images, SHOWN_IMAGES),
        best=best_images(images, SHOWN_IMAGES),
        intervals=measure_intervals(evaluation) if intervals else None,
    )

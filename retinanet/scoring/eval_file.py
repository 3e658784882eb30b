"""eval.json: one schema, whether a training or `retinanet eval` wrote it."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.errors import DataError
from retinanet.files import read_json, write_json
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.analysis.calibration import Calibration, Reliability
from retinanet.scoring.analysis.confusion import most_confused
from retinanet.scoring.analysis.error_types import KINDS
from retinanet.scoring.analysis.scored import HIT_IOU
from retinanet.scoring.columns import TruthColumns
from retinanet.scoring.metric_intervals import LEVEL, Interval, MetricIntervals

SCHEMA = 1
"""Version of the keys and their meaning. Files without "schema" were written before there were versions; what they
have of these keys means the same."""

CONFUSED_PAIRS = 20


def write_eval_file(path: Path, analysis: Analysis, *, step: int | None, precision: str | None) -> dict[str, Any]:
    """Write eval.json and return its content. Raises ResourceError as `files.replacing`."""
    content = eval_content(analysis, step=step, precision=precision)
    write_json(path, content, indent=1)
    return content


def read_eval_file(path: Path) -> dict[str, Any]:
    """The content of an eval.json. Raises DataError for a file that is not one, or that has a newer schema."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: this is not an eval.json, which `retinanet train` and `retinanet eval` write.")
    if content.get("schema", SCHEMA) != SCHEMA:
        raise DataError(
            f"{path}: schema {content['schema']} of eval.json is unknown to this version, which reads {SCHEMA}; "
            "evaluate again with `retinanet eval`, or update retinanet."
        )
    return content


def eval_content(analysis: Analysis, *, step: int | None, precision: str | None) -> dict[str, Any]:
    """The metrics and all analyses as plain data; null where something cannot be measured.

    step: of the checkpoint; precision: what the network was computed in, such as "bfloat16". Both are None for a file
    of detections, whose origin is unknown.
    """
    evaluation, scored, errors = analysis.evaluation, analysis.scored, analysis.errors
    truth, names = scored.objects, scored.names()
    costs = (*errors.main, *errors.special)
    limit = analysis.limit
    return {
        "schema": SCHEMA,
        "step": step,
        "precision": precision,
        "metrics": evaluation.metrics,
        "engine": evaluation.engine,
        "max_detections": limit.limit,
        "reachable_AP": limit.reachable_ap,
        "images_over_max_detections": limit.images,
        "intervals": _intervals(analysis.intervals, truth),
        "per_class": [row.as_dict() for row in evaluation.per_class],
        "thresholds": {
            "iou": HIT_IOU,
            "overall": analysis.thresholds.overall._asdict(),
            "by_class": _by_class(truth, [point._asdict() for point in analysis.thresholds.by_class]),
        },
        "errors": {
            "AP50": errors.ap50,
            "cost_in_AP50": {cost.kind: cost.ap50 for cost in costs},
            "count": {cost.kind: cost.errors for cost in costs},
            "count_by_class": dict(zip(KINDS, errors.counts_TK.tolist())),
        },
        "calibration": _calibration(analysis.calibration, truth),
        "sizes": [group._asdict() for group in analysis.sizes],
        "crowding": [group._asdict() for group in analysis.crowding],
        "overlap_with_neighbours": [group._asdict() for group in analysis.overlaps],
        "confusion": {
            "iou": HIT_IOU,
            "score": analysis.score,
            "labels": [*names, "background"],
            "true_by_found": analysis.confusion.counts.tolist(),
            "most_confused": [
                {"true": names[p.true_class], "found": names[p.found_class], "count": p.objects, "share": p.share}
                for p in most_confused(analysis.confusion, CONFUSED_PAIRS)
            ],
        },
        "precision_at_recall": {
            f"{curve.iou:g}": None if curve.mean_Q is None else _nullable(curve.mean_Q) for curve in analysis.curves
        },
        "images": {
            "score": analysis.score,
            "worst": [analysis.image_row(image) for image in analysis.worst],
            "best": [analysis.image_row(image) for image in analysis.best],
        },
    }


def _by_class(truth: TruthColumns, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per class, with its id and name first."""
    identities = zip(truth.category_ids_K.tolist(), truth.category_names_K, strict=True)
    return [{"id": number, "name": name, **row} for (number, name), row in zip(identities, rows, strict=True)]


def _intervals(found: MetricIntervals | None, truth: TruthColumns) -> dict[str, Any] | None:
    if found is None:
        return None

    def ends(interval: Interval) -> list[float] | None:
        return list(interval) if interval.known() else None

    return {
        "level": LEVEL,
        "resamples": found.resamples,
        "metrics": {name: ends(interval) for name, interval in found.metrics.items()},
        "by_class": _by_class(truth, [{"AP": ends(interval)} for interval in found.classes]),
    }


def _calibration(calibration: Calibration | None, truth: TruthColumns) -> dict[str, Any] | None:
    if calibration is None:
        return None

    def numbers(found: Reliability) -> dict[str, Any]:
        return {
            "ECE": None if math.isnan(found.ece) else found.ece,
            "detections": found.count_B.tolist(),
            "mean_score": _nullable(found.score_B),
            "right": _nullable(found.right_B),
        }

    return {
        "bins": len(calibration.overall.count_B),
        "overall": numbers(calibration.overall),
        "from_best_threshold": None if calibration.shown is None else calibration.shown._asdict(),
        "by_class": _by_class(truth, [numbers(found) for found in calibration.by_class]),
    }


def _nullable(values: np.ndarray) -> list[float | None]:
    """To six decimals; None for NaN, which JSON lacks."""
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]

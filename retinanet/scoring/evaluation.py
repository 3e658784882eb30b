"""COCO numbers of detections against ground truth: pycocotools' own, or equal to them."""

import functools
import logging
from typing import Any, Literal, NamedTuple

import numpy as np

from retinanet.errors import ConfigError
from retinanet.scoring import fast, reference
from retinanet.scoring.columns import truth_columns
from retinanet.scoring.reference import CocoNumbers

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers in pycocotools' order."""

Engine = Literal["auto", "pycocotools", "fast"]
"""Who computes: `fast` equals pycocotools in every number; `auto` is `fast` where it is installed."""

_log = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """COCO numbers of a set of detections; -1 where the ground truth has nothing to measure."""

    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    """id, name, AP, AP50, AP75, instances (without crowd) of each category."""
    engine: str
    """Name and version of what computed them, as "pycocotools 2.0.11"."""

    def as_dict(self) -> dict[str, Any]:
        """What eval.json holds."""
        return {"metrics": self.metrics, "engine": self.engine, "per_class": self.per_class}


def check_engine(engine: Engine) -> None:
    """ConfigError for an engine that is not installed, which is better told before a training than after it."""
    if engine == "fast" and not fast.is_installed():
        raise ConfigError(
            "eval.engine: 'fast' needs hotcoco 1.3 or newer, which is not installed: `pip install 'hotcoco>=1.3'`, or "
            "set eval.engine=auto or eval.engine=pycocotools (the same numbers, slower)"
        )


def coco_evaluation(ground_truth: dict[str, Any], results: list[dict[str, Any]], engine: Engine = "auto") -> Evaluation:
    """The twelve COCO box numbers and AP by class.

    ground_truth: a validated COCO dict; results: validated COCO results, an empty list allowed. Neither is changed.
    Raises ConfigError for an engine that is not installed.
    """
    check_engine(engine)
    scored = (fast if _is_fast(engine) else reference).score(ground_truth, results)
    return Evaluation(
        dict(zip(METRIC_NAMES, scored.twelve, strict=True)), _per_class(ground_truth, scored), scored.engine
    )


def _is_fast(engine: Engine) -> bool:
    if engine == "auto" and not fast.is_installed():
        _say_once("hotcoco 1.3 or newer is not installed: pycocotools computes the COCO numbers, the same but slower")
        return False
    return engine != "pycocotools"


@functools.cache
def _say_once(text: str) -> None:
    _log.warning(text)


def _per_class(ground_truth: dict[str, Any], scored: CocoNumbers) -> list[dict[str, Any]]:
    """Rows by rising category id; AP over all sizes and 100 detections an image."""
    truth = truth_columns(ground_truth)
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    instances_K = np.bincount(truth.class_N[~truth.crowd_N], minlength=len(truth.category_ids_K)).tolist()

    def mean(values: np.ndarray) -> float:
        known = values[values > -1]
        return float(known.mean()) if known.size else -1.0

    rows = []
    for k, category_id in enumerate(truth.category_ids_K.tolist()):
        precision_TQ = scored.precision_TQKAM[:, :, k, 0, -1]
        rows.append(
            {
                "id": category_id,
                "name": names[category_id],
                "AP": mean(precision_TQ),
                "AP50": mean(precision_TQ[0]),
                "AP75": mean(precision_TQ[5]),
                "instances": instances_K[k],
            }
        )
    return rows

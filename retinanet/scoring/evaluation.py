"""COCO metrics of detections against ground truth: pycocotools' own, or equal to them."""

import functools
import logging
from typing import Any, Literal, NamedTuple

import numpy as np

from retinanet.errors import ConfigError
from retinanet.scoring import fast
from retinanet.scoring.columns import DETECTIONS, DetectionColumns, Ints, TruthColumns, detection_columns, truth_columns
from retinanet.scoring.reference import CocoNumbers, pycocotools_numbers

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve metrics in pycocotools' order."""

Engine = Literal["auto", "pycocotools", "fast"]
"""The library that computes the metrics: `fast` equals pycocotools in every number; `auto` is `fast` if installed."""

_log = logging.getLogger(__name__)


class ClassScores(NamedTuple):
    """One class; AP is -1 where there is no object to find."""

    id: int
    name: str
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    objects: int
    """Without crowd regions."""
    images: int
    """Images with such objects."""
    detections: int
    """Detections that are scored: at most `Evaluation.max_detections` in an image."""

    def as_dict(self) -> dict[str, Any]:
        """The class in eval.json."""
        return {
            "id": self.id,
            "name": self.name,
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            "instances": self.objects,
            "APs": self.ap_small,
            "APm": self.ap_medium,
            "APl": self.ap_large,
            "images": self.images,
            "detections": self.detections,
        }


class Evaluation(NamedTuple):
    """COCO metrics of a set of detections; -1 where the ground truth has nothing to measure."""

    metrics: dict[str, float]
    """By METRIC_NAMES, in 0..1."""
    per_class: tuple[ClassScores, ...]
    """By ascending category id."""
    engine: str
    """Name and version of the library that computed them, such as "pycocotools 2.0.11"."""
    max_detections: int
    """Best detections of an image and class that count in the metrics; COCO's is DETECTIONS."""
    truth: TruthColumns
    found: DetectionColumns


def above_score(results: list[dict[str, Any]], threshold: float) -> list[dict[str, Any]]:
    """The results that a detector with this score threshold would have returned, of one with a lower threshold.

    Exact, because a detection depends on those with higher scores alone: the best `topk` of a level, what NMS leaves of
    them and the best `detections` of an image are each a beginning of what they are at the lower threshold. Only a
    score that rounds to the threshold itself (results have six digits) may be on the wrong side.
    """
    return [row for row in results if row["score"] > threshold]


def check_engine(engine: Engine) -> None:
    """Raise ConfigError for an engine that is not installed; call it before a training rather than after it."""
    if engine == "fast" and not fast.is_installed():
        raise ConfigError(
            "eval.engine: 'fast' needs hotcoco 1.3 or newer, which is not installed: `pip install 'hotcoco>=1.3'`, or "
            "set eval.engine=auto or eval.engine=pycocotools (the same numbers, slower)"
        )


def coco_evaluation(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    engine: Engine = "auto",
    max_detections: int = DETECTIONS,
) -> Evaluation:
    """The twelve COCO box metrics and AP of each class.

    ground_truth: a validated COCO dict; results: validated COCO results, an empty list allowed. Neither is changed.
    max_detections: at least DETECTIONS; AR1, AR10 and AR100 keep their own limits, whatever it is.
    Raises ConfigError for an engine that is not installed.
    """
    check_engine(engine)
    truth = truth_columns(ground_truth)
    found = detection_columns(truth, results)
    if _is_fast(engine) and fast.is_exact(found):
        numbers = fast.hotcoco_numbers(truth, found, max_detections)
    else:
        numbers = pycocotools_numbers(ground_truth, results, max_detections)
    return Evaluation(
        metrics=dict(zip(METRIC_NAMES, numbers.twelve, strict=True)),
        per_class=_per_class(numbers, truth, found, max_detections),
        engine=numbers.engine,
        max_detections=max_detections,
        truth=truth,
        found=found,
    )


def _is_fast(engine: Engine) -> bool:
    if engine == "auto" and not fast.is_installed():
        _warn_once("hotcoco 1.3 or newer is not installed: pycocotools computes the COCO numbers, the same but slower")
        return False
    return engine != "pycocotools"


@functools.cache
def _warn_once(text: str) -> None:
    _log.warning(text)


def _per_class(
    numbers: CocoNumbers, truth: TruthColumns, found: DetectionColumns, max_detections: int
) -> tuple[ClassScores, ...]:
    """AP at `max_detections` of an image, and counts."""
    objects_K = truth.objects_K().tolist()
    kept_N = ~truth.crowd_N
    images_K, _ = _images_and_counts(truth, truth.class_N[kept_N], truth.image_N[kept_N], max_detections)
    _, detections_K = _images_and_counts(truth, found.class_D, found.image_D, max_detections)

    def mean(values: np.ndarray) -> float:
        known = values[values > -1]
        return float(known.mean()) if known.size else -1.0

    rows = []
    for k, (category_id, name) in enumerate(zip(truth.category_ids_K.tolist(), truth.category_names_K, strict=True)):
        precision_TQA = numbers.precision_TQKAM[:, :, k, :, -1]
        rows.append(
            ClassScores(
                id=category_id,
                name=name,
                ap=mean(precision_TQA[:, :, 0]),
                ap50=mean(precision_TQA[0, :, 0]),
                ap75=mean(precision_TQA[5, :, 0]),
                ap_small=mean(precision_TQA[:, :, 1]),
                ap_medium=mean(precision_TQA[:, :, 2]),
                ap_large=mean(precision_TQA[:, :, 3]),
                objects=objects_K[k],
                images=images_K[k],
                detections=detections_K[k],
            )
        )
    return tuple(rows)


def _images_and_counts(truth: TruthColumns, class_M: Ints, image_M: Ints, most: int) -> tuple[list[int], list[int]]:
    """Of M boxes, for each class: images that have one, and boxes of which at most `most` in an image count."""
    images, classes = len(truth.image_ids_I), len(truth.category_ids_K)
    pairs, counts = np.unique(class_M * images + image_M, return_counts=True)
    class_P = pairs // max(images, 1)
    images_K = np.bincount(class_P, minlength=classes)
    counts_K = np.bincount(class_P, weights=counts.clip(max=most), minlength=classes)
    return images_K.tolist(), counts_K.astype(np.int64).tolist()

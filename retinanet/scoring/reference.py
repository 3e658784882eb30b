"""pycocotools, whose numbers are the official ones."""

import contextlib
import io
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.scoring.columns import DETECTIONS


class CocoNumbers(NamedTuple):
    """Results of an engine.

    Axes as in pycocotools: T IoU thresholds, Q recalls, K classes by ascending id, A areas, M detection limits
    (`detection_limits`).
    """

    twelve: tuple[float, ...]
    """The twelve metrics, in pycocotools' order."""
    precision_TQKAM: NDArray[np.float64]
    """Interpolated precision; -1 where a class has no object that counts."""
    recall_TKAM: NDArray[np.float64]
    engine: str
    """Name and version."""


def index_coco(dataset: dict[str, Any]) -> COCO:
    """A COCO dict as a pycocotools object. COCOeval writes keys of its own into the dict's annotations."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def detection_limits(most: int) -> list[int]:
    """COCO's limits 1, 10 and 100, and `most` where it is larger."""
    return [1, 10, DETECTIONS, *([most] if most > DETECTIONS else [])]


def twelve_numbers(precision_TQKAM: NDArray[np.float64], recall_TKAM: NDArray[np.float64]) -> tuple[float, ...]:
    """The twelve metrics of these curves: AR1, AR10 and AR100 at those limits, all others at the last one.

    pycocotools has 100 written into its first metric, which is -1 at any other limit.
    """

    def mean(values: NDArray[np.float64]) -> float:
        known = values[values > -1]
        return float(known.mean()) if known.size else -1.0

    precisions = [precision_TQKAM[..., a, -1] for a in range(4)]
    recalls = [recall_TKAM[..., 0, 0], recall_TKAM[..., 0, 1], recall_TKAM[..., 0, 2]]
    recalls += [recall_TKAM[..., a, -1] for a in range(1, 4)]
    cells = [precisions[0], precisions[0][0], precisions[0][5], *precisions[1:], *recalls]
    return tuple(mean(cell) for cell in cells)


def pycocotools_numbers(
    ground_truth: dict[str, Any], results: list[dict[str, Any]], max_detections: int = DETECTIONS
) -> CocoNumbers:
    """Box evaluation of validated results against a validated COCO dict; neither is changed.

    max_detections: best detections of an image and class that count, at least COCO's 100.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # COCOeval writes "ignore" and "_ignore" into the annotations it gets.
        truth = index_coco({**ground_truth, "annotations": [dict(row) for row in ground_truth["annotations"]]})
        empty = {"images": ground_truth["images"], "categories": ground_truth["categories"], "annotations": []}
        found = truth.loadRes([dict(result) for result in results]) if results else index_coco(empty)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = detection_limits(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        precision_TQKAM, recall_TKAM = evaluation.eval["precision"], evaluation.eval["recall"]
        if max_detections > DETECTIONS:
            twelve = twelve_numbers(precision_TQKAM, recall_TKAM)
        else:
            evaluation.summarize()
            twelve = tuple(map(float, evaluation.stats))
    return CocoNumbers(
        twelve=twelve,
        precision_TQKAM=precision_TQKAM,
        recall_TKAM=recall_TKAM,
        engine=f"pycocotools {version('pycocotools')}",
    )

"""pycocotools, whose numbers are the official ones."""

import contextlib
import io
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class CocoNumbers(NamedTuple):
    """Results of an engine.

    Axes as in pycocotools: T IoU thresholds, Q recalls, K classes by ascending id, A areas, M detection limits
    (1, 10, 100).
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


def pycocotools_numbers(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> CocoNumbers:
    """Box evaluation of validated results against a validated COCO dict; neither is changed."""
    with contextlib.redirect_stdout(io.StringIO()):
        # COCOeval writes "ignore" and "_ignore" into the annotations it gets.
        truth = index_coco({**ground_truth, "annotations": [dict(row) for row in ground_truth["annotations"]]})
        empty = {"images": ground_truth["images"], "categories": ground_truth["categories"], "annotations": []}
        found = truth.loadRes([dict(result) for result in results]) if results else index_coco(empty)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return CocoNumbers(
        twelve=tuple(map(float, evaluation.stats)),
        precision_TQKAM=evaluation.eval["precision"],
        recall_TKAM=evaluation.eval["recall"],
        engine=f"pycocotools {version('pycocotools')}",
    )

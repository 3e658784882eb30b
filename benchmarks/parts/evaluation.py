"""Part `eval`: the twelve COCO numbers of a results file."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.contest import Comparison, Contest, Contestant, Stretch, ready
from benchmarks.options import Options
from benchmarks.scenes import coco_results
from retinanet.scoring.evaluation import coco_evaluation

FULL, QUICK = (5000, 36_000, 500_000), (60, 500, 5000)
"""Images, boxes and detections; the first are those of COCO val2017 with 100 detections an image."""


def build_evaluation(options: Options) -> Contest:
    """Scoring the same generated detections."""
    images, boxes, detections = size = QUICK if options.quick else FULL
    return Contest(
        part="eval",
        what=f"The twelve COCO numbers of {detections:,} generated detections against {boxes:,} boxes of 80 classes in "
        f"{images:,} images.",
        contestants=(
            Contestant("ours", ours=True, precision="-", build=lambda: _ours(size)),
            Contestant("pycocotools", ours=False, precision="-", build=lambda: _pycocotools(size)),
        ),
        comparisons=(Comparison("ours", "pycocotools", at_least=None if options.quick else 80.0),),
        not_same="Ours also gives AP by class. Both start from lists in memory.",
        check=same_numbers,
        repeats=3,
        warmups=1 if options.quick else 0,
        once=not options.quick,
    )


def same_numbers(results: Mapping[str, Any]) -> str:
    """All twelve numbers are the same to the last bit."""
    if len(results) < 2:
        return ""
    assert results["ours"] == results["pycocotools"], f"the numbers differ: {results}"
    return f"the twelve numbers are identical, AP {results['ours'][0]:.4f}"


def _ours(size: tuple[int, int, int]) -> Stretch:
    truth, results = coco_results(*size)
    return ready(lambda: list(coco_evaluation(truth, results).metrics.values()))


def _pycocotools(size: tuple[int, int, int]) -> Stretch:
    # Its own copy: pycocotools writes into what it is given.
    truth, results = coco_results(*size)

    def step() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = truth
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [float(number) for number in evaluation.stats]

    return ready(step)

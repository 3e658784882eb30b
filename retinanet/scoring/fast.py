"""The fast engine: hotcoco, a port of pycocotools with the same numbers to the last bit.

The only module that knows hotcoco. hotcoco receives arrays with ids 1, 2, ..., so that neither extra keys nor large
ids of the files can matter. It differs from pycocotools in two cases, which `is_exact` excludes:
  - a detection so small or so large that width * height is 0 although neither side is, or infinite (sides around
    1e-162 or 1e154): its IoU may be 0 / 0, which pycocotools counts as a match and hotcoco does not;
  - scores of 2**53 and more, which pycocotools distinguishes where they are integers.

Legend: D detections.
"""

import contextlib
import io

import numpy as np

from retinanet.scoring.columns import DETECTIONS, DetectionColumns, TruthColumns
from retinanet.scoring.reference import CocoNumbers, detection_limits, twelve_numbers

_EXACT_INTEGERS = 2.0**53


def is_installed() -> bool:
    """Whether hotcoco can be imported and is new enough to accept arrays (1.3)."""
    try:
        import hotcoco
    except ImportError:
        return False
    return hasattr(hotcoco.COCO, "from_arrays")


def is_exact(found: DetectionColumns) -> bool:
    """Whether hotcoco's numbers of these detections equal pycocotools'."""
    sides_D2 = found.boxes_D4[:, 2:]
    with np.errstate(over="ignore", under="ignore"):
        area_D = sides_D2[:, 0] * sides_D2[:, 1]
    lost_D = ((sides_D2 > 0).all(axis=1) & (area_D == 0)) | np.isinf(area_D)
    return not lost_D.any() and bool((np.abs(found.score_D) < _EXACT_INTEGERS).all())


def hotcoco_numbers(truth: TruthColumns, found: DetectionColumns, max_detections: int = DETECTIONS) -> CocoNumbers:
    """As `reference.pycocotools_numbers`, equal in every number where `is_exact`."""
    import hotcoco

    objects = hotcoco.COCO.from_arrays(
        [{"id": i} for i in range(1, len(truth.image_ids_I) + 1)],
        [{"id": k, "name": str(k)} for k in range(1, len(truth.category_ids_K) + 1)],
        truth.image_N + 1,
        truth.class_N + 1,
        truth.boxes_N4,
        ids=np.arange(1, len(truth.image_N) + 1),
        area=truth.area_N,
        iscrowd=truth.crowd_N.astype(np.int64),
    )
    detections = objects.load_res(
        np.column_stack([found.image_D + 1, found.boxes_D4, found.score_D, found.class_D + 1])
    )
    evaluation = hotcoco.COCOeval(objects, detections, "bbox")
    parameters = evaluation.params
    parameters.max_dets = detection_limits(max_detections)
    evaluation.params = parameters
    own = max_detections > DETECTIONS
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        if not own:
            evaluation.summarize()
    curves = evaluation.eval
    assert curves is not None
    precision_TQKAM, recall_TKAM = np.asarray(curves["precision"]), np.asarray(curves["recall"])
    return CocoNumbers(
        twelve=twelve_numbers(precision_TQKAM, recall_TKAM) if own else tuple(map(float, evaluation.stats)),
        precision_TQKAM=precision_TQKAM,
        recall_TKAM=recall_TKAM,
        engine=f"hotcoco {hotcoco.__version__}",
    )

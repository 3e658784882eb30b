"""The fast engine: hotcoco, a port of pycocotools that gives the same numbers to the last bit.

This is the only module that knows hotcoco. It is given columns under ids of our own (1, 2, ...), so that neither keys
that it might read nor ids that it might not hold can matter. Where it differs from pycocotools, or columns of float64
would, `score` goes to pycocotools:
  - a detection so small or large that width * height is 0 although neither is, or infinite (sides around 1e-162 or
    1e154): its overlap may be 0 / 0, which pycocotools takes for a match and hotcoco for none;
  - scores of 2**53 and more, which pycocotools tells apart where they are integers.

Legend: D detections.
"""

import contextlib
import io
from typing import Any

import numpy as np

from retinanet.scoring import reference
from retinanet.scoring.columns import Found, Truth, found_columns, truth_columns
from retinanet.scoring.reference import CocoNumbers

_EXACT_INTEGERS = 2.0**53


def is_installed() -> bool:
    """Whether hotcoco can be imported and is new enough to take columns (1.3)."""
    try:
        import hotcoco
    except ImportError:
        return False
    return hasattr(hotcoco.COCO, "from_arrays")


def score(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> CocoNumbers:
    """As `reference.score`, equal in every number; `engine` says which of the two it was."""
    truth = truth_columns(ground_truth)
    found = found_columns(truth, results)
    if not _same_in_both(found):
        return reference.score(ground_truth, results)
    return _score_columns(truth, found)


def _score_columns(truth: Truth, found: Found) -> CocoNumbers:
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
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.run()
    curves = evaluation.eval
    assert curves is not None
    return CocoNumbers(
        tuple(map(float, evaluation.stats)),
        np.asarray(curves["precision"]),
        np.asarray(curves["recall"]),
        f"hotcoco {hotcoco.__version__}",
    )


def _same_in_both(found: Found) -> bool:
    sides_D2 = found.boxes_D4[:, 2:]
    with np.errstate(over="ignore", under="ignore"):
        area_D = sides_D2[:, 0] * sides_D2[:, 1]
    lost_D = ((sides_D2 > 0).all(axis=1) & (area_D == 0)) | np.isinf(area_D)
    return not lost_D.any() and bool((np.abs(found.score_D) < _EXACT_INTEGERS).all())

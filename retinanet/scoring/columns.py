"""Ground truth and detections as arrays: what both the fast engine and the matching read.

Legend: I images, K classes, N annotations, D detections, 4 [x, y, width, height] in pixels of the image.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Truth(NamedTuple):
    """A ground truth; rows stand in the order of its annotations."""

    image_ids_I: Ints
    """(I,) rising."""
    category_ids_K: Ints
    """(K,) rising."""
    image_N: Ints
    """(N,) index into image_ids_I."""
    class_N: Ints
    """(N,) index into category_ids_K."""
    boxes_N4: Floats
    area_N: Floats
    """(N,) the annotations' own, not width * height."""
    crowd_N: NDArray[np.bool_]


class Found(NamedTuple):
    """Detections; rows stand in the order of the results."""

    image_D: Ints
    class_D: Ints
    boxes_D4: Floats
    score_D: Floats


def truth_columns(ground_truth: dict[str, Any]) -> Truth:
    """The arrays of a COCO dict as `data.coco.load_ground_truth` gives it: validated, with areas and iscrowd."""
    rows = ground_truth["annotations"]
    image_ids_I, category_ids_K = (
        np.unique(np.array([row["id"] for row in ground_truth[section]], dtype=np.int64))
        for section in ("images", "categories")
    )
    return Truth(
        image_ids_I,
        category_ids_K,
        np.searchsorted(image_ids_I, _integers(rows, "image_id")),
        np.searchsorted(category_ids_K, _integers(rows, "category_id")),
        _boxes(rows),
        np.array([row["area"] for row in rows], dtype=np.float64),
        np.array([row["iscrowd"] for row in rows], dtype=bool),
    )


def found_columns(truth: Truth, results: list[dict[str, Any]]) -> Found:
    """The arrays of validated COCO results, whose ids the ground truth has."""
    return Found(
        np.searchsorted(truth.image_ids_I, _integers(results, "image_id")),
        np.searchsorted(truth.category_ids_K, _integers(results, "category_id")),
        _boxes(results),
        np.array([row["score"] for row in results], dtype=np.float64),
    )


def _integers(rows: list[dict[str, Any]], key: str) -> Ints:
    return np.array([row[key] for row in rows], dtype=np.int64)


def _boxes(rows: list[dict[str, Any]]) -> Floats:
    flat = chain.from_iterable([row["bbox"] for row in rows])
    return np.fromiter(flat, dtype=np.float64, count=4 * len(rows)).reshape(-1, 4)

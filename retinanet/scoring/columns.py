"""Ground truth and detections as arrays, made once and read by the engines, the matching and the analyses.

Legend: I images, K classes, N annotations, D detections, 4 [x, y, width, height] in pixels of the stored image.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DETECTIONS = 100
"""Best detections of an image and class that COCO scores."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class TruthColumns(NamedTuple):
    """A ground truth; annotations in the order of the file, crowd regions included."""

    image_ids_I: Ints
    """(I,) ascending."""
    image_names_I: tuple[str, ...]
    """(I,) file names, or "image ID" where the ground truth has none."""
    category_ids_K: Ints
    """(K,) ascending."""
    category_names_K: tuple[str, ...]
    image_N: Ints
    """(N,) index into image_ids_I."""
    class_N: Ints
    """(N,) index into category_ids_K."""
    boxes_N4: Floats
    area_N: Floats
    """(N,) as annotated, not width * height."""
    crowd_N: NDArray[np.bool_]

    def objects_K(self) -> Ints:
        """(K,) number of objects of each class, without crowd regions."""
        return np.bincount(self.class_N[~self.crowd_N], minlength=len(self.category_ids_K))


class DetectionColumns(NamedTuple):
    """Detections in the order of the results."""

    image_D: Ints
    """(D,) index into TruthColumns.image_ids_I."""
    class_D: Ints
    """(D,) index into TruthColumns.category_ids_K."""
    boxes_D4: Floats
    score_D: Floats


def truth_columns(ground_truth: dict[str, Any]) -> TruthColumns:
    """The arrays of a validated COCO dict whose annotations all have area and iscrowd (`load_ground_truth`)."""
    rows = ground_truth["annotations"]
    images = sorted(ground_truth["images"], key=lambda row: row["id"])
    categories = sorted(ground_truth["categories"], key=lambda row: row["id"])
    image_ids_I, category_ids_K = _integers(images, "id"), _integers(categories, "id")
    return TruthColumns(
        image_ids_I=image_ids_I,
        image_names_I=tuple(str(row.get("file_name") or f"image {row['id']}") for row in images),
        category_ids_K=category_ids_K,
        category_names_K=tuple(str(row["name"]) for row in categories),
        image_N=np.searchsorted(image_ids_I, _integers(rows, "image_id")),
        class_N=np.searchsorted(category_ids_K, _integers(rows, "category_id")),
        boxes_N4=_boxes(rows),
        area_N=np.array([row["area"] for row in rows], dtype=np.float64),
        crowd_N=np.array([row["iscrowd"] for row in rows], dtype=bool),
    )


def detection_columns(truth: TruthColumns, results: list[dict[str, Any]]) -> DetectionColumns:
    """The arrays of validated COCO results, all of whose ids are in the ground truth."""
    return DetectionColumns(
        image_D=np.searchsorted(truth.image_ids_I, _integers(results, "image_id")),
        class_D=np.searchsorted(truth.category_ids_K, _integers(results, "category_id")),
        boxes_D4=_boxes(results),
        score_D=np.array([row["score"] for row in results], dtype=np.float64),
    )


def _integers(rows: list[dict[str, Any]], key: str) -> Ints:
    return np.array([row[key] for row in rows], dtype=np.int64)


def _boxes(rows: list[dict[str, Any]]) -> Floats:
    flat = chain.from_iterable([row["bbox"] for row in rows])
    return np.fromiter(flat, dtype=np.float64, count=4 * len(rows)).reshape(-1, 4)

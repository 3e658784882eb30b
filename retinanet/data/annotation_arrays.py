"""Annotations as columns. Imports no tensor library.

Legend: N annotations in file order, 4 box coordinates x, y, width, height.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class AnnotationArrays(NamedTuple):
    """The columns of valid annotations."""

    image_ids_N: NDArray[np.int64]
    category_ids_N: NDArray[np.int64]
    boxes_N4: NDArray[np.float64]
    """(N, 4) "bbox" as written."""
    areas_N: NDArray[np.float64]
    """(N,) "area"; NaN where it is missing."""
    crowd_N: NDArray[np.bool_]

    def image_index(self, ids: list[int]) -> NDArray[np.int64]:
        """(N,) the position in `ids`, which has all image ids, of each annotation's image."""
        order = np.argsort(ids)
        index: NDArray[np.int64] = order[np.searchsorted(np.array(ids)[order], self.image_ids_N)]
        return index


def annotation_arrays(rows: list[dict[str, Any]]) -> AnnotationArrays:
    """The columns of annotations that have passed `validate_ground_truth`."""
    count = len(rows)
    boxes = chain.from_iterable(row["bbox"] for row in rows)
    return AnnotationArrays(
        image_ids_N=np.fromiter((row["image_id"] for row in rows), np.int64, count),
        category_ids_N=np.fromiter((row["category_id"] for row in rows), np.int64, count),
        boxes_N4=np.fromiter(boxes, np.float64, 4 * count).reshape(-1, 4),
        areas_N=np.fromiter((row.get("area", np.nan) for row in rows), np.float64, count),
        crowd_N=np.fromiter((row.get("iscrowd", 0) for row in rows), bool, count),
    )

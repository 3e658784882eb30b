"""The content of an annotation file: read, normalised, checked as a whole, and ready for use.

One way for all readers of ground truth; those that need the image files go on in `content_with_files`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotation_arrays import AnnotationArrays, annotation_arrays
from retinanet.data.box_conventions import read_areas, read_boxes
from retinanet.data.class_names import class_notes
from retinanet.data.normalise import normalise_content
from retinanet.data.set_notes import set_notes
from retinanet.data.validate import validate_ground_truth
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json, without_garbage_collection


class Content(NamedTuple):
    """Valid content in COCO's own form."""

    data: dict[str, Any]
    arrays: AnnotationArrays
    notes: list[str]


def read_annotations(path: Path) -> object:
    """The JSON of an annotation file without "segmentation", except where that alone says where an object is.

    NaN is read as null.

    Raises DataError as `read_json`.
    """
    return read_json(path, hook=_without_mask, nan_as_null=True)


def _without_mask(row: dict[str, object]) -> dict[str, object]:
    if "segmentation" in row:
        box = row.get("bbox")
        if box and (type(box) is not list or any(box)):
            del row["segmentation"]
    return row


def scored_content(path: Path, data: object) -> Content:
    """Content for scoring, which needs neither image files nor sizes. Raises DataError with every error."""
    with without_garbage_collection():
        return _scored_content(path, data)


def _scored_content(path: Path, data: object) -> Content:
    data, notes, arrays = normalise_content(data)
    errors = validate_ground_truth(data, needs_files=False, annotations=arrays is None)
    if errors or not isinstance(data, dict):
        raise DataError(list_errors(f"{path}: this ground truth cannot be used", errors))
    content, errors = checked_content(data, arrays or annotation_arrays(data["annotations"]), notes)
    if errors:
        raise DataError(list_errors(f"{path}: this ground truth cannot be used", errors))
    return content


def checked_content(data: dict[str, Any], arrays: AnnotationArrays, notes: list[str]) -> tuple[Content, list[str]]:
    """Validated content with its boxes by the convention that explains them all, notes on the whole, and errors.

    arrays: of its annotations as they are.
    """
    limits_N2 = _limits(data["images"], arrays)
    reading = read_boxes(arrays.boxes_N4, arrays.areas_N, limits_N2)
    if reading.boxes_N4 is not None:
        areas_N = read_areas(arrays.boxes_N4, reading, arrays.areas_N)
        rows = [
            {**row, "bbox": box, **({"area": area} if "area" in row else {})}
            for row, box, area in zip(data["annotations"], reading.boxes_N4.tolist(), areas_N.tolist())
        ]
        data = {**data, "annotations": rows}
        arrays = arrays._replace(boxes_N4=reading.boxes_N4, areas_N=areas_N)
    notes = [*notes, *reading.notes, *set_notes(data, arrays, limits_N2)]
    notes += class_notes(data["categories"], set(np.unique(arrays.category_ids_N).tolist()))
    return Content(data, arrays, notes), reading.errors


def _limits(images: list[dict[str, Any]], arrays: AnnotationArrays) -> NDArray[np.float64]:
    """(N, 2) width and height of each annotation's image, NaN where they are unknown."""
    sizes_I2 = np.array([(_side(row.get("width")), _side(row.get("height"))) for row in images]).reshape(-1, 2)
    if not len(arrays.image_ids_N):
        return np.zeros((0, 2))
    limits_N2: NDArray[np.float64] = sizes_I2[arrays.image_index([row["id"] for row in images])]
    return limits_N2


def _side(value: object) -> float:
    return float(value) if type(value) is int and value > 0 else float("nan")

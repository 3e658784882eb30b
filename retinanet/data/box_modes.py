"""Annotations that say how their "bbox" is written, as detectron2's `bbox_mode`. Imports no tensor library."""

import math
import re
from typing import Any

from retinanet.data.notes import KindNotes

_KEYS = ("bbox_mode", "bbox_format", "box_mode", "box_format")
_NUMBERED = ("xyxy_abs", "xywh_abs", "xyxy_rel", "xywh_rel", "xywha_abs")
"""detectron2.structures.BoxMode by value."""
_NAMED = {
    "xyxy": "xyxy_abs", "pascal_voc": "xyxy_abs", "voc": "xyxy_abs", "xywh": "xywh_abs", "coco": "xywh_abs",
    "cxcywh": "cxcywh_abs", "yolo": "cxcywh_rel", "albumentations": "xyxy_rel",
}  # fmt: skip
"""Words of torchvision and Albumentations."""
_MODES = (*_NUMBERED, "cxcywh_abs", "cxcywh_rel")
_READ_AS = {
    "xyxy": "two corners [x1, y1, x2, y2]", "xywh": "[x, y, width, height]",
    "cxcywh": "[centre x, centre y, width, height]", "xywha": "[centre x, centre y, width, height, angle]",
}  # fmt: skip


def with_usual_boxes(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """The content with every "bbox" of another mode as [x, y, width, height] in pixels; nothing changes in place.

    A mode that is not known, and a box that does not fit its mode, is left as it is.
    """
    rows = data.get("annotations")
    if not isinstance(rows, list) or not any(key in row for row in rows if isinstance(row, dict) for key in _KEYS):
        return data
    images = data.get("images")
    sizes = {
        row.get("id"): (row.get("width"), row.get("height"))
        for row in (images if isinstance(images, list) else ())
        if isinstance(row, dict) and isinstance(row.get("id"), int | str)
    }
    return {**data, "annotations": [_usual(row, sizes, notes) for row in rows]}


def _usual(row: object, sizes: dict[Any, tuple[object, object]], notes: KindNotes) -> object:
    key = next((key for key in _KEYS if key in row), None) if isinstance(row, dict) else None
    if not isinstance(row, dict) or key is None:
        return row
    mode = _mode_of(row[key])
    image_id = row.get("image_id")
    size = sizes.get(image_id) if isinstance(image_id, int | str) else None
    box = _converted(row.get("bbox"), mode, size) if mode is not None else None
    if box is None or mode is None:
        notes.add(f"annotations have a {key!r} that is not known here or does not fit: it is not read", repr(row[key]))
        return row
    if mode != "xywh_abs":
        shape, unit = mode.split("_")
        where = "pixels" if unit == "abs" else "fractions of the image's size"
        read = [round(value, 3) for value in box]
        notes.add(f"boxes are read by their {key!r} as {_READ_AS[shape]} in {where}", f"{row['bbox']} is {read}")
    return {name: value for name, value in row.items() if name != key} | {"bbox": box}


def _mode_of(value: object) -> str | None:
    """One of _MODES; detectron2's number, its name as in "BoxMode.XYXY_ABS", or a word of _NAMED."""
    if type(value) is int and 0 <= value < len(_NUMBERED):
        return _NUMBERED[value]
    word = re.sub(r"^<?boxmode\.|:.*$", "", value.strip().lower()) if isinstance(value, str) else ""
    return _NAMED.get(word, word if word in _MODES else None)


def _converted(box: object, mode: str, size: tuple[object, object] | None) -> list[float] | None:
    """[x, y, width, height] in pixels; None where the box or the size does not fit the mode."""
    shape, unit = mode.split("_")
    values = box if isinstance(box, list) else []
    numbers = [float(value) for value in values if type(value) is int or type(value) is float]
    if len(numbers) != len(values) or len(numbers) != (5 if shape == "xywha" else 4):
        return None
    if unit == "rel":
        width, height = size or (None, None)
        if type(width) is not int or type(height) is not int or width < 1 or height < 1:
            return None
        numbers = [number * side for number, side in zip(numbers, (width, height, width, height))]
    a, b, c, d = numbers[:4]
    match shape:
        case "xyxy":
            return [a, b, c - a, d - b]
        case "cxcywh":
            return [a - c / 2, b - d / 2, c, d]
        case "xywha":
            cos, sin = abs(math.cos(math.radians(numbers[4]))), abs(math.sin(math.radians(numbers[4])))
            across, down = c * cos + d * sin, c * sin + d * cos
            return [a - across / 2, b - down / 2, across, down]
    return numbers

"""CVAT's own format, "CVAT for images 1.1": one XML file with the shapes of all images.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import defusedxml
from defusedxml.ElementTree import parse

from retinanet.data.file_names import SPLITS
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.labeled_shapes import Corners, labeled_set

_WITHOUT_BOX = ("points", "tag", "skeleton", "cuboid")


def read_cvat(file: Path, folder: Path) -> LabeledSet:
    """Boxes, polygons, polylines, ellipses and masks of a file, by subset. Raises DataError."""
    try:
        root = parse(file, forbid_dtd=True).getroot()
    except (OSError, ValueError, ElementTree.ParseError, defusedxml.DefusedXmlException) as error:
        raise DataError(f"{file}: malformed XML ({error})") from error
    assert root is not None
    if root.find("track") is not None:
        raise DataError(
            f"{file}: tracks of a film (CVAT for video 1.1), which has no boxes between key frames; export the task as "
            "CVAT for images 1.1 or COCO 1.0, with images"
        )
    errors: list[str] = []
    notes = KindNotes()
    splits: dict[str, dict[str, list[tuple[str, Corners]]]] = {}
    stated: dict[str, tuple[object, object]] = {}
    for number, image in enumerate(root.iter("image"), 1):
        name = (image.get("name") or "").strip()
        if not name:
            errors.append(f"{file}: image {number} has no name")
            continue
        subset = image.get("subset", "")
        shapes = splits.setdefault(SPLITS.get(subset.lower(), subset) or "all", {})
        boxes = shapes.setdefault(name, [])
        stated[name] = image.get("width"), image.get("height")
        for shape in image:
            try:
                corners = _corners(shape, notes)
            except (DataError, TypeError, ValueError) as error:
                errors.append(f"{file}: {name}: a {shape.tag} cannot be read: {error}")
                continue
            if corners is not None:
                boxes.append((str(shape.get("label", "")).strip(), corners))
    if set(splits) - set(SPLITS.values()):
        merged: dict[str, list[tuple[str, Corners]]] = {}
        for shapes in splits.values():
            merged |= shapes
        splits = {"all": merged}
    if not any(splits.values()) and not errors:
        errors.append(f"{file}: has no image")
    return labeled_set("CVAT for images", folder, splits, errors, notes, stated=stated)


def _corners(shape: ElementTree.Element, notes: KindNotes) -> Corners | None:
    """Corners of the box around a shape; None for one without."""
    if shape.tag in _WITHOUT_BOX:
        notes.add("points, skeletons, cuboids and tags have no box, and are left out", shape.get("label", ""))
        return None
    if not (shape.get("label") or "").strip():
        raise DataError("it has no label")
    given: Mapping[str, str] = shape.attrib
    match shape.tag:
        case "box":
            x1, y1, x2, y2 = (_number(given, key) for key in ("xtl", "ytl", "xbr", "ybr"))
            return _turned((x1, y1, x2, y2), float(given.get("rotation", 0)))
        case "polygon" | "polyline":
            points = [tuple(map(float, pair.split(","))) for pair in given["points"].split(";")]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            return min(xs), min(ys), max(xs), max(ys)
        case "ellipse":
            x, y, rx, ry = (_number(given, key) for key in ("cx", "cy", "rx", "ry"))
            return _turned((x - rx, y - ry, x + rx, y + ry), float(given.get("rotation", 0)))
        case "mask":
            x, y, w, h = (_number(given, key) for key in ("left", "top", "width", "height"))
            return x, y, x + w, y + h
        case other:
            raise DataError(f"shapes of the kind {other!r} are not known")


def _number(given: Mapping[str, str], key: str) -> float:
    if key not in given:
        raise DataError(f"it has no {key}")
    return float(given[key])


def _turned(corners: Corners, degrees: float) -> Corners:
    """Corners of the box around one that is turned about its centre."""
    if not degrees:
        return corners
    x1, y1, x2, y2 = corners
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    w, h = ((x2 - x1) * cos + (y2 - y1) * sin) / 2, ((x2 - x1) * sin + (y2 - y1) * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - w, y - h, x + w, y + h

"""Label Studio's own exports: JSON (tasks with their annotations) and JSON-MIN (the labels of each task).

https://labelstud.io/guide/export: x, y, width and height are percentages of the image's size, and a rotation is
clockwise, in degrees, about the upper left corner.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.labeled_shapes import Corners, around, labeled_set, unreadable_cause

_FORM = "Label Studio JSON"


def read_label_studio(file: Path, folder: Path) -> LabeledSet:
    """The tasks of a file. Brush strokes and key points have no box and are left out. Raises DataError."""
    content: Any = read_json(file)
    errors: list[str] = []
    notes = KindNotes()
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    stated: dict[str, tuple[object, object]] = {}
    for number, task in enumerate(content, 1):
        if not isinstance(task, dict):
            errors.append(f"{file}: task {number} is not an object")
            continue
        place = f"{file}: task {task.get('id', number)}"
        try:
            image = _image_of(task)
            results = _results_of(task, notes)
        except DataError as error:
            errors.append(f"{place}: {error}")
            continue
        boxes = shapes.setdefault(image, [])
        for result in results:
            if "original_width" in result:
                stated[image] = result["original_width"], result.get("original_height")
            try:
                found = _shape(result, notes)
            except (DataError, KeyError, TypeError, ValueError) as error:
                errors.append(f"{place}: a region cannot be read: {unreadable_cause(error)}")
                continue
            boxes += [found] if found is not None else []
    return labeled_set(_FORM, folder, {"all": shapes}, errors, notes, in_fractions=True, stated=stated)


def _image_of(task: Mapping[str, Any]) -> str:
    """The path or URL of a task's image: the only one, or that called image."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str) and _looks_like_file(value)}
    named = [value for key, value in texts.items() if key.lower() in ("image", "img", "photo", "picture")]
    found = named or list(dict.fromkeys(texts.values()))
    if len(found) != 1:
        raise DataError(f"which of its fields is the image? {', '.join(texts) or 'None is a path or URL'}")
    return found[0]


def _looks_like_file(text: str) -> bool:
    last = text.partition("?")[0].replace("\\", "/").rsplit("/", 1)[-1]
    return "." in last or "?d=" in text


def _results_of(task: Mapping[str, Any], notes: KindNotes) -> list[dict[str, Any]]:
    """The regions of a task, of one annotation; each with its labels."""
    if "data" not in task:
        lists = [value for value in task.values() if isinstance(value, list)]
        return [row for rows in lists for row in rows if isinstance(row, dict) and "original_width" in row]
    given = task.get("annotations", task.get("completions")) or []
    kept = [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")]
    if not kept and task.get("predictions"):
        notes.add("tasks have predictions only, and are read as empty", str(task.get("id")))
    if len(kept) > 1:
        notes.add("tasks have several annotations: the first is used", str(task.get("id")))
    rows = kept[0].get("result") or [] if kept else []
    regions: dict[object, dict[str, Any]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("value"), dict):
            raise DataError("its result is not a list of objects with a value")
        # A region and its label may be two results with one id.
        region = regions.setdefault(row.get("id", number), {})
        region |= row["value"] | {key: row[key] for key in row if key.startswith(("original_", "image_"))}
    return list(regions.values())


def _shape(region: Mapping[str, Any], notes: KindNotes) -> tuple[str, Corners] | None:
    """Class and corners, in fractions of the image; None for a region without a box."""
    labels = next((value for key, value in region.items() if key.endswith("labels") and isinstance(value, list)), None)
    if (
        "choices" in region
        or "text" in region
        or ("x" not in region and "points" not in region and "rle" not in region)
    ):
        return None  # of the whole image
    if not labels:
        notes.add("regions have no label, and are left out", f"{region.get('x')}, {region.get('y')}")
        return None
    if len(labels) > 1:
        raise DataError(f"it has several labels, {', '.join(map(str, labels))}; one is needed")
    if region.get("image_rotation"):
        raise DataError(
            f"the image was turned by {region['image_rotation']} degrees while it was labelled; export COCO"
        )
    corners = _corners(region)
    if corners is None:
        notes.add("brush strokes and key points have no box, and are left out", str(labels[0]))
        return None
    x1, y1, x2, y2 = corners
    return str(labels[0]).strip(), (x1 / 100, y1 / 100, x2 / 100, y2 / 100)


def _corners(region: Mapping[str, Any]) -> Corners | None:
    """Corners in percent; None for a region without a box."""
    if "points" in region:
        return around([x for x, _ in region["points"]], [y for _, y in region["points"]])
    if "radiusX" in region:
        x, y, rx, ry = (float(region[key]) for key in ("x", "y", "radiusX", "radiusY"))
        return x - rx, y - ry, x + rx, y + ry
    if "height" not in region or "rle" in region:
        return None
    x, y, w, h = (float(region[key]) for key in ("x", "y", "width", "height"))
    angle = math.radians(float(region.get("rotation") or 0))
    if not angle:
        return x, y, x + w, y + h
    # Angles are of the image as it is seen, percentages are not.
    across, down = float(region["original_width"]), float(region["original_height"])
    cos, sin = math.cos(angle), math.sin(angle)
    offsets = [(a * across, b * down) for a, b in ((0, 0), (w, 0), (0, h), (w, h))]
    xs = [x + (a * cos - b * sin) / across for a, b in offsets]
    ys = [y + (a * sin + b * cos) / down for a, b in offsets]
    return min(xs), min(ys), max(xs), max(ys)

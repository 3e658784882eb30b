"""JSON of Create ML, Datumaro and Supervisely.

Create ML     a list of images with labels; x and y are a box's centre (Apple, MLObjectDetector.DataSource)
Datumaro      one file a subset in annotations/, images in images/SUBSET/ (CVAT, OpenVINO)
Supervisely   meta.json, and for each DATASET/img/photo.jpg a DATASET/ann/photo.jpg.json
"""

import base64
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from retinanet.data.file_names import SPLITS, split_of_name
from retinanet.data.masks import mask_box
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.json_kinds import json_kind
from retinanet.prepare.labeled_shapes import Corners, around, labeled_set, unreadable_cause
from retinanet.prepare.listing import files_below

_UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)
_Split = dict[str, list[tuple[str, Corners]]]


def read_createml(file: Path, folder: Path) -> LabeledSet:
    """The images of a Create ML file. Raises DataError."""
    content: Any = read_json(file)
    errors: list[str] = []
    shapes: _Split = {}
    for number, row in enumerate(content, 1):
        try:
            boxes = shapes.setdefault(str(row["image"]), [])
            for found in row["annotations"]:
                place = found["coordinates"]
                x, y, w, h = (float(place[key]) for key in ("x", "y", "width", "height"))
                boxes.append((str(found["label"]).strip(), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        except _UNREADABLE as error:
            errors.append(f"{file}: image {number} cannot be read: {unreadable_cause(error)}")
    return labeled_set("Create ML JSON", folder, {"all": shapes}, errors, KindNotes())


def read_datumaro(files: Sequence[Path], folder: Path) -> LabeledSet:
    """The subsets of a Datumaro data set, one file each. Raises DataError."""
    errors: list[str] = []
    notes = KindNotes()
    splits: dict[str, _Split] = {}
    stated: dict[str, tuple[object, object]] = {}
    for file in files:
        content: Any = read_json(file)
        if json_kind(content) != "datumaro":
            continue
        subset = SPLITS.get(file.stem.lower(), "all" if len(files) == 1 else file.stem)
        shapes = splits.setdefault(subset, {})
        try:
            names = [str(row["name"]).strip() for row in content["categories"]["label"]["labels"]]
        except _UNREADABLE as error:
            errors.append(f"{file}: its categories have no list of labels: {unreadable_cause(error)}")
            continue
        for item in content["items"]:
            try:
                image = item.get("image") or item.get("media") or {}
                name = str(image.get("path") or item["id"])
                boxes = shapes.setdefault(name, [])
                height, width = image.get("size") or (None, None)
                stated[name] = width, height
                for found in item["annotations"]:
                    corners = _datumaro_corners(found, notes)
                    if corners is not None:
                        boxes.append((names[found["label_id"]], corners))
            except (DataError, *_UNREADABLE) as error:
                errors.append(
                    f"{file}: item {item.get('id') if isinstance(item, dict) else item!r}: {unreadable_cause(error)}"
                )
    return labeled_set("Datumaro JSON", folder, splits, errors, notes, stated=stated)


def _datumaro_corners(found: dict[str, Any], notes: KindNotes) -> Corners | None:
    match found["type"]:
        case "bbox":
            x, y, w, h = map(float, found["bbox"])
            return x, y, x + w, y + h
        case "polygon" | "polyline":
            return around(found["points"][::2], found["points"][1::2])
        case "mask":
            box = mask_box(found["rle"])
            if box is None:
                raise DataError("its mask cannot be read")
            x, y, w, h = box
            return x, y, x + w, y + h
        case kind:
            notes.add("annotations of other kinds have no box, and are left out", str(kind))
            return None


def read_supervisely(folder: Path) -> LabeledSet:
    """A Supervisely project: the folder of meta.json. Its data sets may be splits. Raises DataError."""
    errors: list[str] = []
    notes = KindNotes()
    splits: dict[str, _Split] = {}
    files = [file for file in files_below(folder) if file.parent.name == "ann" and file.suffix.lower() == ".json"]
    for file in files:
        content: Any = read_json(file)
        home = file.parent.parent.relative_to(folder)
        image = (home / "img" / file.stem).as_posix()
        boxes = splits.setdefault(split_of_name(home.name) or "all", {}).setdefault(image, [])
        try:
            for found in content["objects"]:
                corners = _supervisely_corners(found, notes)
                if corners is not None:
                    boxes.append((str(found["classTitle"]).strip(), corners))
        except (DataError, *_UNREADABLE) as error:
            errors.append(f"{file}: an object cannot be read: {unreadable_cause(error)}")
    if "all" in splits and len(splits) > 1:
        splits = {"all": {name: boxes for shapes in splits.values() for name, boxes in shapes.items()}}
    return labeled_set("Supervisely", folder, splits, errors, notes)


def _supervisely_corners(found: dict[str, Any], notes: KindNotes) -> Corners | None:
    match found["geometryType"]:
        case "rectangle" | "polygon" | "line":
            points = found["points"]["exterior"]
            return around([x for x, _ in points], [y for _, y in points])
        case "bitmap":
            x, y = map(float, found["bitmap"]["origin"])
            packed = base64.b64decode(found["bitmap"]["data"])
            try:
                width, height = Image.open(io.BytesIO(zlib.decompress(packed)), formats=["PNG"]).size
            except (OSError, zlib.error) as error:
                raise DataError(f"its bitmap cannot be read ({error})") from error
            return x, y, x + width, y + height
        case kind:
            notes.add("objects of other kinds have no box, and are left out", str(kind))
            return None

"""Labels of VIA and labelme: shapes in pixels whose images are named.

VIA        https://www.robots.ox.ac.uk/~vgg/software/via (annotations exported as JSON, or a saved project)
labelme    one JSON file an image, with `shapes` and `imagePath`
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.json_kinds import json_kind
from retinanet.prepare.labeled_shapes import Corners, around, labeled_set, unreadable_cause
from retinanet.prepare.listing import children, exists, has_images, is_image


def read_via(file: Path, folder: Path) -> LabeledSet:
    """Regions of a VIA export or project; their class is the only attribute that all regions have."""
    content: Any = read_json(file)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    return via_regions(file, folder, list(entries.values()))


def via_regions(file: Path, folder: Path, entries: Sequence[object]) -> LabeledSet:
    """`read_via` of the entries of a file, one for each image, or for each region of an image."""
    errors: list[str] = []
    notes = KindNotes()
    regions: list[tuple[str, dict[str, Any]]] = []
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    for row in (entry for entry in entries if isinstance(entry, dict) and "regions" in entry):
        name = row.get("filename")
        if not isinstance(name, str) or not name:
            errors.append(f"{file}: an image has the filename {name!r}; a name is needed")
            continue
        shapes.setdefault(name, [])
        try:
            regions += [(name, region) for region in _regions(row["regions"])]
        except DataError as error:
            errors.append(f"{file}: {name}: {error}")
    attribute = _class_attribute(file, [region for _, region in regions]) if regions else ""
    for name, region in regions:
        try:
            label = _via_class(region["region_attributes"].get(attribute))
            corners = _via_corners(region["shape_attributes"])
        except (DataError, KeyError, TypeError, ValueError) as error:
            errors.append(f"{file}: {name}: a region cannot be read: {unreadable_cause(error)}")
            continue
        if not label:
            notes.add(f"regions lack the attribute {attribute!r}, and are left out", name)
        elif corners is None:
            notes.add("points have no box, and are left out", name)
        else:
            shapes[name].append((label, corners))
    return labeled_set("VIA", folder, {"all": shapes}, errors, notes)


def _regions(regions: object) -> list[dict[str, Any]]:
    """Regions of one image: a list, or in old versions a mapping. Raises DataError for anything else."""
    found = list(regions.values()) if isinstance(regions, dict) else regions or []
    parts = ("shape_attributes", "region_attributes")
    if not isinstance(found, list) or not all(
        isinstance(region, dict) and all(isinstance(region.get(part), dict) for part in parts) for region in found
    ):
        raise DataError("its regions are not a list of objects with shape_attributes and region_attributes")
    return found


def _via_class(value: object) -> str:
    """The class that an attribute has: a text, or the one box of several that is ticked; empty for none."""
    if isinstance(value, dict):
        ticked = [str(name) for name, chosen in value.items() if chosen]
        if len(ticked) > 1:
            raise DataError(f"it has several classes, {', '.join(ticked)}; one is needed")
        return ticked[0].strip() if ticked else ""
    return "" if value is None else _label(value)


def _label(value: object) -> str:
    """A class's name, a text or a whole number. Raises DataError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"its class is {value!r}; a name is needed")
    return str(value).strip()


def _class_attribute(file: Path, regions: list[dict[str, Any]]) -> str:
    """The name of the attribute that holds the class. Raises DataError where several could, naming them."""
    names = sorted({str(name) for region in regions for name in region["region_attributes"]})
    usual = [name for name in names if name.lower() in ("class", "label", "type", "category", "name", "object")]
    chosen = names if len(names) == 1 else usual
    if not names:
        raise DataError(f"{file}: no region has an attribute, so none has a class; add the attribute class in VIA")
    if len(chosen) != 1:
        raise DataError(
            f"{file}: which region attribute is the class? Attributes are {', '.join(names)}; keep one, or call one of "
            "them class"
        )
    return str(chosen[0])


def _via_corners(shape: Mapping[str, Any]) -> Corners | None:
    """Corners of the box around a shape; None for a point."""
    match shape["name"]:
        case "rect":
            x, y = float(shape["x"]), float(shape["y"])
            return x, y, x + float(shape["width"]), y + float(shape["height"])
        case "circle":
            x, y, r = (float(shape[key]) for key in ("cx", "cy", "r"))
            return x - r, y - r, x + r, y + r
        case "ellipse":
            x, y, rx, ry = (float(shape[key]) for key in ("cx", "cy", "rx", "ry"))
            return x - rx, y - ry, x + rx, y + ry
        case "polygon" | "polyline":
            return around(shape["all_points_x"], shape["all_points_y"])
        case "point":
            return None
        case other:
            raise DataError(f"shapes of the kind {other!r} are not known")


def read_labelme(folder: Path, files: Iterable[Path]) -> LabeledSet:
    """One JSON file an image; rectangles, polygons, circles and lines by their points. Points alone are left out.

    The image is the file that imagePath names next to the JSON file, otherwise the one called like the JSON file.
    Files of another kind are passed over.
    """
    errors: list[str] = []
    notes = KindNotes()
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    stated: dict[str, tuple[object, object]] = {}
    is_without_images = not has_images(folder)
    for file in files:
        content: Any = read_json(file)
        if json_kind(content) != "labelme":
            notes.add("JSON files are of another kind, and are left out", file.name)
            continue
        if is_without_images and content.get("imageData"):
            raise DataError(
                f"{folder}: the images are only within the JSON files of labelme (imageData); write each out, with "
                f"labelme: labelme_export_json {file} -o FOLDER"
            )
        name = _labelme_image(file, str(content["imagePath"] or ""), folder)
        boxes = shapes.setdefault(name, [])
        stated[name] = content.get("imageWidth"), content.get("imageHeight")
        found = content["shapes"]
        if not isinstance(found, list) or not all(isinstance(shape, dict) for shape in found):
            errors.append(f"{file}: its shapes are not a list of objects")
            continue
        for number, shape in enumerate(found, 1):
            try:
                corners = _labelme_corners(shape)
                if corners is None:
                    notes.add("points have no box, and are left out", file.name)
                    continue
                label = _label(shape["label"])
                if not label:
                    raise DataError("its label is empty; give it a class")
                if shape.get("difficult") is True:
                    notes.add("objects are marked as difficult, which is not read: they count as objects", file.name)
                boxes.append((label, corners))
            except (DataError, KeyError, TypeError, ValueError) as error:
                errors.append(f"{file}: shape {number} cannot be read: {unreadable_cause(error)}")
    return labeled_set("labelme", folder, {"all": shapes}, errors, notes, stated=stated)


def _labelme_image(file: Path, written: str, folder: Path) -> str:
    """The image of a JSON file, relative to the folder; as written where there is none near it."""
    near: Path | None = file.parent / written.replace("\\", "/")
    if not written or near is None or not exists(near) or not is_image(near):
        near = next((one for one in children(file.parent) if one.stem == file.stem and is_image(one)), None)
    if near is None or not near.resolve().is_relative_to(folder.resolve()):
        return written
    return near.resolve().relative_to(folder.resolve()).as_posix()


def _labelme_corners(shape: Mapping[str, Any]) -> Corners | None:
    points = shape["points"]
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise DataError("its points are not a list of pairs [x, y]")
    points = [(float(x), float(y)) for x, y in points]
    if shape.get("shape_type") == "point" or len(points) < 2:
        return None
    if shape.get("shape_type") == "circle" and len(points) == 2:
        (x, y), (rim_x, rim_y) = points
        r = math.hypot(rim_x - x, rim_y - y)
        return x - r, y - r, x + r, y + r
    return around([x for x, _ in points], [y for _, y in points])

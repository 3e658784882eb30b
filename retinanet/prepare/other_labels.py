"""Labels of VIA and labelme: shapes in pixels whose images are named.

VIA        https://www.robots.ox.ac.uk/~vgg/software/via (annotations exported as JSON, or a saved project)
labelme    one JSON file an image, with `shapes` and `imagePath`
"""

import glob
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retinanet.data.file_names import FolderIndex
from retinanet.data.find_images import image_suffixes
from retinanet.data.images import image_header
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import (
    LabeledBox,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    refuse_errors,
)

Corners = tuple[float, float, float, float]
ROUNDING_PIXELS = 1.0
"""A box may leave its image by so much without a note."""


def find_image(index: FolderIndex, folder: Path, written: str, notes: KindNotes) -> str:
    """The image of the folder that a path, perhaps of another machine, means. Raises DataError for none, or several."""
    if written in index.images:
        return written
    found = index.find(written)
    if found is None:
        raise DataError(f"no image {written} in {folder}")
    if len(found.paths) > 1:
        raise DataError(f"{written}: {len(found.paths)} images fit, such as {found.paths[0]} and {found.paths[1]}")
    if found.paths[0] not in index.images:
        raise DataError(f"{written}: {found.paths[0]} is not an image")
    notes.add(f"image names {found.kind}: the files that they mean are used", f"{written} is {found.paths[0]}")
    return found.paths[0]


def labeled_set(
    form: str, folder: Path, shapes: Mapping[str, list[tuple[str, Corners]]], errors: list[str], notes: KindNotes
) -> LabeledSet:
    """One split "all" of the images that `shapes` names, with the boxes (class, corners in pixels) of each.

    Images that are not named are left out and counted. Raises DataError with `errors` and those that are found.
    """
    index = FolderIndex(str(folder))
    images: dict[str, LabeledImage] = {}
    numbers = [number for boxes in shapes.values() for _, corners in boxes for number in corners]
    in_fractions = any(numbers) and all(0 <= number <= 1 for number in numbers)
    if in_fractions:
        notes.say("no corner is above 1: all are read as fractions of the image's size")
    for written, boxes in shapes.items():
        try:
            name = find_image(index, folder, written, notes)
            height, width = image_header(folder / name)
            sides = (width, height) if in_fractions else (1, 1)
            labeled = [
                LabeledBox(label, box_within(corners, sides, (height, width), notes), False) for label, corners in boxes
            ]
        except DataError as error:
            errors.append(str(error) if written in str(error) else f"{written}: {error}")
            continue
        earlier = images[name].boxes if name in images else []
        images[name] = LabeledImage(name, (height, width), earlier + labeled)
    refuse_errors(folder, form, errors)
    for name in sorted(index.images - images.keys()):
        notes.add("images are named by no label, and left out", name)
    return LabeledSet(
        form=form,
        splits={"all": LabeledSplit(folder, list(images.values()))},
        classes=sorted({box.name for image in images.values() for box in image.boxes}),
        notes=notes.texts(),
    )


def box_within(
    corners: Corners, unit: tuple[int, int], size: tuple[int, int], notes: KindNotes
) -> tuple[float, float, float, float]:
    """(x, y, w, h) in pixels of corners, cut at the image's border. Raises DataError for a box outside the image.

    unit: pixels that 1 is in x and in y. size: (height, width) of the image.
    """
    height, width = size
    x1, y1, x2, y2 = (number * unit[place % 2] for place, number in enumerate(corners))
    if not all(map(math.isfinite, corners)):
        raise DataError(f"box {corners} is not finite")
    if max(x1, x2) <= 0 or max(y1, y2) <= 0 or min(x1, x2) >= width or min(y1, y2) >= height:
        raise DataError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is outside the image of {width} x {height}")
    if x2 < x1 or y2 < y1:
        raise DataError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is reversed")
    if min(x1, y1, width - x2, height - y2) < -ROUNDING_PIXELS:
        notes.add("boxes are cut at the border of the image", f"({x1:g}, {y1:g}, {x2:g}, {y2:g})")
    x1, x2, y1, y2 = max(x1, 0.0), min(x2, width), max(y1, 0.0), min(y2, height)
    return round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)


def around(xs: object, ys: object) -> Corners:
    """Corners of the box around points."""
    if not isinstance(xs, list) or not isinstance(ys, list):
        raise DataError("its points are not lists of x and of y")
    xs, ys = list(map(float, xs)), list(map(float, ys))
    if not xs or len(xs) != len(ys):
        raise DataError(f"{len(xs)} x and {len(ys)} y of a shape's points")
    return min(xs), min(ys), max(xs), max(ys)


def json_kind(content: object) -> str:
    """`coco`, `via`, `labelme`, or what else the content of a JSON file is, for a message."""
    if isinstance(content, list):
        is_results = content and isinstance(content[0], dict) and {"image_id", "score"} <= content[0].keys()
        return "detections (COCO results), not annotations" if is_results else "a list"
    if not isinstance(content, dict):
        return "not an object"
    if {"images", "annotations"} <= content.keys():
        return "coco"
    if {"shapes", "imagePath"} <= content.keys():
        return "labelme"
    entries = content.get("_via_img_metadata", content)
    rows = list(entries.values())[:3] if isinstance(entries, dict) else []
    if rows and all(isinstance(row, dict) and {"filename", "regions"} <= row.keys() for row in rows):
        return "via"
    return f"a JSON object with {', '.join(map(str, list(content)[:4])) or 'nothing in it'}"


def read_via(file: Path, folder: Path) -> LabeledSet:
    """Regions of a VIA export or project; their class is the only attribute that all regions have."""
    content: Any = read_json(file)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    errors: list[str] = []
    notes = KindNotes()
    regions: list[tuple[str, dict[str, Any]]] = []
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    for row in (entry for entry in entries.values() if isinstance(entry, dict) and "regions" in entry):
        name = row.get("filename")
        if not isinstance(name, str) or not name:
            errors.append(f"{file}: an image has the filename {name!r}; a name is needed")
            continue
        shapes[name] = []
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
            errors.append(f"{file}: {name}: a region cannot be read: {_cause(error)}")
            continue
        if not label:
            notes.add(f"regions lack the attribute {attribute!r}, and are left out", name)
        elif corners is None:
            notes.add("points have no box, and are left out", name)
        else:
            shapes[name].append((label, corners))
    return labeled_set("VIA", folder, shapes, errors, notes)


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


def _cause(error: Exception) -> str:
    """Why a shape cannot be read, in words about the file and not about Python."""
    if isinstance(error, DataError):
        return str(error)
    return f"it has no {error}" if isinstance(error, KeyError) else f"a value is not a number ({error})"


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
    for file in files:
        content: Any = read_json(file)
        if json_kind(content) != "labelme":
            notes.add("JSON files are of another kind, and are left out", file.name)
            continue
        boxes = shapes.setdefault(_labelme_image(file, str(content["imagePath"] or ""), folder), [])
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
                boxes.append((label, corners))
            except (DataError, KeyError, TypeError, ValueError) as error:
                errors.append(f"{file}: shape {number} cannot be read: {_cause(error)}")
    return labeled_set("labelme", folder, shapes, errors, notes)


def _labelme_image(file: Path, written: str, folder: Path) -> str:
    """The image of a JSON file, relative to the folder; as written where there is none near it."""
    same = (near for near in sorted(file.parent.glob(f"{glob.escape(file.stem)}.*")) if _is_image(near))
    near = file.parent / written if written and _is_image(file.parent / written) else next(same, None)
    if near is None or not near.resolve().is_relative_to(folder.resolve()):
        return written
    return near.resolve().relative_to(folder.resolve()).as_posix()


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in image_suffixes() and file.is_file()


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

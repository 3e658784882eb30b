"""Labels of VIA, labelme and tables (CSV): shapes in pixels whose images are named.

VIA        https://www.robots.ox.ac.uk/~vgg/software/via (annotations exported as JSON, or a saved project)
labelme    one JSON file an image, with `shapes` and `imagePath`
CSV        a heading with filename (or image), class (or label) and xmin, ymin, xmax, ymax, as Roboflow and TensorFlow's
           Object Detection API have it, or lines of path,x1,y1,x2,y2,class, as keras-retinanet has it
"""

import csv
import glob
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retinanet.data.file_names import FolderIndex
from retinanet.data.images import image_header
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import (
    IMAGE_SUFFIXES,
    LabeledBox,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    read_lines,
    refuse_errors,
)

Corners = tuple[float, float, float, float]
TABLE_NAMES = {
    "filename": ("filename", "file", "image", "image_name", "image_path", "path", "image_id"),
    "class": ("class", "label", "name", "class_name", "category"),
    "xmin": ("xmin", "x1", "x_min", "left"),
    "ymin": ("ymin", "y1", "y_min", "top"),
    "xmax": ("xmax", "x2", "x_max", "right"),
    "ymax": ("ymax", "y2", "y_max", "bottom"),
}
"""Headings of a table's columns."""


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
    for written, boxes in shapes.items():
        try:
            name = find_image(index, folder, written, notes)
            height, width = image_header(folder / name)
            labeled = [LabeledBox(label, box_within(corners, height, width), False) for label, corners in boxes]
        except DataError as error:
            errors.append(str(error) if written in str(error) else f"{written}: {error}")
            continue
        earlier = images[name].boxes if name in images else []
        images[name] = LabeledImage(name, (height, width), earlier + labeled)
    refuse_errors(folder, form, errors)
    for name in sorted(index.images - images.keys()):
        notes.add("images are named by no label: they are left out", name)
    return LabeledSet(
        form=form,
        splits={"all": LabeledSplit(folder, list(images.values()))},
        classes=sorted({box.name for image in images.values() for box in image.boxes}),
        notes=notes.texts(),
    )


def box_within(corners: Corners, height: int, width: int) -> tuple[float, float, float, float]:
    """(x, y, w, h) of corners in pixels, cut at the image's border. Raises DataError for a box outside the image."""
    x1, y1, x2, y2 = corners
    if not all(map(math.isfinite, corners)):
        raise DataError(f"box {corners} is not finite")
    if max(x1, x2) <= 0 or max(y1, y2) <= 0 or min(x1, x2) >= width or min(y1, y2) >= height:
        raise DataError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is outside the image of {width} x {height}")
    if x2 < x1 or y2 < y1:
        raise DataError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is reversed")
    x1, x2, y1, y2 = max(x1, 0.0), min(x2, width), max(y1, 0.0), min(y2, height)
    return round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)


def around(xs: Iterable[float], ys: Iterable[float]) -> Corners:
    """Corners of the box around points."""
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
    rows = [entry for entry in entries.values() if isinstance(entry, dict) and "regions" in entry]
    regions = [(str(row.get("filename")), region) for row in rows for region in _regions(row)]
    attribute = _class_attribute(file, [region for _, region in regions])
    shapes: dict[str, list[tuple[str, Corners]]] = {str(row.get("filename")): [] for row in rows}
    for name, region in regions:
        label = str(region["region_attributes"].get(attribute, "")).strip()
        if not label:
            notes.add(f"regions lack the attribute {attribute!r}: they are left out", name)
            continue
        try:
            shapes[name].append((label, _via_corners(region["shape_attributes"])))
        except (DataError, KeyError, TypeError, ValueError) as error:
            errors.append(f"{file}: {name}: a region cannot be read ({error})")
    return labeled_set("VIA", folder, shapes, errors, notes)


def _regions(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Regions of one image: a list, or in old versions a mapping."""
    regions = row["regions"]
    found = regions.values() if isinstance(regions, dict) else regions or []
    return [region for region in found if {"shape_attributes", "region_attributes"} <= region.keys()]


def _class_attribute(file: Path, regions: list[dict[str, Any]]) -> str:
    """The name of the attribute that holds the class. Raises DataError where several could, naming them."""
    names = sorted({name for region in regions for name in region["region_attributes"]})
    usual = [name for name in names if name.lower() in ("class", "label", "type", "category", "name", "object")]
    chosen = names if len(names) == 1 else usual
    if len(chosen) != 1:
        found = ", ".join(names) or "none"
        raise DataError(
            f"{file}: which region attribute is the class? Attributes are {found}; keep one, or call one of them class"
        )
    return str(chosen[0])


def _via_corners(shape: Mapping[str, Any]) -> Corners:
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
        case other:
            raise DataError(f"a {other} has no box")


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
            notes.add("JSON files are of another kind: they are left out", file.name)
            continue
        boxes = shapes.setdefault(_labelme_image(file, str(content["imagePath"] or ""), folder), [])
        for shape in content["shapes"]:
            try:
                corners = _labelme_corners(shape)
                if corners is None:
                    notes.add("points have no box: they are left out", file.name)
                else:
                    boxes.append((str(shape["label"]).strip(), corners))
            except (DataError, KeyError, TypeError, ValueError) as error:
                errors.append(f"{file}: a shape cannot be read ({error})")
    return labeled_set("labelme", folder, shapes, errors, notes)


def _labelme_image(file: Path, written: str, folder: Path) -> str:
    """The image of a JSON file, relative to the folder; as written where there is none near it."""
    same = (near for near in sorted(file.parent.glob(f"{glob.escape(file.stem)}.*")) if _is_image(near))
    near = file.parent / written if written and _is_image(file.parent / written) else next(same, None)
    if near is None or not near.resolve().is_relative_to(folder.resolve()):
        return written
    return near.resolve().relative_to(folder.resolve()).as_posix()


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()


def _labelme_corners(shape: Mapping[str, Any]) -> Corners | None:
    points = shape["points"]
    if shape.get("shape_type") == "point" or len(points) < 2:
        return None
    if shape.get("shape_type") == "circle":
        (x, y), (rim_x, rim_y) = points
        r = math.hypot(rim_x - x, rim_y - y)
        return x - r, y - r, x + r, y + r
    return around([x for x, _ in points], [y for _, y in points])


def read_table(file: Path, folder: Path) -> LabeledSet:
    """Lines of a CSV file, one box each; a line without a box is an image without objects."""
    rows = list(csv.reader(io.StringIO("\n".join(read_lines(file)))))
    errors: list[str] = []
    columns = table_columns(rows[0]) if rows else None
    if columns is None:
        columns = dict(zip(("filename", "xmin", "ymin", "xmax", "ymax", "class"), range(6)))
    else:
        rows = rows[1:]
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    for number, row in enumerate(rows, 1):
        if not any(row):
            continue
        try:
            boxes = shapes.setdefault(row[columns["filename"]].strip(), [])
            corners = [row[columns[side]].strip() for side in ("xmin", "ymin", "xmax", "ymax")]
            if any(corners):
                x1, y1, x2, y2 = map(float, corners)
                boxes.append((row[columns["class"]].strip(), (x1, y1, x2, y2)))
        except (IndexError, ValueError) as error:
            errors.append(f"{file}: box {number} ({','.join(row)}) cannot be read ({error})")
    return labeled_set("a table (CSV)", folder, shapes, errors, KindNotes())


def table_columns(heading: list[str]) -> dict[str, int] | None:
    """Column of each of TABLE_NAMES; None if a row is no heading that has them all."""
    found = [text.strip().lower() for text in heading]
    columns = {
        name: next((found.index(word) for word in words if word in found), -1) for name, words in TABLE_NAMES.items()
    }
    return None if -1 in columns.values() else columns

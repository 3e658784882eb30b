"""Labels of VIA, labelme and tables (CSV): shapes in pixels whose images are named.

VIA        https://www.robots.ox.ac.uk/~vgg/software/via (annotations exported as JSON, or a saved project)
labelme    one JSON file an image, with `shapes` and `imagePath`
CSV        a heading with filename (or image), class (or label) and xmin, ymin, xmax, ymax, as Roboflow and TensorFlow's
           Object Detection API have it, or lines of path,x1,y1,x2,y2,class, as keras-retinanet has it
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retinanet.data.images import image_header
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import (
    IMAGE_SUFFIXES,
    LabeledBox,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    Notes,
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


class ImageIndex:
    """The image files of a folder and the folders below it, by path and by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
                self._by_name.setdefault(file.name, []).append(file)

    def all(self) -> list[Path]:
        """Every image file."""
        return [file for files in self._by_name.values() for file in files]

    def find(self, written: str) -> Path:
        """The file that a path, perhaps of another machine, names. Raises DataError if there is none, or several."""
        parts = [part for part in written.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")]
        files = self._by_name.get(parts[-1] if parts else "", [])
        for length in range(len(parts), 0, -1):
            near = [file for file in files if file.parts[-length:] == tuple(parts[-length:])]
            if len(near) == 1:
                return near[0]
            if near:
                raise DataError(f"{written}: {len(near)} images have this name, such as {near[0]} and {near[1]}")
        raise DataError(f"no image {written} in {self.folder}")


def labeled_set(
    form: str, index: ImageIndex, shapes: Mapping[str, list[tuple[str, Corners]]], errors: list[str], notes: Notes
) -> LabeledSet:
    """One split "all" of the images that `shapes` names, with the boxes (class, corners in pixels) of each.

    Images that are not named are left out and counted. Raises DataError with `errors` and those that are found.
    """
    images: dict[Path, LabeledImage] = {}
    for written, boxes in shapes.items():
        try:
            file = index.find(written)
            height, width = image_header(file)
            labeled = [LabeledBox(name, box_within(corners, height, width), False) for name, corners in boxes]
        except DataError as error:
            errors.append(str(error) if written in str(error) else f"{written}: {error}")
            continue
        earlier = images[file].boxes if file in images else []
        images[file] = LabeledImage(file.relative_to(index.folder).as_posix(), (height, width), earlier + labeled)
    refuse_errors(index.folder, form, errors)
    for file in index.all():
        if file not in images:
            notes.add("images that no label names, left out", file.name)
    classes = sorted({box.name for image in images.values() for box in image.boxes})
    return LabeledSet(
        form=form,
        splits={"all": LabeledSplit(index.folder, list(images.values()))},
        classes=classes,
        notes=notes.lines(),
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


def read_via(file: Path, folder: Path) -> LabeledSet:
    """Regions of a VIA export or project; their class is the only attribute that all regions have."""
    content: Any = read_json(file)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    errors: list[str] = []
    notes = Notes()
    rows = [entry for entry in entries.values() if isinstance(entry, dict) and "regions" in entry]
    regions = [(str(row.get("filename")), region) for row in rows for region in _regions(row)]
    attribute = _class_attribute(file, [region for _, region in regions])
    shapes: dict[str, list[tuple[str, Corners]]] = {str(row.get("filename")): [] for row in rows}
    for name, region in regions:
        label = str(region["region_attributes"].get(attribute, "")).strip()
        if not label:
            notes.add(f"regions without the attribute {attribute!r}, left out", name)
            continue
        try:
            shapes[name].append((label, _via_corners(region["shape_attributes"])))
        except (DataError, KeyError, TypeError, ValueError) as error:
            errors.append(f"{file}: {name}: a region cannot be read ({error})")
    return labeled_set("VIA", ImageIndex(folder), shapes, errors, notes)


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


def read_labelme(folder: Path, files: list[Path]) -> LabeledSet:
    """One JSON file an image; rectangles, polygons, circles and lines by their points. Points alone are left out."""
    errors: list[str] = []
    notes = Notes()
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    index = ImageIndex(folder)
    for file in files:
        content: Any = read_json(file)
        written = str(content.get("imagePath") or "")
        near = next((p for p in sorted(file.parent.glob(f"{file.stem}.*")) if p.suffix.lower() in IMAGE_SUFFIXES), None)
        try:
            index.find(written)
        except DataError:
            if near is not None:
                notes.add("image paths written for another place, found here", f"{written} is {near.name}")
                written = near.relative_to(folder).as_posix()
        boxes = shapes.setdefault(written, [])
        for shape in content["shapes"]:
            try:
                corners = _labelme_corners(shape)
            except (DataError, KeyError, TypeError, ValueError) as error:
                errors.append(f"{file}: a shape cannot be read ({error})")
                continue
            if corners is None:
                notes.add("points, which have no box, left out", file.name)
            else:
                boxes.append((str(shape["label"]).strip(), corners))
    return labeled_set("labelme", index, shapes, errors, notes)


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
    return labeled_set("a table (CSV)", ImageIndex(folder), shapes, errors, Notes())


def table_columns(heading: list[str]) -> dict[str, int] | None:
    """Column of each of TABLE_NAMES; None if a row is no heading that has them all."""
    found = [text.strip().lower() for text in heading]
    columns = {
        name: next((found.index(word) for word in words if word in found), -1) for name, words in TABLE_NAMES.items()
    }
    return None if -1 in columns.values() else columns

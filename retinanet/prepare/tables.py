"""Tables of boxes (CSV), one box a line, from any country's spreadsheet.

A heading has filename (or image), class (or label) and xmin, ymin, xmax, ymax, as Roboflow and TensorFlow's Object
Detection API write it, or x, y, width and height of the box (makesense.ai), also in one cell; without a heading, lines
are path,x1,y1,x2,y2,class, as keras-retinanet has them. Between the cells is a comma, a semicolon or a tab. Tables of
Open Images have codes as classes, which class-descriptions*.csv names. VIA's have JSON in their cells.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet.data.box_values import parsed_box
from retinanet.data.file_names import split_of_name
from retinanet.data.find_images import image_suffixes
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import LabeledSet, read_lines, read_number
from retinanet.prepare.labeled_shapes import Corners, labeled_set
from retinanet.prepare.listing import files_of
from retinanet.prepare.other_labels import via_regions

_COMMON = {
    "filename": ("filename", "file", "image", "imagename", "imagepath", "path", "filepath", "imageid", "img"),
    "class": ("class", "label", "name", "classname", "labelname", "category", "categoryname"),
}
_CORNERS = _COMMON | {
    "xmin": ("xmin", "x1", "left"),
    "ymin": ("ymin", "y1", "top"),
    "xmax": ("xmax", "x2", "right"),
    "ymax": ("ymax", "y2", "bottom"),
}
_CENTRES = _COMMON | {
    "cx": ("xcenter", "xcentre", "cx", "centerx", "centrex", "xc"),
    "cy": ("ycenter", "ycentre", "cy", "centery", "centrey", "yc"),
    "w": ("bboxwidth", "boxwidth", "w", "width"),
    "h": ("bboxheight", "boxheight", "h", "height"),
}
_SIZES = _COMMON | {
    "x": ("bboxx", "x", "xmin", "left"),
    "y": ("bboxy", "y", "ymin", "top"),
    "w": ("bboxwidth", "boxwidth", "w", "width"),
    "h": ("bboxheight", "boxheight", "h", "height"),
}
_IN_ONE = _COMMON | {"bbox": ("bbox", "boundingbox")}
"""Headings of a table's columns, without signs between their letters; the first that is there is used."""
_ASIDE = {"group": ("isgroupof",), "confidence": ("confidence", "conf", "score")}
"""Headings of columns that a table may have and that change what a box means."""
_BARE = {"filename": 0, "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "class": 5}
"""Columns of a table without a heading."""
_VIA = {"filename", "regionshapeattributes", "regionattributes"}
_SEPARATORS = ",;\t"

_Split = dict[str, list[tuple[str, Corners]]]
_Stated = dict[str, tuple[object, object]]


def read_tables(files: Sequence[Path], folder: Path) -> LabeledSet:
    """CSV files of boxes, one line each; a line without a box is an image without objects.

    Several files are splits, which their names tell. Raises DataError.
    """
    if len(files) == 1 and _is_via(read_lines(files[0])):
        return _read_via_table(files[0], folder)
    splits = [split_of_name(file.stem) for file in files] if len(files) > 1 else ["all"]
    if None in splits or len(set(splits)) < len(files):
        names = ", ".join(file.name for file in files)
        raise DataError(
            f"{files[0].parent}: several tables of boxes: {names}; give one of them, or name them train, val and test"
        )
    notes = KindNotes()
    errors: list[str] = []
    stated: _Stated = {}
    shapes = {str(split): _read_table(file, stated, notes, errors) for split, file in zip(splits, files)}
    shapes = _with_described_classes(shapes, files[0].parent, notes)
    return labeled_set("a table (CSV)", folder, shapes, errors, notes, stated=stated)


def _read_table(file: Path, stated: _Stated, notes: KindNotes, errors: list[str]) -> _Split:
    lines = _rows_of(file)
    skipped = len(read_lines(file)) - len(lines)
    shapes: _Split = {}
    separator = _separator(lines)
    if separator is None:
        raise DataError(f"{file}: {describe_heading(lines)}")
    if separator != ",":
        notes.say(f"cells are separated by {'tabs' if separator != ';' else 'semicolons'}")
    try:
        rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
        columns = _BARE
        for row in rows:
            heading = table_columns(row)
            if heading is not None and rows.line_num > 1:
                notes.add("headings are repeated within the table", f"line {rows.line_num}")
            elif heading is not None:
                columns = heading
                columns |= {
                    name: n for n, text in enumerate(row) for name, words in _ASIDE.items() if _plain(text) in words
                }
                if "w" in columns:
                    x, y, w, h = (row[columns[side]].strip() for side in _box_columns(columns))
                    place = "centre" if "cx" in columns else "upper left corner"
                    notes.say(f"{x}, {y} are read as the {place} of a box, {w}, {h} as its size")
            elif any(row):
                try:
                    _add_row(row, columns, shapes, stated, notes)
                except DataError as error:
                    errors.append(f"{file}:{rows.line_num + skipped}: {error}")
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({error})") from error
    return shapes


def _box_columns(columns: Mapping[str, int]) -> tuple[str, str, str, str]:
    """The four columns of a box."""
    if "cx" in columns:
        return "cx", "cy", "w", "h"
    return ("x", "y", "w", "h") if "w" in columns else ("xmin", "ymin", "xmax", "ymax")


def _add_row(row: list[str], columns: Mapping[str, int], shapes: _Split, stated: _Stated, notes: KindNotes) -> None:
    """The box of a line. Raises DataError, to which the caller adds the place."""
    if len(row) <= max(columns.values()):
        raise DataError(f"{len(row)} cells, but {max(columns.values()) + 1} are needed")
    cells = {name: row[column].strip() for name, column in columns.items()}
    if not cells["filename"]:
        raise DataError("names no image")
    boxes = shapes.setdefault(cells["filename"], [])
    if "across" in cells:
        stated[cells["filename"]] = cells["across"], cells["down"]
    given = [cells["bbox"]] if "bbox" in cells else [cells[side] for side in _box_columns(columns)]
    if not any(given):
        return
    a, b, c, d = _box_in_one(given[0], notes) if "bbox" in cells else (read_number(number, notes) for number in given)
    if not cells["class"]:
        raise DataError("the box has no class")
    if cells.get("group") == "1":
        notes.add("boxes are around groups of objects (IsGroupOf): they count as one object", cells["filename"])
    if cells.get("confidence", "1") not in ("", "1", "1.0"):
        kind = "boxes have a confidence, which is left out: are these predictions?"
        notes.add(kind, f"{cells['confidence']} in {cells['filename']}")
    if "cx" in cells:
        corners = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    else:
        corners = (a, b, a + c, b + d) if "w" in cells or "bbox" in cells else (a, b, c, d)
    boxes.append((cells["class"], corners))


def _box_in_one(text: str, notes: KindNotes) -> list[float]:
    """The numbers of a cell such as "[834.0, 222.0, 56.0, 36.0]". Raises DataError."""
    parsed = parsed_box(text)
    if parsed is None:
        raise DataError(f"the box {text!r} is not [x, y, width, height]")
    notes.say("boxes in one cell are read as [x, y, width, height]")
    return parsed[0]


def _with_described_classes(splits: dict[str, _Split], folder: Path, notes: KindNotes) -> dict[str, _Split]:
    """Open Images' codes, such as /m/0bt9lr, replaced by the names that class-descriptions*.csv has for them."""
    codes = {label for shapes in splits.values() for boxes in shapes.values() for label, _ in boxes}
    tables = [file for file in files_of(folder, ".csv") if file.name.startswith("class-descriptions")]
    if not tables or not all(code.startswith("/m/") for code in codes):
        return splits
    names = dict(line.split(",", 1) for line in read_lines(tables[0]) if "," in line)
    first = min(codes)
    kind = f"classes have a code for a name: {tables[0].name} has the name"
    notes.add(kind, f"{first} is {names.get(first, first)}", len(codes))
    return {
        split: {
            image: [(names.get(label, label).strip(' "'), corners) for label, corners in boxes]
            for image, boxes in shapes.items()
        }
        for split, shapes in splits.items()
    }


def is_table(file: Path) -> bool:
    """Whether a file is a table of boxes, by its first line."""
    lines = _rows_of(file)
    return _separator(lines) is not None or _is_via(lines)


def _rows_of(file: Path) -> list[str]:
    """The lines of a table without the first one of Excel's that names the separator."""
    lines = read_lines(file)
    return lines[1:] if lines and lines[0].lower().startswith("sep=") else lines


def _is_via(lines: Sequence[str]) -> bool:
    return bool(lines) and {_plain(cell) for cell in _cells(lines[0], ",")} >= _VIA


def _read_via_table(file: Path, folder: Path) -> LabeledSet:
    """VIA's CSV: a line for each region, with its shape and attributes as JSON."""
    entries: list[dict[str, Any]] = []
    errors = []
    rows = csv.DictReader(io.StringIO("\n".join(read_lines(file))))
    for row in rows:
        cells = {_plain(str(key)): value for key, value in row.items()}
        try:
            shape = json.loads(cells["regionshapeattributes"] or "{}")
            attributes = json.loads(cells["regionattributes"] or "{}")
        except (ValueError, TypeError) as error:
            errors.append(f"line {rows.line_num}: a cell is not JSON ({error})")
            continue
        region = {"shape_attributes": shape, "region_attributes": attributes}
        entries.append({"filename": cells["filename"], "regions": [region] if shape else []})
    if errors:
        raise DataError(f"{file}: {'; '.join(errors[:5])}")
    return via_regions(file, folder, entries)


def _separator(lines: list[str]) -> str | None:
    """What is between the cells; None for a file whose first line neither is a heading nor has a box."""
    first = lines[0] if lines else ""
    return next((mark for mark in _SEPARATORS if table_columns(cells := _cells(first, mark)) or _is_bare(cells)), None)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _plain(heading: str) -> str:
    """A heading without signs between its letters: BBox_X is bboxx."""
    return re.sub(r"[^a-z0-9]", "", heading.lower())


def _is_bare(cells: list[str]) -> bool:
    """Whether a line is path,x1,y1,x2,y2,class; of an image without objects all but the path are empty."""
    if len(cells) != len(_BARE) or Path(cells[0]).suffix.lower() not in image_suffixes():
        return False
    try:
        return not any(cells[1:]) or len([read_number(cell, KindNotes()) for cell in cells[1:5]]) == 4
    except DataError:
        return False


def table_columns(heading: list[str]) -> dict[str, int] | None:
    """Column of an image, a class and four sides, or a corner and a size; None if a row is no heading with them."""
    found = [_plain(text) for text in heading]
    for wanted in (_CORNERS, _CENTRES, _SIZES, _IN_ONE):
        columns = {
            name: next((found.index(word) for word in words if word in found), -1) for name, words in wanted.items()
        }
        if -1 not in columns.values():
            sides = {"across": ("width", "imagewidth"), "down": ("height", "imageheight")}
            of_image = {name: found.index(word) for name, words in sides.items() for word in words if word in found}
            is_of_image = len(of_image) == 2 and not set(of_image.values()) & set(columns.values())
            return columns | of_image if is_of_image else columns
    return None


def describe_heading(lines: list[str]) -> str:
    """Which columns the heading of a table lacks."""
    first = lines[0] if lines else ""
    found = {_plain(text) for text in _cells(first, max(_SEPARATORS, key=first.count))}
    wanted = _IN_ONE if set(_IN_ONE["bbox"]) & found else _CORNERS
    missing = [name for name, words in wanted.items() if not set(words) & found]
    return (
        f"a table whose first line, {first[:60]!r}, has no column {', '.join(missing)}" if first else "an empty table"
    )

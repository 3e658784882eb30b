"""Tables of boxes (CSV), one box a line, from any country's spreadsheet.

A heading has filename (or image), class (or label) and xmin, ymin, xmax, ymax, as Roboflow and TensorFlow's Object
Detection API write it; without a heading, lines are path,x1,y1,x2,y2,class, as keras-retinanet has them. Between the
cells is a comma, a semicolon or a tab.
"""

import csv
import io
from pathlib import Path

from retinanet.data.find_images import image_suffixes
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import LabeledSet, read_lines, read_number
from retinanet.prepare.other_labels import Corners, labeled_set

TABLE_NAMES = {
    "filename": ("filename", "file", "image", "image_name", "image_path", "path", "image_id"),
    "class": ("class", "label", "name", "class_name", "category"),
    "xmin": ("xmin", "x1", "x_min", "left"),
    "ymin": ("ymin", "y1", "y_min", "top"),
    "xmax": ("xmax", "x2", "x_max", "right"),
    "ymax": ("ymax", "y2", "y_max", "bottom"),
}
"""Headings of a table's columns."""
_BARE = {"filename": 0, "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "class": 5}
"""Columns of a table without a heading."""
_SEPARATORS = ",;\t"


def read_table(file: Path, folder: Path) -> LabeledSet:
    """Lines of a CSV file, one box each; a line without a box is an image without objects. Raises DataError."""
    lines = read_lines(file)
    notes = KindNotes()
    errors: list[str] = []
    shapes: dict[str, list[tuple[str, Corners]]] = {}
    separator = _separator(lines)
    if separator is None:
        raise DataError(f"{file}: {describe_heading(lines)}")
    if separator != ",":
        notes.say(f"cells are separated by {'tabs' if separator != ';' else 'semicolons'}")
    try:
        rows = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
        columns = _BARE
        for row in rows:
            heading = table_columns(row) if rows.line_num == 1 else None
            if heading is not None:
                columns = heading
            elif any(row):
                try:
                    _add_row(row, columns, shapes, notes)
                except DataError as error:
                    errors.append(f"{file}:{rows.line_num}: {error}")
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({error})") from error
    return labeled_set("a table (CSV)", folder, shapes, errors, notes)


def _add_row(
    row: list[str], columns: dict[str, int], shapes: dict[str, list[tuple[str, Corners]]], notes: KindNotes
) -> None:
    """The box of a line. Raises DataError, to which the caller adds the place."""
    if len(row) <= max(columns.values()):
        raise DataError(f"{len(row)} cells, but {max(columns.values()) + 1} are needed")
    cells = {name: row[column].strip() for name, column in columns.items()}
    if not cells["filename"]:
        raise DataError("names no image")
    boxes = shapes.setdefault(cells["filename"], [])
    corners = [cells[side] for side in ("xmin", "ymin", "xmax", "ymax")]
    if any(corners):
        x1, y1, x2, y2 = (read_number(corner, notes) for corner in corners)
        if not cells["class"]:
            raise DataError("the box has no class")
        boxes.append((cells["class"], (x1, y1, x2, y2)))


def is_table(file: Path) -> bool:
    """Whether a file is a table of boxes, by its first line."""
    return _separator(read_lines(file)) is not None


def _separator(lines: list[str]) -> str | None:
    """What is between the cells; None for a file whose first line neither is a heading nor has a box."""
    first = lines[0] if lines else ""
    return next((mark for mark in _SEPARATORS if table_columns(cells := _cells(first, mark)) or _is_bare(cells)), None)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(separator)]


def _is_bare(cells: list[str]) -> bool:
    """Whether a line is path,x1,y1,x2,y2,class; of an image without objects all but the path are empty."""
    if len(cells) != len(_BARE) or Path(cells[0]).suffix.lower() not in image_suffixes():
        return False
    try:
        return not any(cells[1:]) or len([read_number(cell, KindNotes()) for cell in cells[1:5]]) == 4
    except DataError:
        return False


def table_columns(heading: list[str]) -> dict[str, int] | None:
    """Column of each of TABLE_NAMES; None if a row is no heading that has them all."""
    found = [text.strip().lower() for text in heading]
    columns = {
        name: next((found.index(word) for word in words if word in found), -1) for name, words in TABLE_NAMES.items()
    }
    return None if -1 in columns.values() else columns


def describe_heading(lines: list[str]) -> str:
    """Which columns the heading of a table lacks."""
    first = lines[0] if lines else ""
    found = [text.lower() for text in _cells(first, max(_SEPARATORS, key=first.count))]
    missing = [name for name, words in TABLE_NAMES.items() if not set(words) & set(found)]
    return (
        f"a table whose first line, {first[:60]!r}, has no column {', '.join(missing)}" if first else "an empty table"
    )

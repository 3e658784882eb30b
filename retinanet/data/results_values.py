"""Detections as other programs write them, in the one form that scoring accepts.

What can be read in one way only is read so and noted once a kind; the rest is left for validation to refuse.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.box_conventions import read_boxes
from retinanet.data.box_values import parsed_box
from retinanet.data.foreign_layout import Row
from retinanet.data.normalise import replaced_values, whole_numbers
from retinanet.data.notes import KindNotes

_WRAPPERS = ("annotations", "predictions", "detections", "results")
_SCORES = ("confidence", "conf", "probability", "prob")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*(%?)\s*")


def unwrapped_results(content: object, notes: KindNotes) -> object:
    """The list of detections of an object that holds one with scores under one of _WRAPPERS; else the content."""
    if not isinstance(content, dict):
        return content
    lists = {key: content[key] for key in _WRAPPERS if isinstance(content.get(key), list) and content[key]}
    scored = {key: rows for key, rows in lists.items() if isinstance(rows[0], dict) and {"bbox", "score"} <= {*rows[0]}}
    if len(scored) != 1:
        return content
    ((key, rows),) = scored.items()
    notes.say(f"the detections are read from the list {key!r} of the file's object")
    return rows


def normalise_results(rows: list[Row], truth: dict[str, Any], notes: KindNotes) -> list[Row]:
    """Objects as `read_results` accepts them: ids, boxes and scores that mean one thing in COCO's form."""
    rows = _renamed(rows, "score", _SCORES, notes)
    for key in ("image_id", "category_id"):
        rows = whole_numbers("detections", rows, key, notes)
    rows = _ids_of_names(rows, "image_id", _image_names(truth), notes)
    rows = _ids_of_names(rows, "category_id", [{str(row.get("name")): row["id"] for row in truth["categories"]}], notes)
    rows = _texts(rows, "score", _score, "scores in quotes are read as the numbers that they are", notes)
    return _boxes(rows, notes)


def _renamed(rows: list[Row], key: str, others: tuple[str, ...], notes: KindNotes) -> list[Row]:
    if not rows or any(key in row for row in rows):
        return rows
    found = [other for other in others if all(other in row for row in rows)]
    if len(found) != 1:
        return rows
    notes.say(f"{found[0]!r} is read as {key!r}")
    return [{**row, key: row[found[0]]} for row in rows]


def _image_names(truth: dict[str, Any]) -> list[dict[str, int]]:
    """Image ids by file name, by its last part and by that without its suffix, where these are unique."""
    names = [(str(row["file_name"]).replace("\\", "/"), row["id"]) for row in truth["images"] if row.get("file_name")]
    whole = dict(names)
    short = {PurePosixPath(name).name: number for name, number in names}
    stems = {PurePosixPath(name).stem: number for name, number in names}
    return [found for found in (whole, short, stems) if found and len(found) == len(truth["images"])]


def _ids_of_names(rows: list[Row], key: str, tables: list[dict[str, int]], notes: KindNotes) -> list[Row]:
    if not rows or not all(isinstance(row.get(key), str) for row in rows):
        return rows
    for table in tables:
        if all(row[key] in table for row in rows):
            what = "file name of an image" if key == "image_id" else "name of a category"
            first = rows[0][key]
            notes.add(
                f"detections have the {what} as {key!r}: its id is used", f"{first!r} is {table[first]}", len(rows)
            )
            return [{**row, key: table[row[key]]} for row in rows]
    return rows


def _texts(rows: list[Row], key: str, read: Callable[[str], float | None], kind: str, notes: KindNotes) -> list[Row]:
    """The rows with texts under `key` as numbers, where all rows have texts that are."""
    values = [row.get(key) for row in rows]
    if not values or set(map(type, values)) != {str}:
        return rows
    numbers = [read(str(value)) for value in values]
    if None in numbers:
        return rows
    notes.add(kind, f"{values[0]!r} of detections[0] is {numbers[0]:g}", len(rows))
    return replaced_values(rows, key, list(numbers))


def _score(text: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    return float(text.strip().rstrip("% ")) / (100 if found[3] else 1) if found else None


def _boxes(rows: list[Row], notes: KindNotes) -> list[Row]:
    values = [row.get("bbox") for row in rows]
    odd = [i for i, box in enumerate(values) if type(box) is not list or (box and isinstance(box[0], str))]
    made = {i: parsed for i in odd if (parsed := parsed_box(values[i])) is not None}
    if not made:
        return rows
    for i, (box, kind) in made.items():
        notes.add(kind, f"{values[i]!r} of detections[{i}] is {[round(one, 3) for one in box]}")
    return [{**row, "bbox": made[i][0]} if i in made else row for i, row in enumerate(rows)]


def boxes_in_pixels(
    rows: list[Row],
    image_ids_N: NDArray[np.int64],
    boxes_N4: NDArray[np.float64],
    truth: dict[str, Any],
    notes: KindNotes,
) -> tuple[list[Row], list[str]]:
    """The rows with boxes that as a whole are two corners, centres or fractions as [x, y, width, height] in pixels.

    Fractions that can be more than one of these are an error; pixels are kept and noted, as detectors may write boxes
    that leave their image.
    """
    sizes = {row["id"]: (row.get("width"), row.get("height")) for row in truth["images"]}
    known = [number for number, size in sizes.items() if all(type(side) is int and side > 0 for side in size)]
    if not rows or len(known) < len(sizes) or (boxes_N4[:, 2:] < 0).any():
        return rows, []  # boxes of negative size are scored as they are
    ids = np.array(sorted(known))
    limits = np.array([sizes[number] for number in ids.tolist()], dtype=np.float64)
    reading = read_boxes(boxes_N4, np.full(len(rows), np.nan), limits[np.searchsorted(ids, image_ids_N)])
    if reading.errors and boxes_N4.max() <= 2:
        return rows, reading.errors
    for text in (*reading.notes, *reading.errors):
        notes.say(text)
    if reading.boxes_N4 is None:
        return rows, []
    return [{**row, "bbox": box} for row, box in zip(rows, reading.boxes_N4.tolist(), strict=True)], []


def note_repeats(rows: list[Row], notes: KindNotes) -> None:
    """Note detections that are the same as an earlier one, each of which counts as a false positive."""
    seen = {(row["image_id"], row["category_id"], *row["bbox"], row["score"]) for row in rows}
    if count := len(rows) - len(seen):
        notes.say(
            f"{count:,} of {len(rows):,} detections are exact repetitions of others and count as false positives: are "
            "the results of an image in the file twice?"
        )

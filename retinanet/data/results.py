"""Reading COCO detections, validated so that no defect leads to a silently wrong AP."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.notes import KindNotes
from retinanet.data.results_values import boxes_in_pixels, normalise_results, note_repeats, unwrapped_results
from retinanet.data.validate import Rows
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json

_KEYS = ("image_id", "category_id", "bbox", "score")


def read_results(path: Path, ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Detections of a .json or .json.gz file, one dict each: image_id, category_id, bbox [x, y, w, h], score.

    `ground_truth` is a validated COCO dict (`load_ground_truth`); it defines the known ids.
    Other keys are left out, since pycocotools chooses its kind of evaluation by them. An empty list is valid, and so
    are boxes of negative size, which match nothing. Values that mean one thing are read as `read_noted_results` notes.
    Raises DataError with every error of the file: wrong types or lengths, numbers that are not finite, ids that the
    ground truth does not have; and where rows have a `file_name` that is not the file of their image.
    """
    return _read(path, ground_truth, KindNotes(), any_convention=False)


def read_noted_results(path: Path, ground_truth: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """`read_results` of a file of any program, and notes on what was read differently than it is written.

    Boxes that as a whole are corners, centres or fractions are read as these, where only one of them explains them.
    """
    notes = KindNotes()
    rows = _read(path, ground_truth, notes, any_convention=True)
    note_repeats(rows, notes)
    return rows, notes.texts()


def _read(path: Path, ground_truth: dict[str, Any], notes: KindNotes, any_convention: bool) -> list[dict[str, Any]]:
    content = unwrapped_results(read_json(path), notes)
    if not isinstance(content, list):
        hint = " (is it an annotation file?)" if isinstance(content, dict) and "images" in content else ""
        raise DataError(
            f"{path}: COCO detections are a list of objects with image_id, category_id, bbox and score; "
            f"this file contains {'an object' if isinstance(content, dict) else 'something else'}{hint}"
        )
    if set(map(type, content)) == {dict}:
        content = normalise_results(content, ground_truth, notes)
    check_file_names(path, content, ground_truth)
    errors: list[str] = []
    image_ids, boxes = _validate(content, ground_truth, errors)
    if errors:
        raise DataError(list_errors(f"{path}: these detections cannot be scored", errors))
    if any_convention:
        content, errors = boxes_in_pixels(content, image_ids, boxes, ground_truth, notes)
    if errors:
        raise DataError(list_errors(f"{path}: these detections cannot be scored", errors))
    if all(len(row) == len(_KEYS) for row in content):
        return content
    return [{key: row[key] for key in _KEYS} for row in content]


def check_file_names(path: Path, content: list[Any], ground_truth: dict[str, Any]) -> None:
    """Raise DataError where a row's `file_name` is not that of the image with its id; folders are not compared."""
    names = {row["id"]: _base_name(row.get("file_name")) for row in ground_truth["images"]}
    named = [row for row in content if isinstance(row, dict) and _base_name(row.get("file_name"))]
    known = [(row, names.get(row["image_id"])) for row in named if isinstance(row.get("image_id"), int)]
    all_names = set(names.values())
    wrong = [
        (row, name)
        for row, name in known
        if name != _base_name(row["file_name"]) and (name is not None or _base_name(row["file_name"]) in all_names)
    ]
    if wrong:
        row, name = wrong[0]
        meant = f"that is {name!r}" if name else "no image has that id"
        raise DataError(
            f"{path}: {len(wrong):,} of {len(content):,} detections are of another image than that of their image_id: "
            f"image_id {row['image_id']} has file_name {row['file_name']!r}, but in the ground truth {meant}. "
            "These look like the results of retinanet predict, whose image ids are positions: use retinanet eval "
            "CHECKPOINT for a data set, or give each detection the id that the ground truth has for its file."
        )


def _base_name(file_name: object) -> str | None:
    """The name without its folders, with either kind of slash; None where there is no name."""
    return file_name.replace("\\", "/").rsplit("/", 1)[-1] or None if isinstance(file_name, str) else None


def _validate(
    content: list[Any], ground_truth: dict[str, Any], errors: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Append every error of a list of detections; image ids and boxes, of use where there are none."""
    rows = Rows("detections", content, errors)
    columns = {}
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        columns[key], good = rows.integers(key)
        known = {entry["id"] for entry in ground_truth[section]}
        rows.known(key, columns[key], good, known, f"the ground truth's {section}")
    boxes, _ = rows.boxes()
    rows.numbers("score")
    return columns["image_id"], boxes

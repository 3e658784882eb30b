"""Reading COCO detections, validated so that no defect leads to a silently wrong AP."""

from pathlib import Path
from typing import Any

from retinanet.data.validate import Rows
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json

_KEYS = ("image_id", "category_id", "bbox", "score")


def read_results(path: Path, ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Detections of a .json or .json.gz file, one dict each: image_id, category_id, bbox [x, y, w, h], score.

    `ground_truth` is a validated COCO dict (`load_ground_truth`); it defines the known ids.
    Other keys are left out, since pycocotools chooses its kind of evaluation by them. An empty list is valid.
    Raises DataError with every error of the file: wrong types or lengths, numbers that are not finite, negative
    width or height, ids that the ground truth does not have; and where rows have a `file_name` that is not the
    file of their image.
    """
    content = read_json(path)
    if not isinstance(content, list):
        hint = " (is it an annotation file?)" if isinstance(content, dict) and "images" in content else ""
        raise DataError(
            f"{path}: COCO detections are a list of objects with image_id, category_id, bbox and score; "
            f"this file contains {'an object' if isinstance(content, dict) else 'something else'}{hint}"
        )
    check_file_names(path, content, ground_truth)
    errors = validate_results(content, ground_truth)
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


def validate_results(content: list[Any], ground_truth: dict[str, Any]) -> list[str]:
    """Every error of a list of detections; no errors mean that it can be scored."""
    errors: list[str] = []
    rows = Rows("detections", content, errors)
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        ids, good = rows.integers(key)
        rows.known(key, ids, good, {entry["id"] for entry in ground_truth[section]}, f"the ground truth's {section}")
    boxes, good = rows.boxes()
    negative = good & ((boxes[:, 2] < 0) | (boxes[:, 3] < 0))
    rows.report(negative, lambda i: f"has 'bbox' {boxes[i].tolist()}; width and height cannot be negative")
    rows.numbers("score")
    return errors

"""Ground truth to score against: a COCO dict, validated and complete. Imports nothing heavy.

pycocotools wants of every annotation an id other than 0, an area and iscrowd.
"""

import logging
from pathlib import Path

from retinanet.data.validate import validate_ground_truth
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json

_log = logging.getLogger(__name__)


def load_ground_truth(path: Path) -> dict:
    """The COCO dict of an annotation file, validated for scoring; image files and sizes are not needed.

    As read, but for what pycocotools needs: a missing "area" becomes width * height, a missing "iscrowd" 0, missing
    "info" and "licenses" empty; where an annotation id is missing or 0 all are numbered anew from 1 (said in the
    log), since pycocotools takes id 0 for "not matched". "segmentation" is left out: scoring boxes does not
    read it, and it is most of the memory.
    Raises DataError with every error of the file.
    """
    data = read_json(path, leave_out="segmentation")
    errors = validate_ground_truth(data, needs_files=False)
    if errors or not isinstance(data, dict):
        raise DataError(list_errors(f"{path}: this ground truth cannot be used", errors))
    for note in complete(data):
        _log.warning("%s: %s", path, note)
    return data


def complete(data: dict) -> list[str]:
    """Gives a validated dict, in place, what pycocotools needs; see `load_ground_truth`. Returns what was changed."""
    data.setdefault("info", {})
    data.setdefault("licenses", [])
    annotations = data["annotations"]
    notes = []
    renumber = not all(row.get("id", 0) for row in annotations)
    no_area = no_crowd = 0
    for number, row in enumerate(annotations, start=1):
        if renumber:
            row["id"] = number
        if "area" not in row:
            no_area += 1
            row["area"] = max(row["bbox"][2], 0) * max(row["bbox"][3], 0)
        if "iscrowd" not in row:
            no_crowd += 1
            row["iscrowd"] = 0
    if renumber:
        notes.append("annotation ids are missing or 0, which pycocotools scores wrongly: all are numbered anew from 1")
    if no_area:
        notes.append(f"{no_area:,} annotations have no 'area': width * height is taken")
    if no_crowd:
        notes.append(f"{no_crowd:,} annotations have no 'iscrowd': 0 is taken")
    return notes

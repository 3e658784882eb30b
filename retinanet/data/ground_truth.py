"""Ground truth to score against: a COCO dict, validated and complete. Imports no tensor library.

pycocotools needs an id other than 0, an area and iscrowd in every annotation.
"""

import logging
from pathlib import Path
from typing import Any

from retinanet.data.content import read_annotations, scored_content

_log = logging.getLogger(__name__)


def load_ground_truth(path: Path) -> dict[str, Any]:
    """The COCO dict of an annotation file, validated for scoring; image files and sizes are not needed.

    As read, except for values in another form than COCO's (see `normalise_content`, `read_boxes`), and what pycocotools
    needs: a missing "area" becomes width * height, a missing "iscrowd" 0, missing "info" and "licenses" empty; where an
    annotation id is missing, 0 or used twice all are renumbered from 1 (and a warning is logged), since pycocotools
    takes id 0 for "not matched" and confuses annotations of one id. "segmentation" is left out: scoring boxes does not
    read it, and it takes most of the memory.
    Raises DataError with every error of the file.
    """
    content = scored_content(path, read_annotations(path))
    for note in (*content.notes, *complete(content.data)):
        _log.warning("%s: %s", path, note)
    return content.data


def complete(data: dict[str, Any]) -> list[str]:
    """Add what pycocotools needs to a validated dict, in place (see `load_ground_truth`); returns notes on it."""
    data.setdefault("info", {})
    data.setdefault("licenses", [])
    annotations = data["annotations"]
    notes = []
    missing = not all(row.get("id", 0) for row in annotations)
    renumber = missing or len({row["id"] for row in annotations}) < len(annotations)
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
        cause = "missing or 0" if missing else "used more than once"
        notes.append(f"annotation ids are {cause}, which pycocotools scores wrongly: all are renumbered from 1")
    if no_area:
        notes.append(f"{no_area:,} annotations have no 'area': width * height is used")
    if no_crowd:
        notes.append(f"{no_crowd:,} annotations have no 'iscrowd': 0 is used")
    return notes

"""The slow reference of the bootstrap: build each resampled data set and run pycocotools on it."""

from collections import defaultdict
from typing import Any

import numpy as np

from retinanet.scoring.reference import pycocotools_numbers

Rows = list[dict[str, Any]]


def rows_by_image(rows: Rows) -> dict[int, Rows]:
    found: dict[int, Rows] = defaultdict(list)
    for row in rows:
        found[row["image_id"]].append(row)
    return found


def duplicated(truth: dict[str, Any], results: Rows, multiplicity_I: np.ndarray) -> tuple[dict[str, Any], Rows]:
    """The i-th image by ascending id multiplicity[i] times, each time as a separate image with a new id."""
    images, annotations, found = [], [], []
    objects_of, found_of = rows_by_image(truth["annotations"]), rows_by_image(results)
    for place, image_id in enumerate(sorted(row["id"] for row in truth["images"])):
        for _ in range(int(multiplicity_I[place])):
            number = len(images) + 1
            images.append({"id": number})
            for row in objects_of[image_id]:
                annotations.append({**row, "id": len(annotations) + 1, "image_id": number})
            found += [{**row, "image_id": number} for row in found_of[image_id]]
    return {**truth, "images": images, "annotations": annotations}, found


def metrics_by_hand(truth: dict[str, Any], results: Rows, multiplicity_RI: np.ndarray) -> np.ndarray:
    """(R, M) METRIC_NAMES by pycocotools on each resampled data set; NaN in place of -1."""
    values = np.array([pycocotools_numbers(*duplicated(truth, results, row_I)).twelve for row_I in multiplicity_RI])
    return np.where(values < 0, np.nan, values)

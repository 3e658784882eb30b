"""The slow reference of the bootstrap: build each resampled data set and run pycocotools on it."""

from typing import Any

import numpy as np

from retinanet.scoring.evaluation import METRIC_NAMES, coco_evaluation

Rows = list[dict[str, Any]]


def duplicated(truth: dict[str, Any], results: Rows, multiplicity_I: np.ndarray) -> tuple[dict[str, Any], Rows]:
    """The i-th image by ascending id multiplicity[i] times, each time as a separate image with a new id."""
    images, annotations, found = [], [], []
    for place, image_id in enumerate(sorted(row["id"] for row in truth["images"])):
        for _ in range(int(multiplicity_I[place])):
            number = len(images) + 1
            images.append({"id": number})
            for row in truth["annotations"]:
                if row["image_id"] == image_id:
                    annotations.append({**row, "id": len(annotations) + 1, "image_id": number})
            found += [{**row, "image_id": number} for row in results if row["image_id"] == image_id]
    return {**truth, "images": images, "annotations": annotations}, found


def metrics_by_hand(truth: dict[str, Any], results: Rows, multiplicity_RI: np.ndarray) -> np.ndarray:
    """(R, M) METRIC_NAMES by pycocotools on each resampled data set; NaN in place of -1."""
    rows = []
    for multiplicity_I in multiplicity_RI:
        found = coco_evaluation(*duplicated(truth, results, multiplicity_I), "pycocotools").metrics
        rows.append([found[name] for name in METRIC_NAMES])
    values = np.array(rows)
    return np.where(values < 0, np.nan, values)

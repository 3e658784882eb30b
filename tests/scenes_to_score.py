"""Synthetic ground truth and detections: by hand, random with all that can occur, and odd ones."""

from typing import Any

import numpy as np

from retinanet.scoring.analysis.analyse import Analysis, analyse
from retinanet.scoring.analysis.scored import Scored, score_detections
from retinanet.scoring.columns import detection_columns, truth_columns
from retinanet.scoring.evaluation import coco_evaluation

Row = dict[str, Any]

BOX = [100.0, 100.0, 100.0, 100.0]
NEAR = [110.0, 100.0, 100.0, 100.0]  # IoU 9/11 with BOX
HALF_OFF = [150.0, 100.0, 100.0, 100.0]  # IoU 1/3 with BOX
FAR = [300.0, 300.0, 50.0, 50.0]


def truth_of(objects: list[tuple[int, int, list[float]]], images: int = 3, classes: int = 3, crowd: int = 0) -> Row:
    """A COCO dict of objects (image, class, box), images and classes numbered from 1; the last `crowd` are crowd."""
    return {
        "images": [{"id": i, "width": 400, "height": 400, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(n >= len(objects) - crowd),
            }
            for n, (image, category, box) in enumerate(objects)
        ],
    }


def results_of(detections: list[tuple[int, int, list[float], float]]) -> list[Row]:
    """COCO results of detections (image, class, box, score)."""
    return [{"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in detections]


def scored_of(truth: Row, results: list[Row]) -> Scored:
    """The detections matched to the ground truth."""
    columns = truth_columns(truth)
    return score_detections(columns, detection_columns(columns, results))


def analysis_of(truth: Row, results: list[Row]) -> Analysis:
    """All analyses of the detections."""
    return analyse(coco_evaluation(truth, results))


def random_scene(seed: int, images: int = 12, classes: int = 4) -> tuple[Row, list[Row]]:
    """Objects of three sizes, some crowd, class `classes` without any; detections near them, doubled, of another class
    and anywhere, with tied scores."""
    rng = np.random.default_rng(seed)

    def box() -> list[float]:
        side = rng.choice([14.0, 50.0, 120.0])
        return [*rng.uniform(0, 250, 2).round(1), *(side * rng.uniform(0.7, 1.3, 2)).round(1)]

    objects = [(int(rng.integers(1, images)), int(rng.integers(1, classes)), box()) for _ in range(60)]
    truth = truth_of([(i, k, [float(v) for v in b]) for i, k, b in objects], images, classes, crowd=4)
    found = []
    for image, category, place in objects:
        for _ in range(int(rng.integers(0, 4))):
            moved = np.array(place) + rng.normal(0, 0.12, 4) * np.array([place[2], place[3], place[2], place[3]])
            other = int(rng.integers(1, classes + 1)) if rng.random() < 0.25 else category
            found.append((image, other, [*moved[:2].tolist(), *np.abs(moved[2:]).tolist()], round(rng.random(), 1)))
    found += [
        (int(rng.integers(1, images + 1)), int(rng.integers(1, classes + 1)), box(), round(rng.random(), 1))
        for _ in range(30)
    ]
    order = rng.permutation(len(found))
    return truth, results_of([found[n] for n in order])


def overlap(one: list[float], other: list[float]) -> float:
    """IoU of two boxes [x, y, width, height], by the definition."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (one[2] * one[3] + other[2] * other[3] - width * height)


ODD: dict[str, tuple[Row, list[Row]]] = {
    "nothing at all": (truth_of([], images=1, classes=1), []),
    "no detections": (truth_of([(1, 1, BOX)]), []),
    "no objects": (truth_of([]), results_of([(1, 1, BOX, 0.5), (1, 2, FAR, 0.25)])),
    "one class, one image": (truth_of([(1, 1, BOX)], images=1, classes=1), results_of([(1, 1, BOX, 0.5)])),
    "crowd alone": (truth_of([(1, 1, BOX)], crowd=1), results_of([(1, 1, BOX, 0.5)])),
    "all wrong": (truth_of([(1, 1, BOX)]), results_of([(1, 1, FAR, 0.5)])),
    "scores beyond 0..1": (truth_of([(1, 1, BOX)]), results_of([(1, 1, BOX, 7.5), (1, 2, FAR, -3.0)])),
}

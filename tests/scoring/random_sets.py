"""Random ground truths and detections with everything that could tell two engines apart."""

from typing import Any

import numpy as np

Rows = list[dict[str, Any]]

COUNTS = {"detections": (0, 1, 5, 25, 140), "objects": (0, 1, 3, 8, 20)}


def random_set(seed: int) -> tuple[dict[str, Any], Rows]:
    """A validated COCO dict and results, both in random order.

    Gapped ids up to 1e11, crowd regions, boxes on a coarse grid (equal IoUs), few score levels (equal scores), boxes
    of no area, areas that are not width * height or lie on the borders of the sizes, images and classes with nothing,
    more than 100 detections of an image, integers among the floats, and at times huge coordinates.
    """
    rng = np.random.default_rng(seed)
    image_ids = _ids(rng, int(rng.integers(1, 7)), 10 ** int(rng.integers(2, 12)))
    category_ids = _ids(rng, int(rng.integers(1, 6)), 200)
    grid = float(rng.choice([1.0, 0.5, 0.001, 1 / 3, 1e5, 1e16], p=[0.4, 0.2, 0.1, 0.2, 0.05, 0.05]))
    side = int(rng.choice([20, 100, 300]))
    annotations: Rows = []
    for image_id in image_ids:
        for _ in range(rng.choice(COUNTS["objects"])):
            box = _box(rng, grid, side)
            area = float(rng.choice([box[2] * box[3], box[2] * box[3] / 2, 1024, 9216, np.nextafter(1024, 0)]))
            annotations.append(
                {"image_id": image_id, "category_id": _one_of(rng, category_ids), "bbox": box, "area": area}
                | {"iscrowd": int(rng.random() < 0.15)}
            )
    annotations = [annotations[i] | {"id": 7 * n + 3} for n, i in enumerate(rng.permutation(len(annotations)))]
    levels = int(rng.choice([1, 2, 5, 1000]))
    results: Rows = []
    for image_id in image_ids:
        own = [row for row in annotations if row["image_id"] == image_id]
        for _ in range(rng.choice(COUNTS["detections"])):
            found = {"image_id": image_id, "category_id": _one_of(rng, category_ids), "bbox": _box(rng, grid, side)}
            if own and rng.random() < 0.7:
                found = _near(rng, own[int(rng.integers(len(own)))], grid, found["category_id"])
            score = rng.integers(0, levels + 1) / levels
            results.append(found | {"score": int(score) if score in (0, 1) and rng.random() < 0.2 else float(score)})
    truth = {
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category_id, "name": f"class {category_id}"} for category_id in category_ids],
        "annotations": annotations,
        "info": {},
        "licenses": [],
    }
    return truth, [results[i] for i in rng.permutation(len(results))]


def _ids(rng: np.random.Generator, count: int, most: int) -> list[int]:
    found = np.unique(rng.integers(0, most, 3 * count))
    return [int(value) for value in rng.permutation(found)[:count]]


def _one_of(rng: np.random.Generator, values: list[int]) -> int:
    return values[int(rng.integers(len(values)))]


def _box(rng: np.random.Generator, grid: float, side: int) -> list[float]:
    box = rng.integers(-3, side, 4) * grid
    box[2:] = np.maximum(box[2:], 0.0)
    if rng.random() < 0.05:
        box[int(rng.integers(2, 4))] = 0.0
    return [int(value) if value == int(value) and rng.random() < 0.2 else float(value) for value in box]


def _near(rng: np.random.Generator, annotation: dict[str, Any], grid: float, other: int) -> dict[str, Any]:
    """A detection on an object or some grid steps off, of its class or another."""
    moved = [value + (int(rng.integers(-3, 4)) * grid if rng.random() < 0.5 else 0) for value in annotation["bbox"]]
    category_id = annotation["category_id"] if rng.random() < 0.8 else other
    return {
        "image_id": annotation["image_id"],
        "category_id": category_id,
        "bbox": [*moved[:2], *(max(value, 0) for value in moved[2:])],
    }

"""Inputs made from a seed: batches of random pixels and boxes, COCO-sized results.

Legend: B images, G boxes of an image, 4 = (x1, y1, x2, y2) pixels.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.structures import Batch, Targets


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """(count, 4) boxes within (height, width): sides log-uniform from 12 pixels to 0.7 of the shorter side."""
    longest = max(16.0, 0.7 * min(size))
    sides_G2 = np.exp(rng.uniform(np.log(12.0), np.log(longest), (count, 2)))
    corners_G2 = rng.random((count, 2)) * (np.array([size[1], size[0]]) - sides_G2)
    return np.concatenate([corners_G2, corners_G2 + sides_G2], axis=1).astype(np.float32)


def random_targets(rng: np.random.Generator, boxes: int, size: tuple[int, int], classes: int) -> Targets:
    """`boxes` boxes of random classes, no crowd regions."""
    return Targets(
        torch.from_numpy(random_boxes(rng, boxes, size)),
        torch.from_numpy(rng.integers(0, classes, boxes)),
        torch.zeros((0, 4)),
    )


def random_batch(size: tuple[int, int], images: int, classes: int, boxes: int = 8, seed: int = 0) -> Batch:
    """`images` images of random bytes that fill their canvas, with `boxes` boxes each."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (images, 3, *size), dtype=np.uint8))
    sizes_B2 = torch.tensor([size] * images)
    targets = [random_targets(rng, boxes, size, classes) for _ in range(images)]
    return Batch(pixels, sizes_B2, sizes_B2.clone(), torch.arange(1, images + 1), targets)


def coco_results(images: int, boxes: int, detections: int, classes: int = 80) -> tuple[dict[str, Any], list[dict]]:
    """(ground truth, results) of COCO's kind: most boxes found with some error and class confusion, many false alarms.

    Images are 640 x 480; one box in a hundred is a crowd region.
    """
    rng = np.random.default_rng(0)
    image_N, class_N = rng.integers(1, images + 1, boxes), rng.integers(1, classes + 1, boxes)
    box_N4 = random_boxes(rng, boxes, (480, 640))
    crowd_N = rng.random(boxes) < 0.01
    xywh_N4 = np.concatenate([box_N4[:, :2], box_N4[:, 2:] - box_N4[:, :2]], axis=1).round(2)
    annotations = [
        {
            "id": i + 1,
            "image_id": int(image_N[i]),
            "category_id": int(class_N[i]),
            "bbox": box,
            "iscrowd": int(crowd_N[i]),
        }
        | {"area": box[2] * box[3]}
        for i, box in enumerate(xywh_N4.astype(np.float64).tolist())
    ]
    truth = {
        "images": [{"id": i, "height": 480, "width": 640} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)],
    }
    return truth, _detections(rng, detections, xywh_N4, image_N, class_N, images, classes)


def _detections(
    rng: np.random.Generator,
    count: int,
    xywh_N4: NDArray[np.float32],
    image_N: NDArray[np.int64],
    class_N: NDArray[np.int64],
    images: int,
    classes: int,
) -> list[dict]:
    """Results, at most 100 an image: four in ten near a box, the others anywhere."""
    near = rng.random(count) < 0.4
    source = rng.integers(0, len(image_N), count)
    stray = random_boxes(rng, count, (480, 640))
    stray[:, 2:] -= stray[:, :2]
    box = np.where(near[:, None], xywh_N4[source] * rng.normal(1.0, 0.12, (count, 4)), stray).clip(0.5).round(2)
    image = np.where(near, image_N[source], rng.integers(1, images + 1, count))
    confused = ~near | (rng.random(count) < 0.2)
    category = np.where(confused, rng.integers(1, classes + 1, count), class_N[source])
    score = np.where(near, rng.beta(4, 3, count), rng.beta(1, 6, count)).round(6)
    columns = zip(image.tolist(), category.tolist(), box.tolist(), score.tolist())
    return [{"image_id": i, "category_id": k, "bbox": b, "score": s} for i, k, b, s in columns]

"""Inputs made from a seed: batches of random pixels and boxes, JPEG files like photos, COCO-sized results.

Legend: B images, G boxes of an image, N rows, 4 = (x1, y1, x2, y2) pixels.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.images import image_header
from retinanet.errors import DataError
from retinanet.structures import Batch, Targets

PHOTO = (480, 640)
"""(height, width) of a generated photo: the usual size of COCO's."""
PHOTOS = 8
MOST_FILES = 256
"""Files that are taken of a folder."""


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
    return Batch(
        images=pixels,
        sizes_B2=sizes_B2,
        original_sizes_B2=sizes_B2.clone(),
        image_ids_B=torch.arange(1, images + 1),
        targets=[random_targets(rng, boxes, size, classes) for _ in range(images)],
    )


def make_dataset(folder: Path, images: Path | None) -> CocoDataset:
    """A data set of the JPEG files in `images`, at most MOST_FILES, or of generated ones in `folder`."""
    if images is None:
        images = folder / "photos"
        write_photos(images, PHOTOS, PHOTO)
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))[:MOST_FILES]
    if not files:
        raise DataError(f"--images {images}: contains no .jpg or .jpeg file")
    annotations = folder / "annotations.json"
    sizes = [image_header(file) for file in files]
    rows = [
        {"id": number, "file_name": file.name, "height": height, "width": width}
        for number, (file, (height, width)) in enumerate(zip(files, sizes, strict=True), start=1)
    ]
    rng = np.random.default_rng(0)
    boxes_N4 = np.concatenate([random_boxes(rng, 3, size) for size in sizes])
    number_N = np.arange(1, len(files) + 1).repeat(3)
    content = _coco(rows, number_N, np.ones_like(number_N), _xywh(boxes_N4), np.zeros(len(boxes_N4), bool), classes=1)
    annotations.write_text(json.dumps(content), encoding="utf-8")
    return load_coco(annotations, images)


def describe_source(images: Path | None) -> str:
    """The files that `make_dataset` takes, for a part's description."""
    return f"the JPEG files of {images}" if images else f"generated photos of {PHOTO[1]} x {PHOTO[0]}"


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """`count` JPEG files of (height, width) like photos to a decoder: smooth shading, edges, some grain."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        photo = _photo(np.random.default_rng(index), size)
        Image.fromarray(photo).save(folder / f"{index + 1:06d}.jpg", quality=90)


def _photo(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    coarse = Image.fromarray(rng.integers(40, 216, (9, 12, 3), dtype=np.uint8))
    photo = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32).copy()
    for x1, y1, x2, y2 in random_boxes(rng, 24, size).astype(int).tolist():
        shade = np.linspace(0.6, 1.2, x2 - x1, dtype=np.float32)[None, :, None]
        photo[y1:y2, x1:x2] = rng.uniform(20, 235, 3).astype(np.float32) * shade
    photo += rng.normal(0.0, 6.0, photo.shape)
    return photo.clip(0, 255).astype(np.uint8)


def coco_results(
    images: int, boxes: int, detections: int, classes: int = 80
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(ground truth, results) as COCO's: most boxes found with some error and class confusion, many false alarms.

    Images are 640 x 480; one box in a hundred is a crowd region.
    """
    rng = np.random.default_rng(0)
    image_N, class_N = rng.integers(1, images + 1, boxes), rng.integers(1, classes + 1, boxes)
    box_N4 = random_boxes(rng, boxes, (480, 640))
    crowd_N = rng.random(boxes) < 0.01
    xywh_N4 = _xywh(box_N4).round(2)
    rows = [{"id": i, "height": 480, "width": 640} for i in range(1, images + 1)]
    truth = _coco(rows, image_N, class_N, xywh_N4, crowd_N, classes)
    return truth, _detections(rng, detections, xywh_N4, image_N, class_N, images, classes)


def _xywh(boxes_N4: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], axis=1)


def _coco(
    images: list[dict[str, Any]],
    image_N: NDArray[np.int64],
    class_N: NDArray[np.int64],
    xywh_N4: NDArray[np.float32],
    crowd_N: NDArray[np.bool_],
    classes: int,
) -> dict[str, Any]:
    """Ground truth as a COCO file holds it."""
    columns = zip(image_N.tolist(), class_N.tolist(), xywh_N4.astype(np.float64).tolist(), crowd_N.tolist())
    annotations = [
        {"id": n, "image_id": i, "category_id": k, "bbox": box, "iscrowd": int(crowd), "area": box[2] * box[3]}
        for n, (i, k, box, crowd) in enumerate(columns, start=1)
    ]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _detections(
    rng: np.random.Generator,
    count: int,
    xywh_N4: NDArray[np.float32],
    image_N: NDArray[np.int64],
    class_N: NDArray[np.int64],
    images: int,
    classes: int,
) -> list[dict[str, Any]]:
    """Results, at most 100 an image: four in ten near a box, the others anywhere."""
    near = rng.random(count) < 0.4
    source = rng.integers(0, len(image_N), count)
    stray = _xywh(random_boxes(rng, count, (480, 640)))
    box = np.where(near[:, None], xywh_N4[source] * rng.normal(1.0, 0.12, (count, 4)), stray).clip(0.5).round(2)
    image = np.where(near, image_N[source], rng.integers(1, images + 1, count))
    confused = ~near | (rng.random(count) < 0.2)
    category = np.where(confused, rng.integers(1, classes + 1, count), class_N[source])
    score = np.where(near, rng.beta(4, 3, count), rng.beta(1, 6, count)).round(6)
    columns = zip(image.tolist(), category.tolist(), box.tolist(), score.tolist())
    return [{"image_id": i, "category_id": k, "bbox": b, "score": s} for i, k, b, s in columns]

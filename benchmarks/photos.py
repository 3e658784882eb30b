"""JPEG files for a loader, as a COCO data set: a folder's own, or generated ones like photos.

Legend: 4 = (x1, y1, x2, y2) pixels.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.scenes import random_boxes
from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.images import image_header
from retinanet.errors import DataError

PHOTO = (480, 640)
"""(height, width) of a generated photo: what COCO's mostly have."""
PHOTOS = 8


def make_dataset(folder: Path, images: Path | None) -> CocoDataset:
    """A data set of the JPEG files in `images`, at most 256, or of generated ones in `folder`."""
    if images is None:
        images = folder / "photos"
        write_photos(images, PHOTOS, PHOTO)
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))[:256]
    if not files:
        raise DataError(f"--images {images}: holds no .jpg or .jpeg file")
    annotations = folder / "annotations.json"
    write_annotations(annotations, files, {file: image_header(file) for file in files})
    return load_coco(annotations, images)


def source_of(images: Path | None) -> str:
    """What `make_dataset` takes, for a part's description."""
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


def write_annotations(path: Path, files: list[Path], size_of: dict[Path, tuple[int, int]]) -> None:
    """A COCO file of one class with three boxes in each image."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, file in enumerate(files, start=1):
        height, width = size_of[file]
        images.append({"id": number, "file_name": file.name, "height": height, "width": width})
        for x1, y1, x2, y2 in random_boxes(rng, 3, (height, width)).tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            annotations.append({**row, "area": box[2] * box[3]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    path.write_text(json.dumps(content), encoding="utf-8")

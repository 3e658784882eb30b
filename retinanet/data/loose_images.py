"""Images of any origin: files, folders and patterns, each image a batch of its own."""

import glob
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retinanet.data.coco import ImageRecord
from retinanet.data.images import FORMATS, decode_image
from retinanet.data.transforms import NO_AUGMENT, Sizing, collate, make_sample
from retinanet.errors import DataFault, list_faults
from retinanet.structures import Batch


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders (their images, not of subfolders) and glob patterns name, each once, in order.

    DataFault lists every input that names nothing.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    found: dict[Path, None] = {}
    faults = []
    for word in inputs:
        path = Path(word)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(Path(p) for p in glob.glob(word, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not matches:
            faults.append(
                f"{word}: {'no image in this folder' if path.is_dir() else 'no such file, folder or pattern'}"
            )
        found.update(dict.fromkeys(matches))
    if faults:
        raise DataFault(list_faults("no images to read", faults))
    return list(found)


def one_image(path: Path, image_id: int, sizing: Sizing) -> tuple[torch.Tensor, Batch]:
    """The stored image, (3, h, w) uint8, and a batch of it alone. DataFault for a file that is no whole image."""
    image = decode_image(path)
    height, width = int(image.shape[-2]), int(image.shape[-1])
    no_boxes = np.zeros((0, 4), dtype=np.float32)
    record = ImageRecord(image_id, path, height, width, no_boxes, np.zeros(0, dtype=np.int64), no_boxes)
    shorter = sizing.shorter_side[-1]
    fitted = sizing.fitted(height, width, shorter)
    canvas = sizing.image_canvas(fitted, sizing.shape_group(height, width), shorter)
    sample = make_sample(image, record, fitted, canvas, NO_AUGMENT, np.random.default_rng(0), sizing.resize)
    return image, collate([sample], canvas)

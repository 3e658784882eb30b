"""Images that belong to no data set, each a batch of its own."""

from pathlib import Path

import numpy as np
import torch

from retinanet.data.coco import ImageRecord
from retinanet.data.images import decode_image
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.transforms import NO_AUGMENT, ResizeRule, collate, draw_changes, make_sample
from retinanet.structures import Batch


def one_image(
    path: Path, image_id: int, resize_rule: ResizeRule, depth_range: DepthRange | None = None
) -> tuple[torch.Tensor, Batch]:
    """The stored image, (3, h, w) uint8, and a batch of it alone. Raises DataError as `decode_image`."""
    image = decode_image(path, depth_range, warn=False)
    height, width = int(image.shape[-2]), int(image.shape[-1])
    no_boxes = np.zeros((0, 4), dtype=np.float32)
    record = ImageRecord(
        id=image_id,
        path=path,
        height=height,
        width=width,
        boxes_G4=no_boxes,
        classes_G=np.zeros(0, dtype=np.int64),
        crowd_C4=no_boxes,
    )
    shorter = resize_rule.shorter_side[-1]
    fitted = resize_rule.fitted(height, width, shorter)
    canvas = resize_rule.image_canvas(fitted, resize_rule.aspect_bucket(height, width), shorter)
    draws = draw_changes(np.random.default_rng(0))
    sample = make_sample(image, record, fitted, canvas, NO_AUGMENT, draws, resize_rule.resize)
    return image, collate([sample], canvas)

"""pictures/train_batch.jpg: the first batch as the network sees it, with its boxes and positive anchors."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retinanet.data.transforms import PixelRule, normalise
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.assign import AnyAssignRule, assign
from retinanet.display.drawing import Boxes, BoxStyle, class_colors, contact_sheet, draw_boxes, save_picture
from retinanet.structures import Batch, Category

MOST_IMAGES = 16
SIDE = 560
"""Pixels of a panel's longer side."""
COLUMNS = 4
_NO_ANCHOR = (225, 30, 30)
_IGNORED = (150, 150, 150)


class NetworkView(NamedTuple):
    """How a batch becomes the network's input and its targets."""

    pixels: PixelRule
    channels_last: bool
    anchors: AnchorSpec
    rule: AnyAssignRule
    categories: tuple[Category, ...]


def draw_train_batch(path: Path, batches: list[Batch], view: NetworkView) -> None:
    """Write the picture: at most MOST_IMAGES images of the micro-batches, padding and all.

    Each box has its class's name and its number of positive anchors, which are drawn as thin lines; a box without any
    is red, and what training ignores is grey and dashed.
    """
    panels: list[NDArray[np.uint8]] = []
    for batch in batches:
        count = min(len(batch.targets), MOST_IMAGES - len(panels))
        images = seen_images(batch.images[:count], batch.sizes_B2[:count], view)
        panels += [draw_input(images[index], batch, index, view) for index in range(count)]
    title = "first training batch, as the network sees it: class and number of positive anchors (thin lines)"
    save_picture(path, contact_sheet(panels, columns=min(COLUMNS, len(panels)), title=f"{title}; red: none"))


def seen_images(images: Tensor, sizes_B2: Tensor, view: NetworkView) -> NDArray[np.uint8]:
    """(B, H, W, 3) RGB: normalised as for the network, and back again, so that padding has the mean colour."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (view.pixels.mean, view.pixels.std))
    restored = normalise(images, sizes_B2, view.pixels, view.channels_last) * std + mean
    if view.pixels.order == "bgr":
        restored = restored.flip(1)
    seen: NDArray[np.uint8] = restored.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return seen


def draw_input(image_HW3: NDArray[np.uint8], batch: Batch, index: int, view: NetworkView) -> NDArray[np.uint8]:
    """One image of a batch at SIDE pixels with its boxes, anchors and ignored regions."""
    height, width = image_HW3.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = np.array(Image.fromarray(image_HW3).resize(size, Image.Resampling.BICUBIC))
    targets = batch.targets[index]
    pyramid = pyramid_anchors((height, width), view.anchors, torch.device("cpu"))
    labels_A, matched_A = assign(pyramid, targets, view.rule)
    positive_A = labels_A >= 0
    matched_P, classes_G = matched_A[positive_A].numpy(), targets.classes_G.tolist()
    colors = class_colors(len(view.categories))
    anchors = Boxes(pyramid.boxes_A4[positive_A].numpy() * scale, [colors[classes_G[match]] for match in matched_P])
    ignored = Boxes(
        targets.crowd_C4.numpy() * scale, [_IGNORED] * len(targets.crowd_C4), dashed=[True] * len(targets.crowd_C4)
    )
    counts = np.bincount(matched_P, minlength=len(classes_G)).tolist()
    names = [view.categories[k].name for k in classes_G]
    objects = Boxes(
        targets.boxes_G4.numpy() * scale,
        [colors[k] if count else _NO_ANCHOR for k, count in zip(classes_G, counts)],
        [f"{name} {count}" for name, count in zip(names, counts)],
    )
    # Half transparent, or the anchors of crowded images would hide what is in them.
    faint = draw_boxes(picture, anchors, BoxStyle(width=1, enlarge=1)) // 2 + picture // 2
    return draw_boxes(draw_boxes(faint, ignored, BoxStyle(width=2, enlarge=1)), objects, BoxStyle(width=3, enlarge=1))

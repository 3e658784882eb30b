"""Boxes on canvases, made by hand or at random, for the tests of anchors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.detection.anchors import AnchorSpec
from retinanet.diagnostics.anchors.recall import PlacedBoxes

SQUARES = AnchorSpec((32.0, 64.0, 128.0, 256.0, 512.0), (1.0,), (1.0,), 0.5, "none", "stride")
"""One square anchor per cell."""


def placed_boxes(
    boxes_N4: NDArray[np.floating],
    canvas_N: NDArray[np.int64] | None = None,
    canvases: tuple[tuple[int, int], ...] = ((512, 512),),
) -> PlacedBoxes:
    """Boxes of class 0 in images 7, 8, ... that were not resized."""
    zeros = np.zeros(len(boxes_N4), np.int64)
    return PlacedBoxes(
        boxes_N4=boxes_N4.astype(np.float32),
        areas_N=(boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(axis=1).astype(np.float32),
        classes_N=zeros,
        image_ids_N=np.arange(len(boxes_N4)) + 7,
        canvas_N=zeros if canvas_N is None else canvas_N,
        canvases=canvases,
    )


def placed_squares(sides: Sequence[float]) -> PlacedBoxes:
    """Squares around (60, 60), the centre of a cell of P3."""
    sides_N1 = np.array(sides)[:, None]
    return placed_boxes(np.concatenate([60 - sides_N1 / 2] * 2 + [60 + sides_N1 / 2] * 2, axis=1))


def random_placed(count: int, seed: int) -> PlacedBoxes:
    """Boxes about 2.8 times as high as wide."""
    rng = np.random.default_rng(seed)
    sides_N2 = np.exp(rng.normal(np.log([18.0, 50.0]), 0.3, (count, 2)))
    low_N2 = rng.uniform(0, 400, (count, 2))
    return placed_boxes(np.concatenate([low_N2, low_N2 + sides_N2], axis=1))

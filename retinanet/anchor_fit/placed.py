"""Ground-truth boxes of a data set where the network sees them: resized, on their canvases.

Legend: N boxes of a data set, 4 = (x1, y1, x2, y2), G objects of an image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.coco import ImageRecord
from retinanet.data.transforms import Sizing


class PlacedBoxes(NamedTuple):
    """All objects (no crowd) of a data set, image by image, unaugmented, at the shorter side of evaluation."""

    boxes_N4: NDArray[np.float32]
    """(N, 4) canvas frame."""
    areas_N: NDArray[np.float32]
    """(N,) width x height in square pixels of the stored image."""
    classes_N: NDArray[np.int64]
    """(N,) class index."""
    image_ids_N: NDArray[np.int64]
    canvas_N: NDArray[np.int64]
    """(N,) index into `canvases`."""
    canvases: tuple[tuple[int, int], ...]
    """(height, width) of each canvas that has boxes."""

    @property
    def sides_N2(self) -> NDArray[np.float64]:
        """(N, 2) width and height, canvas pixels."""
        return self.boxes_N4[:, 2:].astype(np.float64) - self.boxes_N4[:, :2]

    def chosen(self, index_M: NDArray[np.int64]) -> "PlacedBoxes":
        """Only the boxes at these indices, in their order."""
        return PlacedBoxes(
            self.boxes_N4[index_M],
            self.areas_N[index_M],
            self.classes_N[index_M],
            self.image_ids_N[index_M],
            self.canvas_N[index_M],
            self.canvases,
        )


def place_boxes(images: Sequence[ImageRecord], sizing: Sizing) -> PlacedBoxes:
    """Where the objects of `images` lie when each is evaluated alone, as `data.loader.eval_batches` gives them."""
    shorter = sizing.shorter_side[-1]
    canvases: dict[tuple[int, int], int] = {}
    boxes, areas = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    counts, canvas_I = [], []
    for record in images:
        height, width = sizing.fitted(record.height, record.width, shorter)
        scale = np.array([width / record.width, height / record.height] * 2, dtype=np.float32)
        sides_G2 = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
        boxes.append(record.boxes_G4 * scale)
        areas.append(sides_G2[:, 0] * sides_G2[:, 1])
        counts.append(len(sides_G2))
        canvas = sizing.image_canvas((height, width), sizing.shape_group(record.height, record.width), shorter)
        canvas_I.append(canvases.setdefault(canvas, len(canvases)) if len(sides_G2) else 0)
    return PlacedBoxes(
        np.concatenate(boxes),
        np.concatenate(areas),
        np.concatenate([np.zeros(0, np.int64), *(record.classes_G for record in images)]),
        np.repeat(np.array([record.id for record in images], dtype=np.int64), counts),
        np.repeat(np.array(canvas_I, dtype=np.int64), counts),
        tuple(canvases),
    )

"""Boxes of a part of an image, and of its mirror image.

Boxes are (x1, y1, x2, y2), x2 and y2 exclusive, in pixels of the image that they are passed or returned with.
"""

import numpy as np
from numpy.typing import NDArray

LEAST_VISIBLE = 0.3
"""A cropped object that keeps less of its area than this becomes a region that training ignores."""

Boxes = NDArray[np.float32]


def mirror(boxes_N4: Boxes, extent: int, axis: int) -> Boxes:
    """Boxes (N, 4) mirrored in a frame of `extent` pixels; axis 0 is x, 1 is y."""
    mirrored = boxes_N4.copy()
    mirrored[:, axis], mirrored[:, axis + 2] = extent - boxes_N4[:, axis + 2], extent - boxes_N4[:, axis]
    return mirrored


def crop_boxes(
    boxes_G4: Boxes, classes_G: NDArray[np.int64], crowd_C4: Boxes, window: tuple[int, int, int, int]
) -> tuple[Boxes, NDArray[np.int64], Boxes]:
    """Boxes, classes and crowd regions within a (top, left, height, width) window, in the window's frame.

    Objects that keep less than LEAST_VISIBLE of their area become crowd regions.
    """
    top, left, height, width = window

    def cut(boxes_N4: Boxes) -> tuple[Boxes, NDArray[np.float32]]:
        moved = boxes_N4 - np.array([left, top, left, top], dtype=np.float32)
        inside = np.clip(moved, 0, np.array([width, height, width, height], dtype=np.float32))
        return inside, (inside[:, 2:] - inside[:, :2]).prod(axis=1)

    boxes, seen = cut(boxes_G4)
    share = seen / np.maximum((boxes_G4[:, 2:] - boxes_G4[:, :2]).prod(axis=1), 1e-6)
    crowd, crowd_seen = cut(crowd_C4)
    kept, fragment = share >= LEAST_VISIBLE, (share < LEAST_VISIBLE) & (seen > 0)
    return boxes[kept], classes_G[kept], np.concatenate([crowd[crowd_seen > 0], boxes[fragment]])

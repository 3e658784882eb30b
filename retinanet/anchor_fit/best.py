"""The best anchor of every box, without comparing it with all anchors.

Two intervals of lengths a and b whose centres are d apart share min(a, b, (a + b) / 2 - d), or nothing where that is
negative: the less, the further apart they are. All anchors of a cell have one centre, and a shape is the same in every
cell of a level. So the intersection of a shape with a box, the product of what their widths and their heights share,
is largest in the column nearest in x and the row nearest in y; as both areas are fixed, so is IoU. One cell of each
level therefore gives the maximum over all anchors, and it does not depend on their sizes.

Legend: N boxes, L levels, R rows or columns of a level, C anchors of a cell, 2 = (x, y), canvas pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.anchor_fit.placed import PlacedBoxes
from retinanet.anchors import STRIDES, AnchorSpec, cell_anchors, pyramid_anchors

BLOCK = 1 << 15
"""Boxes worked on at once: some tens of MB."""

Floats = NDArray[np.float64]


class BestAnchors(NamedTuple):
    """Of each box, the anchor with the highest IoU; of equal ones the finest level's."""

    iou_N: Floats
    level_N: NDArray[np.int64]
    """(N,) 0 is P3, ... 4 is P7."""
    shape_N: NDArray[np.int64]
    """(N,) place among the cell's anchors: aspect ratio outermost, scale innermost."""


def best_anchors(placed: PlacedBoxes, spec: AnchorSpec) -> BestAnchors:
    """The best anchor of every box on its own canvas."""
    return best_shapes(placed.sides_N2, nearest_cells(placed, spec), spec)


def nearest_cells(placed: PlacedBoxes, spec: AnchorSpec) -> Floats:
    """(L, N, 2) how far the nearest cell's centre is from each box's, on each level.

    Of `spec`, only offset and spacing matter.
    """
    distances_LN2 = np.zeros((len(STRIDES), len(placed.boxes_N4), 2))
    for number, (height, width) in enumerate(placed.canvases):
        of_canvas = np.flatnonzero(placed.canvas_N == number)
        boxes_M4 = placed.boxes_N4[of_canvas].astype(np.float64)
        centres_M2 = (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2
        pyramid = pyramid_anchors((height, width), spec, torch.device("cpu"))
        for level, anchors in enumerate(pyramid.boxes_A4.split(list(pyramid.level_sizes))):
            cells = (-(-height // STRIDES[level]), -(-width // STRIDES[level]))
            grid = anchors[:: spec.per_cell].double().numpy().reshape(*cells, 2, 2).mean(axis=2)
            for axis, centres_R in enumerate((grid[0, :, 0], grid[:, 0, 1])):
                distances_LN2[level, of_canvas, axis] = _least_distances(centres_R, centres_M2[:, axis])
    return distances_LN2


def best_shapes(sides_N2: Floats, distances_LN2: Floats, spec: AnchorSpec) -> BestAnchors:
    """The best anchor of boxes with these sides, so far from the nearest cell of each level (`nearest_cells`)."""
    count = len(sides_N2)
    best = BestAnchors(np.full(count, -1.0), np.zeros(count, np.int64), np.zeros(count, np.int64))
    for level, (size, stride) in enumerate(zip(spec.sizes, STRIDES, strict=True)):
        cell_C4 = cell_anchors(size, stride, spec).double().numpy()
        shapes_C2 = cell_C4[:, 2:] - cell_C4[:, :2]
        for first in range(0, count, BLOCK):
            block = slice(first, first + BLOCK)
            iou_CM = _iou(shapes_C2, sides_N2[block], distances_LN2[level, block])
            value_M = iou_CM.max(axis=0)
            better = first + np.flatnonzero(value_M > best.iou_N[block])
            best.iou_N[better] = value_M[better - first]
            best.level_N[better] = level
            best.shape_N[better] = iou_CM[:, better - first].argmax(axis=0)
    return best


def _least_distances(centres_R: Floats, wanted_M: Floats) -> Floats:
    """(M,) from each wanted place to the nearest of the rising centres."""
    after_M = np.searchsorted(centres_R, wanted_M).clip(0, len(centres_R) - 1)
    before_M = (after_M - 1).clip(0)
    return np.minimum(np.abs(centres_R[after_M] - wanted_M), np.abs(centres_R[before_M] - wanted_M))


def _iou(shapes_C2: Floats, sides_M2: Floats, distances_M2: Floats) -> Floats:
    """(C, M) of shapes and boxes whose centres are so far apart; 0 where the union is empty."""
    shared_CM = np.ones((len(shapes_C2), len(sides_M2)))
    for axis in range(2):
        ours_C1, theirs_M = shapes_C2[:, axis, None], sides_M2[:, axis]
        reach_CM = (ours_C1 + theirs_M) / 2 - distances_M2[:, axis]
        shared_CM *= np.minimum(np.minimum(ours_C1, theirs_M), reach_CM).clip(0)
    union_CM = shapes_C2.prod(axis=1)[:, None] + sides_M2.prod(axis=1) - shared_CM
    return shared_CM / np.maximum(union_CM, np.finfo(np.float64).tiny)

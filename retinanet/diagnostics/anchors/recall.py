"""How well a pyramid's anchors cover the boxes of a data set, before any training.

A box whose best anchor stays below the positive threshold has no positive anchor, unless `assign.low_quality` of the
config makes its best anchor positive.

Legend: N boxes of a data set.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from retinanet.data.coco import ImageRecord
from retinanet.data.transforms import ResizeRule
from retinanet.detection.anchors import AnchorSpec, cell_anchors, pyramid_anchors
from retinanet.scoring.matches import AREA_RANGES, AREAS


class PlacedBoxes(NamedTuple):
    """All objects (no crowd) of a data set, image by image, not augmented, at the shorter side of evaluation."""

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
        """The boxes at these indices, in the order of the indices."""
        return self._replace(
            boxes_N4=self.boxes_N4[index_M],
            areas_N=self.areas_N[index_M],
            classes_N=self.classes_N[index_M],
            image_ids_N=self.image_ids_N[index_M],
            canvas_N=self.canvas_N[index_M],
        )


BLOCK = 1 << 15
"""Boxes per block of the computation, which bounds memory to some tens of MB."""


Floats = NDArray[np.float64]


class BestAnchors(NamedTuple):
    """The anchor with the highest IoU with each box; of equal ones, that of the finest level."""

    iou_N: Floats
    level_N: NDArray[np.int64]
    """(N,) index into the levels, finest first."""
    shape_N: NDArray[np.int64]
    """(N,) index among the cell's anchors: aspect ratio outermost, scale innermost."""


CANVAS_SIDES = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Bounds between groups of boxes: square roots of areas in canvas pixels."""

ALL, BY_SIZE, BY_SIDE, BY_LEVEL = "all", "size", "side on the canvas", "level of the best anchor"


class Group(NamedTuple):
    """Boxes of one size or level."""

    by: str
    """ALL, BY_SIZE, BY_SIDE or BY_LEVEL."""
    name: str
    boxes: int
    mean_iou: float
    """Mean of the best IoU; NaN without boxes."""
    positive: int
    """Boxes whose best IoU is at least the positive threshold."""
    ignored: int
    """Boxes between both thresholds: their best anchors are ignored by the loss."""
    missed: int
    """Boxes below the negative threshold: their best anchors are trained as background."""


class WorstBox(NamedTuple):
    """One of the boxes that the anchors fit worst."""

    image_id: int
    class_index: int
    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2) in canvas pixels."""
    iou: float
    level: str


class AnchorRecall(NamedTuple):
    """The best IoU of every box, aggregated by size and level."""

    iou_N: NDArray[np.float64]
    sides_N: NDArray[np.float64]
    """(N,) square root of the area, canvas pixels."""
    size_N: NDArray[np.int64]
    """(N,) 0 small, 1 medium, 2 large by COCO's areas in pixels of the stored image."""
    level_N: NDArray[np.int64]
    """(N,) of the best anchor: index into the levels, finest first."""
    thresholds: tuple[float, float]
    """Negative and positive."""
    groups: tuple[Group, ...]
    """ALL first, then BY_SIZE, BY_SIDE (those with boxes) and BY_LEVEL."""
    worst: tuple[WorstBox, ...]
    """Lowest best IoU first."""

    @property
    def overall(self) -> Group:
        """The group of all boxes."""
        return self.groups[0]

    def of(self, by: str) -> tuple[Group, ...]:
        """The groups of one kind, in order."""
        return tuple(group for group in self.groups if group.by == by)


def anchor_recall(
    placed: PlacedBoxes, spec: AnchorSpec, *, positive_iou: float, negative_iou: float, worst: int = 5
) -> AnchorRecall:
    """The best IoU that any anchor of `spec` has with each box, aggregated, and the `worst` boxes that fit worst.

    Without boxes, all counts are 0.
    """
    best = best_anchors(placed, spec)
    sides_N = np.sqrt(placed.sides_N2.prod(axis=1))
    size_N = np.searchsorted([least for least, _ in AREA_RANGES[2:]], placed.areas_N, side="right")
    side_N = np.searchsorted(CANVAS_SIDES, sides_N, side="right")
    thresholds = (negative_iou, positive_iou)

    def grouped(by: str, names: tuple[str, ...], which_N: NDArray[np.int64]) -> list[Group]:
        return [_group(by, name, best.iou_N[which_N == number], thresholds) for number, name in enumerate(names)]

    groups = [
        _group(ALL, "all boxes", best.iou_N, thresholds),
        *grouped(BY_SIZE, AREAS[1:], size_N),
        *(group for group in grouped(BY_SIDE, _side_names(), side_N) if group.boxes),
        *grouped(BY_LEVEL, spec.levels, best.level_N),
    ]
    order = np.argsort(best.iou_N, kind="stable")[:worst].tolist()
    return AnchorRecall(
        iou_N=best.iou_N,
        sides_N=sides_N,
        size_N=size_N,
        level_N=best.level_N,
        thresholds=thresholds,
        groups=tuple(groups),
        worst=tuple(_worst_box(placed, best, index, spec.levels) for index in order),
    )


def _group(by: str, name: str, iou_N: NDArray[np.float64], thresholds: tuple[float, float]) -> Group:
    negative, positive = thresholds
    reached = int(np.count_nonzero(iou_N >= positive))
    missed = int(np.count_nonzero(iou_N < negative))
    mean = float(iou_N.mean()) if len(iou_N) else float("nan")
    return Group(
        by=by,
        name=name,
        boxes=len(iou_N),
        mean_iou=mean,
        positive=reached,
        ignored=len(iou_N) - reached - missed,
        missed=missed,
    )


def _worst_box(placed: PlacedBoxes, best: BestAnchors, index: int, levels: tuple[str, ...]) -> WorstBox:
    x1, y1, x2, y2 = placed.boxes_N4[index].tolist()
    return WorstBox(
        image_id=int(placed.image_ids_N[index]),
        class_index=int(placed.classes_N[index]),
        box=(x1, y1, x2, y2),
        iou=float(best.iou_N[index]),
        level=levels[best.level_N[index]],
    )


def _side_names() -> tuple[str, ...]:
    """Names of the groups between CANVAS_SIDES, in pixels."""
    bounds = [f"{bound:g}" for bound in CANVAS_SIDES]
    between = [f"{low} to {high}" for low, high in pairwise(bounds)]
    return (f"under {bounds[0]}", *between, f"{bounds[-1]} and more")


def place_boxes(images: Sequence[ImageRecord], resize_rule: ResizeRule) -> PlacedBoxes:
    """Where the objects of `images` lie when each image is evaluated alone: the boxes of `data.loader.eval_batches`."""
    shorter = resize_rule.shorter_side[-1]
    canvases: dict[tuple[int, int], int] = {}
    boxes, areas = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    counts, canvas_I = [], []
    for record in images:
        height, width = resize_rule.fitted(record.height, record.width, shorter)
        scale = np.array([width / record.width, height / record.height] * 2, dtype=np.float32)
        sides_G2 = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
        boxes.append(record.boxes_G4 * scale)
        areas.append(sides_G2[:, 0] * sides_G2[:, 1])
        counts.append(len(sides_G2))
        canvas = resize_rule.image_canvas(
            (height, width), resize_rule.aspect_bucket(record.height, record.width), shorter
        )
        canvas_I.append(canvases.setdefault(canvas, len(canvases)) if len(sides_G2) else 0)
    return PlacedBoxes(
        boxes_N4=np.concatenate(boxes),
        areas_N=np.concatenate(areas),
        classes_N=np.concatenate([np.zeros(0, np.int64), *(record.classes_G for record in images)]),
        image_ids_N=np.repeat(np.array([record.id for record in images], dtype=np.int64), counts),
        canvas_N=np.repeat(np.array(canvas_I, dtype=np.int64), counts),
        canvases=tuple(canvases),
    )


def best_anchors(placed: PlacedBoxes, spec: AnchorSpec) -> BestAnchors:
    """The best anchor of every box on its own canvas."""
    return best_shapes(placed.sides_N2, nearest_cells(placed, spec), spec)


def nearest_cells(placed: PlacedBoxes, spec: AnchorSpec) -> Floats:
    """(L, N, 2) distance in x and y from each box's centre to the centre of the nearest cell of each level.

    Of `spec`, only offset and spacing matter.
    """
    distances_LN2 = np.zeros((len(spec.sizes), len(placed.boxes_N4), 2))
    for number, (height, width) in enumerate(placed.canvases):
        of_canvas = np.flatnonzero(placed.canvas_N == number)
        boxes_M4 = placed.boxes_N4[of_canvas].astype(np.float64)
        centres_M2 = (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2
        pyramid = pyramid_anchors((height, width), spec, torch.device("cpu"))
        for level, anchors in enumerate(torch.split(pyramid.boxes_A4, list(pyramid.level_sizes))):
            cells = (-(-height // spec.strides[level]), -(-width // spec.strides[level]))
            grid = anchors[:: spec.per_cell].double().numpy().reshape(*cells, 2, 2).mean(axis=2)
            for axis, centres_R in enumerate((grid[0, :, 0], grid[:, 0, 1])):
                distances_LN2[level, of_canvas, axis] = _least_distances(centres_R, centres_M2[:, axis])
    return distances_LN2


def best_shapes(sides_N2: Floats, distances_LN2: Floats, spec: AnchorSpec) -> BestAnchors:
    """The best anchor of boxes with these sides at these distances from the nearest cells (`nearest_cells`)."""
    count = len(sides_N2)
    best = BestAnchors(np.full(count, -1.0), np.zeros(count, np.int64), np.zeros(count, np.int64))
    for level, (size, stride) in enumerate(zip(spec.sizes, spec.strides, strict=True)):
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


def _least_distances(centres_R: Floats, position_M: Floats) -> Floats:
    """(M,) distance from each position to the nearest of the centres, which are in rising order."""
    after_M = np.searchsorted(centres_R, position_M).clip(0, len(centres_R) - 1)
    before_M = (after_M - 1).clip(0)
    distance_M: Floats = np.minimum(np.abs(centres_R[after_M] - position_M), np.abs(centres_R[before_M] - position_M))
    return distance_M


def _iou(shapes_C2: Floats, sides_M2: Floats, distances_M2: Floats) -> Floats:
    """(C, M) IoU of shapes and boxes whose centres are at these distances; 0 where the union is empty."""
    shared_CM = np.ones((len(shapes_C2), len(sides_M2)))
    for axis in range(2):
        shape_C1, side_M = shapes_C2[:, axis, None], sides_M2[:, axis]
        reach_CM = (shape_C1 + side_M) / 2 - distances_M2[:, axis]
        shared_CM *= np.minimum(np.minimum(shape_C1, side_M), reach_CM).clip(0)
    union_CM = shapes_C2.prod(axis=1)[:, None] + sides_M2.prod(axis=1) - shared_CM
    iou_CM: Floats = shared_CM / np.maximum(union_CM, np.finfo(np.float64).tiny)
    return iou_CM

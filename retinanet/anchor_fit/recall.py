"""How well a pyramid's anchors cover the boxes of a data set, before any network has learned anything.

A box whose best anchor stays below the positive threshold is learned by no anchor unless config `assign.low_quality`
gives it that one anchor.

Legend: N boxes of a data set.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.anchor_fit.best import BestAnchors, best_anchors
from retinanet.anchor_fit.placed import PlacedBoxes
from retinanet.anchors import STRIDES, AnchorSpec

COCO_SIDES = (32.0, 96.0)
"""COCO's bounds between small, medium and large: square roots of areas in pixels of the stored image."""
CANVAS_SIDES = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Bounds between finer groups: square roots of areas in canvas pixels."""
LEVELS = tuple(f"P{level}" for level in range(3, 3 + len(STRIDES)))

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
    """Between both thresholds: their best anchors are left out of the loss."""
    missed: int
    """Below the negative threshold: their best anchors are trained as background."""


class WorstBox(NamedTuple):
    """A box that no anchor fits."""

    image_id: int
    class_index: int
    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2) in canvas pixels."""
    iou: float
    level: str


class AnchorRecall(NamedTuple):
    """The best IoU of every box, and what it comes to by size and level."""

    iou_N: NDArray[np.float64]
    sides_N: NDArray[np.float64]
    """(N,) square root of the area, canvas pixels."""
    size_N: NDArray[np.int64]
    """(N,) 0 small, 1 medium, 2 large by COCO_SIDES."""
    level_N: NDArray[np.int64]
    """(N,) of the best anchor: 0 is P3, ... 4 is P7."""
    thresholds: tuple[float, float]
    """Negative and positive."""
    groups: tuple[Group, ...]
    """ALL first, then BY_SIZE, BY_SIDE (those with boxes) and BY_LEVEL."""
    worst: tuple[WorstBox, ...]
    """Lowest best IoU first."""

    @property
    def overall(self) -> Group:
        return self.groups[0]

    def of(self, by: str) -> tuple[Group, ...]:
        """The groups of one kind, in order."""
        return tuple(group for group in self.groups if group.by == by)


def anchor_recall(
    placed: PlacedBoxes, spec: AnchorSpec, *, positive_iou: float, negative_iou: float, worst: int = 5
) -> AnchorRecall:
    """The best IoU that any anchor of `spec` has with each box, aggregated; `worst` boxes are named.

    A data set without boxes is fine: all counts are 0.
    """
    best = best_anchors(placed, spec)
    sides_N = np.sqrt(placed.sides_N2.prod(axis=1))
    size_N = np.searchsorted(np.square(COCO_SIDES), placed.areas_N, side="right")
    side_N = np.searchsorted(CANVAS_SIDES, sides_N, side="right")
    thresholds = (negative_iou, positive_iou)

    def grouped(by: str, names: tuple[str, ...], which_N: NDArray[np.int64]) -> list[Group]:
        return [_group(by, name, best.iou_N[which_N == number], thresholds) for number, name in enumerate(names)]

    groups = [
        _group(ALL, "all boxes", best.iou_N, thresholds),
        *grouped(BY_SIZE, ("small", "medium", "large"), size_N),
        *(group for group in grouped(BY_SIDE, _side_names(), side_N) if group.boxes),
        *grouped(BY_LEVEL, LEVELS, best.level_N),
    ]
    named = tuple(_named(placed, best, index) for index in np.argsort(best.iou_N, kind="stable")[:worst].tolist())
    return AnchorRecall(best.iou_N, sides_N, size_N, best.level_N, thresholds, tuple(groups), named)


def _group(by: str, name: str, iou_N: NDArray[np.float64], thresholds: tuple[float, float]) -> Group:
    negative, positive = thresholds
    reached = int(np.count_nonzero(iou_N >= positive))
    missed = int(np.count_nonzero(iou_N < negative))
    mean = float(iou_N.mean()) if len(iou_N) else float("nan")
    return Group(by, name, len(iou_N), mean, reached, len(iou_N) - reached - missed, missed)


def _named(placed: PlacedBoxes, best: BestAnchors, index: int) -> WorstBox:
    x1, y1, x2, y2 = placed.boxes_N4[index].tolist()
    return WorstBox(
        int(placed.image_ids_N[index]),
        int(placed.classes_N[index]),
        (x1, y1, x2, y2),
        float(best.iou_N[index]),
        LEVELS[best.level_N[index]],
    )


def _side_names() -> tuple[str, ...]:
    """Names of the groups that CANVAS_SIDES bound, pixels."""
    bounds = [f"{bound:g}" for bound in CANVAS_SIDES]
    between = [f"{low} to {high}" for low, high in pairwise(bounds)]
    return (f"under {bounds[0]}", *between, f"{bounds[-1]} and more")

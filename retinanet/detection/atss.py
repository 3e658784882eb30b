"""Adaptive Training Sample Selection (Zhang et al., arXiv 1912.02424, section 4.1 and algorithm 1). Pure functions.

Each box sets its own IoU threshold from the anchors near it. What the text leaves open follows the authors' code.

Legend: A anchors, G boxes, C candidates of a box over all levels; boxes in the canvas frame.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.detection import boxes
from retinanet.detection.anchors import Pyramid

GRID = 64
"""Steps a pixel to which anchors' centres are rounded, so that those of one cell are equally far from a box although
their corners were rounded."""

LEAST_DEPTH = 0.01
"""Pixels that an anchor's centre must be inside its box (the authors' code)."""

MOST_PAIRS = 1 << 24
"""Maximum anchor-box pairs at a time; bounds memory."""


class AtssRule(NamedTuple):
    """How anchors are selected."""

    candidates: int
    """Anchors of each level that are candidates of a box: k of the paper, times the anchors of a cell."""
    crowd_overlap: float
    """See `assign.AssignRule`."""


def centres(boxes_N4: Tensor) -> Tensor:
    """(N, 2) centres of boxes."""
    return (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2


def nearest(centres_A2: Tensor, centres_G2: Tensor, count: int) -> Tensor:
    """(G, min(count, A)) indices of the anchors closest to each box, ascending; of equally far ones the first."""
    distance_GA = torch.zeros(len(centres_G2), len(centres_A2), device=centres_A2.device)
    for axis in range(2):
        distance_GA += (centres_G2[:, axis, None] - centres_A2[None, :, axis]).square()
    count = min(count, len(centres_A2))
    last_G1 = distance_GA.topk(count, dim=1, largest=False).values.amax(dim=1, keepdim=True)
    closer_GA, tied_GA = distance_GA < last_G1, distance_GA == last_G1
    places_G1 = count - closer_GA.sum(dim=1, keepdim=True)
    chosen_GA = closer_GA | (tied_GA & (tied_GA.cumsum(dim=1) <= places_G1))
    return chosen_GA.nonzero()[:, 1].view(len(centres_G2), count)


def claims(pyramid: Pyramid, boxes_G4: Tensor, candidates: int) -> Tensor:
    """(G, A) float32: IoU of each box with the anchors that it selects, -1 elsewhere.

    A box selects those of its candidates whose IoU is at least the mean of the candidates' IoUs plus their standard
    deviation (of a sample, as in the authors' code) and whose centre is inside the box.
    """
    centres_A2 = (centres(pyramid.boxes_A4) * GRID).round() / GRID
    levels = centres_A2.split(list(pyramid.level_sizes))
    starts = torch.tensor([0, *pyramid.level_sizes[:-1]]).cumsum(0).tolist()
    index_GC = torch.cat(
        [
            nearest(level_A2, centres(boxes_G4), candidates) + start
            for level_A2, start in zip(levels, starts, strict=True)
        ],
        dim=1,
    )
    iou_GC = boxes.iou(boxes_G4, pyramid.boxes_A4).gather(1, index_GC)
    correction = 1 if iou_GC.shape[1] > 1 else 0
    threshold_G1 = iou_GC.mean(dim=1, keepdim=True) + iou_GC.std(dim=1, correction=correction, keepdim=True)
    centre_GC2 = centres_A2[index_GC]
    depth_GC = torch.cat([centre_GC2 - boxes_G4[:, None, :2], boxes_G4[:, None, 2:] - centre_GC2], dim=2).amin(dim=2)
    selected_GC = (iou_GC >= threshold_G1) & (depth_GC > LEAST_DEPTH)
    nothing_GA = boxes_G4.new_full((len(boxes_G4), len(centres_A2)), -1.0)
    return nothing_GA.scatter(1, index_GC, torch.where(selected_GC, iou_GC, -1.0))


@torch.no_grad()
def select(pyramid: Pyramid, boxes_G4: Tensor, candidates: int) -> Tensor:
    """(A,) int64: the box that each anchor learns, -1 for none.

    An anchor that several boxes select learns the one with the highest IoU, of equal ones the first.
    """
    anchors = len(pyramid.boxes_A4)
    best_A = boxes_G4.new_full((anchors,), -1.0)
    matched_A = torch.full((anchors,), -1, dtype=torch.int64, device=boxes_G4.device)
    size = max(1, MOST_PAIRS // anchors)
    for first in range(0, len(boxes_G4), size):
        most_A, which_A = claims(pyramid, boxes_G4[first : first + size], candidates).max(dim=0)
        better_A = most_A > best_A
        best_A = torch.where(better_A, most_A, best_A)
        matched_A = torch.where(better_A, which_A + first, matched_A)
    return matched_A

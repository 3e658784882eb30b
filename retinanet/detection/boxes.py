"""Box maths: area, IoU, encoding against anchors, decoding, clipping. Pure tensor functions.

Legend: N and M boxes, 4 = (x1, y1, x2, y2) with x2, y2 exclusive, or deltas (dx, dy, dw, dh).
"""

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Upper bound of dw and dh in `decode`, so that exp cannot overflow (Detectron's bound)."""


def area(boxes_N4: Tensor) -> Tensor:
    """Areas (N,) in square pixels; a negative side counts as zero."""
    x1, y1, x2, y2 = boxes_N4.unbind(dim=-1)
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def intersection(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """Pairwise intersection areas (N, M)."""
    # Coordinate by coordinate: torch has no fast kernel for an innermost dimension of two.
    ax1, ay1, ax2, ay2 = a_N4[:, None].unbind(dim=-1)
    bx1, by1, bx2, by2 = b_M4.T.contiguous()[:, None]
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    height = torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    return width.clamp(min=0) * height.clamp(min=0)


def iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """Pairwise intersection over union (N, M) in 0..1; 0 where both boxes are empty."""
    shared = intersection(a_N4, b_M4)
    union = area(a_N4)[:, None] + area(b_M4)[None, :] - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def ioa(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """Pairwise intersection over the area of `a` (N, M): the fraction of each box of `a` inside each box of `b`."""
    return intersection(a_N4, b_M4) / area(a_N4)[:, None].clamp(min=torch.finfo(a_N4.dtype).tiny)


def _centres_and_sides(boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes_N4[..., 2:] - boxes_N4[..., :2]
    return boxes_N4[..., :2] + 0.5 * sides, sides


def encode(boxes_N4: Tensor, anchors_N4: Tensor) -> Tensor:
    """Deltas (N, 4) that transform each anchor into its box: the inverse of `decode`.

    dx, dy in units of the anchor's sides; dw, dh as logs of ratios (R-CNN's parametrisation, arXiv 1311.2524
    appendix C). Boxes and anchors must have positive sides.
    """
    box_centre, box_side = _centres_and_sides(boxes_N4)
    anchor_centre, anchor_side = _centres_and_sides(anchors_N4)
    return torch.cat([(box_centre - anchor_centre) / anchor_side, torch.log(box_side / anchor_side)], dim=-1)


def decode(deltas_N4: Tensor, anchors_N4: Tensor) -> Tensor:
    """Boxes (N, 4) in the anchors' frame; dw and dh are clamped to at most MAX_LOG_SCALE."""
    anchor_centre, anchor_side = _centres_and_sides(anchors_N4)
    centre = anchor_centre + deltas_N4[..., :2] * anchor_side
    half = 0.5 * anchor_side * torch.exp(deltas_N4[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes_N4: Tensor, height: Tensor | float, width: Tensor | float) -> Tensor:
    """Boxes clipped to [0, width] x [0, height]; height and width: one for all boxes, or (N,) one for each."""
    sides = [torch.as_tensor(v, dtype=boxes_N4.dtype, device=boxes_N4.device) for v in (width, height)]
    return torch.minimum(boxes_N4.clamp(min=0), torch.stack([*sides, *sides], dim=-1))

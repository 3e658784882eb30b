"""Box regression losses of positive anchors, each (P, 4), (P, 4), (P, 4) -> (P,) in float32.

Legend: P positive anchors. Deltas are `boxes.encode`'s; boxes and anchors are in the canvas frame.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from retinanet.detection import boxes

MIN_LOG_SCALE = -8.0
"""Lower bound of dw and dh in CIoU: a side that vanishes in float32 has no aspect ratio (0 / 0)."""

BoxRegressionLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(deltas_P4, boxes_P4, anchors_P4) -> loss_P."""


def l1(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """Sum over the four deltas of |prediction - target|."""
    return (deltas_P4.float() - boxes.encode(boxes_P4, anchors_P4)).abs().sum(dim=-1)


def smooth_l1(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor, beta: float) -> Tensor:
    """Sum over the four deltas of d^2 / (2 beta) below beta, |d| - beta / 2 from it (arXiv 1504.08083, equation 3)."""
    target_P4 = boxes.encode(boxes_P4, anchors_P4)
    return F.smooth_l1_loss(deltas_P4.float(), target_P4, beta=beta, reduction="none").sum(dim=-1)


def giou(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """1 - GIoU of the decoded boxes (arXiv 1902.09630)."""
    loss_P: Tensor = generalized_box_iou_loss(boxes.decode(deltas_P4.float(), anchors_P4), boxes_P4)
    return loss_P


def diou(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """1 - DIoU of the decoded boxes (arXiv 1911.08287, equation 7)."""
    loss_P: Tensor = distance_box_iou_loss(boxes.decode(deltas_P4.float(), anchors_P4), boxes_P4)
    return loss_P


def ciou(deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
    """1 - CIoU of the decoded boxes (arXiv 1911.08287, equation 10); dw and dh are clamped to MIN_LOG_SCALE or more."""
    centre_P2, scale_P2 = deltas_P4.float().split(2, dim=-1)
    deltas_P4 = torch.cat([centre_P2, scale_P2.clamp(min=MIN_LOG_SCALE)], dim=-1)
    loss_P: Tensor = complete_box_iou_loss(boxes.decode(deltas_P4, anchors_P4), boxes_P4)
    return loss_P

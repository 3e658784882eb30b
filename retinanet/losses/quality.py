"""Class losses whose target is the quality of the box: quality focal loss and varifocal loss.

Legend: B images, A anchors, K classes, P positive anchors.

In both, the target of a positive's class is the IoU of the anchor's predicted box with its ground truth, and of every
other class 0. In both, the target carries no gradient, while the modulating factor does, as in focal loss; so does
mmdetection, and neither formula is printed with a stop-gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.detection.boxes import area, decode
from retinanet.losses.cross_entropy import drop_ignored
from retinanet.structures import ClassTargets


def paired_iou(a_P4: Tensor, b_P4: Tensor) -> Tensor:
    """IoU (P,) in 0..1 of each box with its counterpart; 0 where both are empty."""
    low = torch.maximum(a_P4[:, :2], b_P4[:, :2])
    high = torch.minimum(a_P4[:, 2:], b_P4[:, 2:])
    shared = area(torch.cat([low, high], dim=-1))
    union = area(a_P4) + area(b_P4) - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


@torch.no_grad()
def predicted_iou(targets: ClassTargets) -> Tensor:
    """(B, A) of the anchors' type: IoU of each positive's predicted box with its ground truth, 0 elsewhere."""
    anchors_A4 = targets.anchors_A4
    positive_BA = targets.labels_BA >= 0
    image_P, anchor_P = positive_BA.nonzero(as_tuple=True)
    deltas_P4 = targets.deltas_BA4[image_P, anchor_P].to(anchors_A4.dtype)
    iou_BA = anchors_A4.new_zeros(positive_BA.shape)
    iou_BA[image_P, anchor_P] = paired_iou(decode(deltas_P4, anchors_A4[anchor_P]), targets.boxes_P4)
    return iou_BA


def quality_targets(logits_BAK: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor]:
    """Logits x and target scores in 0..1, each (B, A, K) float32 (float64 stays); the latter without gradient."""
    x_BAK = logits_BAK if logits_BAK.dtype == torch.float64 else logits_BAK.float()
    is_class_BAK = targets.labels_BA[..., None] == torch.arange(x_BAK.shape[-1], device=x_BAK.device)
    iou_BA1 = predicted_iou(targets)[..., None].to(x_BAK.dtype)
    return x_BAK, torch.where(is_class_BAK, iou_BA1, 0.0)


def soft_cross_entropy(x: Tensor, target: Tensor) -> Tensor:
    """-(1 - y) log(1 - sigmoid(x)) - y log(sigmoid(x)); two terms >= 0, so that nothing cancels at large logits."""
    return (1.0 - target) * F.softplus(x) + target * F.softplus(-x)


def quality_focal(logits_BAK: Tensor, targets: ClassTargets, beta: float) -> Tensor:
    """QFL = -|y - s|^beta ((1 - y) log(1 - s) + y log s) (arXiv 2006.04388, the equation of QFL), s = sigmoid(x).

    logits_BAK: (B, A, K), any float type. y is the predicted box's IoU at the label's class of a positive, 0 elsewhere.
    Summed over the K outputs and divided by the normaliser: (B, A) float32. With y = 1 it is focal loss of gamma = beta
    without alpha.
    """
    x_BAK, y_BAK = quality_targets(logits_BAK, targets)
    # y - s without the cancellation of 1 - sigmoid(x); at least tiny, where 0^(beta - 1) would be infinite.
    distance_BAK = (y_BAK * torch.sigmoid(-x_BAK) - (1.0 - y_BAK) * torch.sigmoid(x_BAK)).abs()
    modulation_BAK = distance_BAK.clamp(min=torch.finfo(x_BAK.dtype).tiny) ** beta
    loss_BA = (modulation_BAK * soft_cross_entropy(x_BAK, y_BAK)).sum(dim=-1)
    return drop_ignored(loss_BA, targets.labels_BA) / targets.normaliser_B[:, None]


def varifocal(logits_BAK: Tensor, targets: ClassTargets, alpha: float, gamma: float) -> Tensor:
    """VFL = -q (q log p + (1 - q) log(1 - p)) where q > 0, else -alpha p^gamma log(1 - p) (arXiv 2008.13367, eq. 2).

    logits_BAK: (B, A, K), any float type; p = sigmoid(x). q is the predicted box's IoU at the label's class of a
    positive, 0 elsewhere. A positive whose box misses its object altogether has q = 0 and is a negative, as in the
    paper. Summed over the K outputs and divided by the normaliser: (B, A) float32.
    """
    x_BAK, q_BAK = quality_targets(logits_BAK, targets)
    positive_BAK = q_BAK * soft_cross_entropy(x_BAK, q_BAK)
    # exp(gamma logsigmoid) instead of a power: neither it nor its gradient evaluates 0^(gamma - 1).
    negative_BAK = alpha * torch.exp(gamma * F.logsigmoid(x_BAK)) * F.softplus(x_BAK)
    loss_BA = torch.where(q_BAK > 0, positive_BAK, negative_BAK).sum(dim=-1)
    return drop_ignored(loss_BA, targets.labels_BA) / targets.normaliser_B[:, None]

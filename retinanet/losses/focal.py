"""Sigmoid focal loss over dense anchors (paper section 3.2).

Legend: (...) any leading shape, usually (B, A); K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.losses.cross_entropy import drop_ignored, signed_logits


def focal(logits_K: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """FL(p_t) = -alpha_t (1 - p_t)^gamma log p_t (equation 5) summed over the K outputs: float32 (...).

    The modulating factor is exp(gamma * logsigmoid(s)), s = -y x, so that neither it nor its gradient evaluates
    0^(gamma - 1) at large logits.
    """
    is_class, s = signed_logits(logits_K, labels)
    alpha_t = torch.where(is_class, alpha, 1.0 - alpha).to(s.dtype)
    modulation = torch.exp(gamma * F.logsigmoid(s))
    return drop_ignored((alpha_t * modulation * F.softplus(s)).sum(dim=-1), labels)


def focal_star(logits_K: Tensor, labels: Tensor, gamma: float, beta: float, alpha: float) -> Tensor:
    """FL* = -alpha_t log(sigmoid(gamma x_t + beta)) / gamma (appendix A) summed over the K outputs: float32 (...).

    logits_K: (..., K), any float type; labels: (...) int64, class index, BACKGROUND or IGNORE. gamma must be positive.
    x_t = y x. gamma 1 with beta 0 is balanced cross entropy.
    """
    is_class, s = signed_logits(logits_K, labels)
    alpha_t = torch.where(is_class, alpha, 1.0 - alpha).to(s.dtype)
    return drop_ignored((alpha_t * F.softplus(gamma * s - beta)).sum(dim=-1) / gamma, labels)

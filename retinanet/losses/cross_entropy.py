"""Sigmoid cross entropy over dense anchors, plain and alpha-balanced (paper sections 3 and 3.1).

Legend: (...) any leading shape, usually (B, A); K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.structures import IGNORE


def signed_logits(logits_K: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The two tensors that every sigmoid loss is expressed in, each (..., K).

    logits_K: (..., K), any float type; labels: (...) int64, class index, BACKGROUND or IGNORE.
    Returns is_class (bool: this output's class is the label) and s = -y x in float32, where y = 1 at the label's
    class and -1 elsewhere. Then -log p_t = softplus(s) and 1 - p_t = sigmoid(s), without a log of zero.
    """
    logits_K = logits_K.float() if logits_K.dtype != torch.float64 else logits_K
    is_class = labels[..., None] == torch.arange(logits_K.shape[-1], device=labels.device)
    return is_class, torch.where(is_class, -logits_K, logits_K)


def drop_ignored(loss: Tensor, labels: Tensor) -> Tensor:
    """`loss` (...) with zeros (and zero gradient) where the label is IGNORE."""
    return torch.where(labels == IGNORE, torch.zeros_like(loss), loss)


def cross_entropy(logits_K: Tensor, labels: Tensor) -> Tensor:
    """CE(p_t) = -log p_t (equation 1) summed over the K outputs of each anchor: float32 (...)."""
    _, s = signed_logits(logits_K, labels)
    return drop_ignored(F.softplus(s).sum(dim=-1), labels)


def balanced_cross_entropy(logits_K: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """-alpha_t log p_t (equation 3) summed over the K outputs: float32 (...).

    alpha weights the label's own class and 1 - alpha every other output; 0.5 is half of plain cross entropy.
    """
    is_class, s = signed_logits(logits_K, labels)
    alpha_t = torch.where(is_class, alpha, 1.0 - alpha).to(s.dtype)
    return drop_ignored((alpha_t * F.softplus(s)).sum(dim=-1), labels)

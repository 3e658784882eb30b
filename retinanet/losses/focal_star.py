"""FL*, the alternate form of focal loss in the paper's appendix A.

Legend: (...) any leading shape, usually (B, A); K classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from retinanet.losses.cross_entropy import drop_ignored, signed_logits
from retinanet.section import ClassLossSection, Fraction, Positive


class FocalStar(ClassLossSection):
    """Keys of `loss.classification` with kind focal_star."""

    kind: Literal["focal_star"] = Field("focal_star", description="Class loss.")
    gamma: Positive = Field(2.0, description="Steepness (paper Table 3: 2 with beta 1, 4 with beta 0).")
    beta: float = Field(1.0, description="Shift: a larger one forgives sooner what is nearly right.")
    alpha: Fraction = Field(0.25, description="Weight of positives, 1 - alpha of negatives.")


def focal_star(logits_K: Tensor, labels: Tensor, gamma: float, beta: float, alpha: float) -> Tensor:
    """FL* = -alpha_t log(sigmoid(gamma x_t + beta)) / gamma (appendix A) summed over the K outputs: float32 (...).

    logits_K: (..., K), any float type; labels: (...) int64, class index, BACKGROUND or IGNORE. gamma must be positive.
    x_t = y x. gamma 1 with beta 0 is balanced cross entropy.
    """
    is_class, s = signed_logits(logits_K, labels)
    alpha_t = torch.where(is_class, alpha, 1.0 - alpha).to(s.dtype)
    return drop_ignored((alpha_t * F.softplus(gamma * s - beta)).sum(dim=-1) / gamma, labels)

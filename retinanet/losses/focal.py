"""Sigmoid focal loss over dense anchors (paper section 3.2).

Legend: (...) any leading shape, usually (B, A); K classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from retinanet.losses.cross_entropy import drop_ignored, signed_logits
from retinanet.section import ClassLossSection, Fraction, NonNegative


class Focal(ClassLossSection):
    """Keys of `loss.classification` with kind focal."""

    kind: Literal["focal"] = Field("focal", description="Class loss.")
    alpha: Fraction = Field(0.25, description="Weight of positives, 1 - alpha of negatives.")
    gamma: NonNegative = Field(2.0, description="Focusing parameter: 0 is balanced cross entropy.")


def focal(logits_K: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """FL(p_t) = -alpha_t (1 - p_t)^gamma log p_t (equation 5) summed over the K outputs: float32 (...).

    The modulating factor is exp(gamma * logsigmoid(s)), s = -y x, so that neither it nor its gradient meets
    0^(gamma - 1) at large logits.
    """
    is_class, s = signed_logits(logits_K, labels)
    alpha_t = torch.where(is_class, alpha, 1.0 - alpha).to(s.dtype)
    modulation = torch.exp(gamma * F.logsigmoid(s))
    return drop_ignored((alpha_t * modulation * F.softplus(s)).sum(dim=-1), labels)

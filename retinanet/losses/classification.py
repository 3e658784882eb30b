"""The ablation's axis: what a classification loss is, and the one place where a kind is chosen.

A new kind is one function in its family's file, one case here and one test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from retinanet.config import ClassLoss
from retinanet.losses.cross_entropy import balanced_cross_entropy, cross_entropy
from retinanet.losses.focal import focal


@dataclass(frozen=True)
class ClassificationLoss:
    """All that the rest of the project may know of a classification loss."""

    head_outputs: Callable[[int], int]
    """Outputs an anchor that the class head needs for K classes."""
    prior_bias: Callable[[float], float]
    """Bias of the head's last convolution at which every class starts with score pi (paper section 4.1)."""
    scores: Callable[[Tensor], Tensor]
    """Head outputs (..., head_outputs) -> class scores (..., K) in 0..1, float32."""
    value: Callable[[Tensor, Tensor], Tensor]
    """Head outputs (..., head_outputs), labels (...) -> loss of each anchor (...), float32, 0 where IGNORE."""


def sigmoid_scores(logits_K: Tensor) -> Tensor:
    """Independent class scores in float32."""
    return torch.sigmoid(logits_K.float())


def sigmoid_prior_bias(prior: float) -> float:
    """b with sigmoid(b) = prior: -log((1 - pi) / pi)."""
    return -math.log((1.0 - prior) / prior)


def build_class_loss(config: ClassLoss) -> ClassificationLoss:
    """The loss that config `loss.classification` names."""
    match config.kind:
        case "focal":
            value = partial(focal, alpha=config.alpha, gamma=config.gamma)
        case "balanced_cross_entropy":
            value = partial(balanced_cross_entropy, alpha=config.alpha)
        case "cross_entropy":
            value = partial(cross_entropy)
    return ClassificationLoss(head_outputs=int, prior_bias=sigmoid_prior_bias, scores=sigmoid_scores, value=value)

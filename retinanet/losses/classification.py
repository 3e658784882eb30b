"""The ablation's axis: what a classification loss is. `build.losses.build_class_loss` chooses the kind.

Legend: B images, A anchors, K classes, O outputs of the class head for an anchor.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from retinanet.detection.scores import SIGMOID
from retinanet.losses.divided import DividedLoss
from retinanet.losses.fused import DenseLoss
from retinanet.structures import ClassTargets, Scoring


def sigmoid_prior_bias(prior: float, classes: int) -> list[float]:
    """Bias b with sigmoid(b) = prior, for every class: -log((1 - pi) / pi)."""
    return [-math.log((1.0 - prior) / prior)] * classes


class ClassificationLoss(NamedTuple):
    """The interface of a classification loss to the rest of the project."""

    value: Callable[[Tensor, ClassTargets], Tensor]
    """Head outputs (B, A, O) and targets -> (B, A) float32: normalised contribution of each anchor to the loss."""
    prior_bias: Callable[[float, int], list[float]] = sigmoid_prior_bias
    """(pi, K) -> initial bias of each of the O outputs of an anchor (paper section 4.1); the length of the list is O.

    The first K outputs belong to the classes."""
    scoring: Scoring = SIGMOID
    """How the outputs become scores."""


def over_positives(loss: DenseLoss, kernel: DividedLoss | None = None) -> Callable[[Tensor, ClassTargets], Tensor]:
    """A loss of (outputs, labels) over all anchors, divided by the normaliser (paper section 4.1).

    kernel: computes the same where it can, up to rounding.
    """

    def value(logits_BAO: Tensor, targets: ClassTargets) -> Tensor:
        divided = kernel(logits_BAO, targets.labels_BA, targets.normaliser_B) if kernel is not None else None
        if divided is not None:
            return divided
        return loss(logits_BAO, targets.labels_BA) / targets.normaliser_B[:, None]

    return value

"""Softmax over classes and background for dense anchors: the paper's multi-class case (section 3, footnote 1).

The head has K + 1 outputs per anchor: the first K belong to the classes, the last is background.

Legend: (...) any leading shape, usually (B, A); K classes, O = K + 1 outputs.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet.errors import ConfigError
from retinanet.losses.cross_entropy import drop_ignored
from retinanet.losses.functional import focal_of_class


def softmax_cross_entropy(logits_O: Tensor, labels: Tensor, alpha: float | Sequence[float] | None) -> Tensor:
    """-alpha_t log p_t, p = softmax over the K + 1 outputs: float32 (...). Arguments: see softmax_focal."""
    return softmax_focal(logits_O, labels, alpha, gamma=0.0)


def softmax_focal(logits_O: Tensor, labels: Tensor, alpha: float | Sequence[float] | None, gamma: float) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t (equation 5), p = softmax over the K + 1 outputs: float32 (...).

    logits_O: (..., K + 1), any float type (float64 stays float64); labels: (...) int64, class index, BACKGROUND or
    IGNORE, where the loss and its gradient are 0. alpha: None, a number (weight of every class, 1 - alpha of
    background), or K + 1 weights, background last. Raises ConfigError if their number does not fit the head.
    """
    logits_O = logits_O if logits_O.dtype == torch.float64 else logits_O.float()
    classes = logits_O.shape[-1] - 1
    target = torch.where(labels >= 0, labels, classes)
    loss = focal_of_class(logits_O, target, gamma)
    if alpha is not None:
        loss = loss * logits_O.new_tensor(output_weights(alpha, classes))[target]
    return drop_ignored(loss, labels)


def output_weights(alpha: float | Sequence[float], classes: int) -> list[float]:
    """Weights of the K + 1 outputs. Raises ConfigError if a list has another length."""
    if isinstance(alpha, (int, float)):
        return [float(alpha)] * classes + [1.0 - alpha]
    if len(alpha) != classes + 1:
        raise ConfigError(
            f"loss.classification.alpha has {len(alpha)} weights; a softmax head of {classes} classes needs "
            f"{classes + 1}: one per class in the order of the data set, then the background's"
        )
    return list(alpha)


def softmax_prior_bias(prior: float, classes: int) -> list[float]:
    """Biases of the K + 1 outputs with which all classes together start at probability `prior`.

    0 for each class, log(K (1 - pi) / pi) for background: softmax then gives each class pi / K and background 1 - pi,
    as in the softmax head of Detectron's RetinaNet.
    """
    return [0.0] * classes + [math.log(classes * (1.0 - prior) / prior)]

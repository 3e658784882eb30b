"""Weights of classes by their frequency in the training set.

The class loss of a positive anchor, summed over its outputs, is multiplied by the weight of its class, as a sample's
loss is in the class-balanced loss (Cui et al., arXiv 1901.05555); background anchors have weight 1. Weights are scaled
so that their mean over the objects of the training set is 1, which about keeps the balance of positives and background.

Legend: K classes, (...) any shape.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def inverse_frequency(objects_K: Sequence[int]) -> tuple[float, ...]:
    """1 / n of each class, scaled; 1 where there are no objects."""
    return _scaled(objects_K, [1 / n if n else 0.0 for n in objects_K])


def inverse_effective_number(objects_K: Sequence[int], beta: float) -> tuple[float, ...]:
    """One over the effective number, (1 - beta) / (1 - beta^n), of each class, scaled; 1 where there are no objects."""
    return _scaled(objects_K, [(1 - beta) / (1 - beta**n) if n else 0.0 for n in objects_K])


def _scaled(objects_K: Sequence[int], weights_K: Sequence[float]) -> tuple[float, ...]:
    total = sum(n * weight for n, weight in zip(objects_K, weights_K, strict=True))
    scale = sum(objects_K) / total if total else 1.0
    return tuple(weight * scale if n else 1.0 for n, weight in zip(objects_K, weights_K, strict=True))


def weights_of_labels(labels: Tensor, weights_K: Sequence[float]) -> Tensor:
    """(...) float32: the weight of each label's class; 1 for BACKGROUND and IGNORE."""
    # Copied without waiting for the device; the last entry is that of all labels without a class.
    table = torch.tensor([*weights_K, 1.0]).to(labels.device, non_blocking=True)
    return table[torch.where(labels >= 0, labels, len(weights_K))]

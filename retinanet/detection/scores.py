"""How a class head's outputs become scores, and at which anchors a score may be worth making.

Legend: (...) any leading shape, usually (B, A); K classes, O = K + 1 outputs, background last.
"""

import math

import torch
from torch import Tensor

from retinanet.structures import Scoring

ROUNDING = 1e-5
"""By how much, relatively, a threshold is lowered before logits are held against it; scores are float32."""


def sigmoid_scores(logits_K: Tensor) -> Tensor:
    """Independent class scores in float32."""
    return torch.sigmoid(logits_K.float())


def sigmoid_prefilter(logits_K: Tensor, threshold: float) -> Tensor:
    """Where the largest logit is not surely below the threshold's; also where one is no number."""
    return ~(logits_K.amax(dim=-1).float() <= _logit_below(threshold))


def softmax_scores(logits_O: Tensor) -> Tensor:
    """Class scores (..., K) in float32 from outputs (..., K + 1): the softmax without background's part."""
    return torch.softmax(logits_O.float(), dim=-1)[..., :-1]


def softmax_prefilter(logits_O: Tensor, threshold: float) -> Tensor:
    """As `sigmoid_prefilter` for the softmax over the best class and background alone, which bounds every score."""
    best, background = logits_O[..., :-1].amax(dim=-1).float(), logits_O[..., -1].float()
    return ~(best - background <= _logit_below(threshold))


def _logit_below(threshold: float) -> float:
    """A logit that every score above `threshold`, a number in 0..1, surely exceeds."""
    lower = threshold * (1.0 - ROUNDING)
    return math.log(lower / (1.0 - lower)) if lower > 0.0 else -math.inf


SIGMOID = Scoring(sigmoid_scores, sigmoid_prefilter)
SOFTMAX = Scoring(softmax_scores, softmax_prefilter)

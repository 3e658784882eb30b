"""How a class head's outputs become scores, and which anchors may score above a threshold.

Legend: (...) any leading shape, usually (B, A); K classes, O = K + 1 outputs, background last.
"""

import math

import torch
from torch import Tensor

from retinanet.structures import Scoring

ROUNDING = 1e-5
"""Relative margin by which a threshold is lowered before logits are compared with it; scores are float32."""


def sigmoid_scores(logits_K: Tensor) -> Tensor:
    """Independent class scores in float32."""
    return torch.sigmoid(logits_K.float())


def sigmoid_prefilter(logits_K: Tensor, threshold: float) -> Tensor:
    """Where the largest logit is not certainly below the threshold's logit; also where a logit is NaN."""
    return ~(logits_K.amax(dim=-1).float() <= _logit_below(threshold))


def softmax_scores(logits_O: Tensor) -> Tensor:
    """Class scores (..., K) in float32 from outputs (..., K + 1): the softmax without the background's entry."""
    return torch.softmax(logits_O.float(), dim=-1)[..., :-1]


def softmax_prefilter(logits_O: Tensor, threshold: float) -> Tensor:
    """As `sigmoid_prefilter`, for the softmax over the best class and background alone, which bounds all scores."""
    best, background = logits_O[..., :-1].amax(dim=-1).float(), logits_O[..., -1].float()
    return ~(best - background <= _logit_below(threshold))


def _logit_below(threshold: float) -> float:
    """A logit that every score above `threshold`, a number in 0..1, certainly exceeds."""
    lower = threshold * (1.0 - ROUNDING)
    return math.log(lower / (1.0 - lower)) if lower > 0.0 else -math.inf


SIGMOID = Scoring(scores=sigmoid_scores, prefilter=sigmoid_prefilter)
SOFTMAX = Scoring(scores=softmax_scores, prefilter=softmax_prefilter)

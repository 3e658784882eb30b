"""Focal losses as a library: softmax, sigmoid and from probabilities, for any classification or segmentation.

All are computed in float32 whatever the autocast type (float64 stays float64) and can be differentiated twice. They
work under torch.compile(fullgraph=True), torch.func.vmap and grad, and on meta tensors. Invalid arguments raise
LossInputError, a ValueError; values are validated where they can be read (see `losses.arguments`). Logits must be
finite.

Legend: N samples, C classes, (...) any further shape; t the target's class, p_t its probability.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.losses.arguments import (
    LossInputError,
    Reduction,
    Weights,
    check_binary,
    check_softmax,
    full_precision,
    within_unit,
)

__all__ = ["LossInputError", "Reduction", "Weights", "binary_focal_loss", "sigmoid_focal_loss", "softmax_focal_loss"]

FLOOR_16 = 2.0**-15
"""Where the tangent of the loss of float16 probabilities begins: its slope of 2^15 is finite in float16."""


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float,
    alpha: Weights | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    background: int = 0,
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t with p = softmax(logits) over dimension 1 (paper section 3.2, equation 5).

    logits: (N, C) or (N, C, d1, ...) float, finite (exclude a class with -1e4, not with -inf). target: (N,) or
    (N, d1, ...) integer, class 0..C-1 or ignore_index.
    alpha: None; or C weights, one per class (sequence or tensor); or, for C = 2 only, one number in 0..1: class 1
    gets alpha and class 0 gets 1 - alpha, the same as the list [1 - alpha, alpha]. For the opposite, pass the list
    [alpha, 1 - alpha].
    reduction: `none`: the target's shape, 0 where ignored. `sum`. `mean`: as in F.cross_entropy, the sum divided by
    the sum of alpha_t over elements that are not ignored (without alpha, by their number); only the ratios of alpha
    matter. `mean_elements`: the sum divided by the number of elements that are not ignored, whatever their weights, as
    `loss.mean()` in most FocalLoss modules. `mean_positives`: the sum divided by the number of elements that are
    neither ignored nor of class `background`, at least 1.
    label_smoothing: epsilon in 0..1. The loss is the expected focal loss under the smoothed label, each class
    modulated by its own probability: sum over c of q_c alpha_c (1 - p_c)^gamma (-log p_c), with
    q = (1 - epsilon) onehot(t) + epsilon / C.

    Gamma 0 equals F.cross_entropy(weight=alpha) to the last bit, in value and gradient, with one exception: if
    everything is ignored, `mean` is 0 with zero gradient instead of NaN.
    Raises LossInputError, listing all errors: shapes, types, C < 2, values out of range.
    """
    weights = check_softmax(logits, target, gamma, alpha, reduction, ignore_index, label_smoothing, background)
    logits, target = full_precision(logits), target.long()
    ignored = target == ignore_index
    if gamma == 0:
        native = reduction if reduction in ("none", "mean") else "sum"
        loss = F.cross_entropy(logits, target, weights, None, ignore_index, None, native, label_smoothing)
    else:
        known = target.masked_fill(ignored, 0)
        loss = _smoothed_focal(logits.movedim(1, -1), known, gamma, weights, label_smoothing).masked_fill(ignored, 0.0)
        loss = loss if reduction == "none" else loss.sum()
    if reduction == "mean_positives":
        return loss / (~ignored & (target != background)).sum().clamp(min=1)
    if reduction == "mean_elements":
        return loss / (~ignored).sum().clamp(min=1)
    if reduction != "mean":
        return loss
    kept = (~ignored).to(logits.dtype)
    total = (kept if weights is None else kept * weights[target.masked_fill(ignored, 0)]).sum()
    mean = loss if gamma == 0 else loss / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, mean, 0.0)


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Weights | None,
    gamma: float,
    reduction: Reduction = "mean",
    weight: Weights | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Focal loss of independent binary labels (paper section 3.2), p = sigmoid(logits).

    logits: any shape, float. target: the same shape, bool, integer or float in 0..1, or ignore_index.
    alpha: weight of a label 1, 1 - alpha of a label 0; None weights neither. One number in 0..1; or C of them, one for
    each class along dimension 1 (sequence or tensor); or a tensor that broadcasts to the logits.
    weight: multiplier of the loss of either label, in the forms of alpha, of any size >= 0; None is 1.
    A target y strictly between 0 and 1 is the probability of label 1, and the loss is its expectation:
    y alpha (1 - p)^gamma (-log p) + (1 - y) (1 - alpha) p^gamma (-log(1 - p)). Torchvision's differs there (and
    only there): it modulates by p_t = p y + (1 - p)(1 - y). Gamma 0 without alpha is binary cross entropy. A target
    that a rounding puts outside 0..1 is taken as 0 or 1.
    reduction: `none`: the logits' shape, 0 where ignored. `mean` and `mean_elements`: as in
    F.binary_cross_entropy_with_logits, the sum divided by the number of elements that are not ignored, whatever their
    weights (0 if there are none). `sum`. `mean_positives`: the sum divided by the sum of the targets (for hard
    targets: the number of ones), at least 1.
    ignore_index: a target that leaves its element out of sum and mean, such as 255; None: there is none.
    Raises LossInputError, listing all errors: shapes, types, values out of range.
    """
    weights = check_binary("sigmoid_focal_loss", logits, target, alpha, gamma, reduction, weight, ignore_index)
    logits = full_precision(logits)
    return _expected(
        _focal_of_margin(-logits, gamma), _focal_of_margin(logits, gamma), target, weights, reduction, ignore_index
    )


def binary_focal_loss(
    probabilities: Tensor,
    target: Tensor,
    *,
    alpha: Weights | None,
    gamma: float,
    reduction: Reduction = "mean",
    weight: Weights | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """sigmoid_focal_loss for code that has probabilities only; with logits, use sigmoid_focal_loss.

    probabilities: any shape, float in 0..1, both ends included; one that a rounding puts outside, such as 1.0000001, is
    taken as 0 or 1. All other arguments: as in sigmoid_focal_loss.
    -log p is exact down to p = 2^-24, the spacing of float32 just below 1 (2^-53 in float64), and continues from
    there to 0 along its tangent: at exactly 0 the value is finite (17.6 in float32), and the gradient is the finite
    slope -2^24, not zero as with a clamp. The same holds for -log(1 - p) towards 1. For float16 probabilities, whose
    gradient is float16 and ends at 65504, the tangent begins at 2^-15.
    Raises LossInputError, listing all errors: shapes, types, values out of range.
    """
    weights = check_binary("binary_focal_loss", probabilities, target, alpha, gamma, reduction, weight, ignore_index)
    p = within_unit(full_precision(probabilities))
    floor = FLOOR_16 if probabilities.dtype == torch.float16 else torch.finfo(p.dtype).eps / 2
    top = 1.0 - math.log(floor)
    missed = torch.where(p <= floor, top - p / floor, -p.clamp(min=floor).log())
    alarm = torch.where(p >= 1 - floor, top - (1 - p) / floor, -torch.log1p(-p.clamp(max=1 - floor)))
    positive, negative = _power(1 - p, gamma) * missed, _power(p, gamma) * alarm
    return _expected(positive, negative, target, weights, reduction, ignore_index)


def focal_of_class(logits_C: Tensor, classes: Tensor, gamma: float) -> Tensor:
    """-(1 - p_t)^gamma log p_t of one class in each row: (...), the logits' type. Arguments are not validated.

    logits_C: (..., C >= 2) float32 or float64, finite, or -inf for all but two classes of a row.
    classes: (...) int64, 0..C-1.
    """
    index = classes[..., None]
    own = logits_C.gather(-1, index)
    others_C = logits_C.scatter(-1, index, -math.inf)
    best = others_C.detach().amax(dim=-1, keepdim=True)
    spread = (others_C - best).exp().sum(dim=-1) * (own.detach() - own).exp().squeeze(-1)
    return _focal_of_odds((best - own.detach()).squeeze(-1), spread, gamma)


def _focal_of_margin(s: Tensor, gamma: float) -> Tensor:
    """-(1 - p_t)^gamma log p_t where 1 - p_t = sigmoid(s)."""
    return _focal_of_odds(s.detach(), (s - s.detach()).exp(), gamma)


def _focal_of_odds(peak: Tensor, spread: Tensor, gamma: float) -> Tensor:
    """-(1 - p_t)^gamma log p_t where (1 - p_t) / p_t = exp(peak) spread.

    peak: any value, without gradient; spread: finite, at least 1, carries the whole gradient.
    With k = exp(min(peak, 0)) and m = max(peak, 0), -log p_t = m + log(k spread + exp(-m)) and
    1 - p_t = k / (k + exp(-m) / spread). In this form, neither value nor gradient subtracts nearly equal numbers,
    overflows, or evaluates 0^(gamma - 1): the only error is the rounding of peak itself, even if p_t rounds to 1.
    """
    low, high = peak.clamp(max=0.0), peak.clamp(min=0.0)
    shrink = low.exp()
    cross_entropy = high + torch.log1p(shrink * spread + torch.expm1(-high))
    if gamma == 0:
        return cross_entropy
    modulation = (gamma * low).exp() * (shrink + (-high).exp() / spread).pow(-gamma)
    return modulation * cross_entropy


def _smoothed_focal(
    logits_C: Tensor, classes: Tensor, gamma: float, weights_C: Tensor | None, smoothing: float
) -> Tensor:
    """Expected focal loss under the smoothed label, for each row of (..., C): (...)."""
    own = focal_of_class(logits_C, classes, gamma)
    own = own if weights_C is None else own * weights_C[classes]
    if smoothing == 0:
        return own
    # Only the most likely class can be close to p = 1, where 1 - p cancels; all others have p <= 1/2.
    best = logits_C.argmax(dim=-1)
    log_p = F.log_softmax(logits_C, dim=-1)
    rest = ((1.0 - log_p.exp()).scatter(-1, best[..., None], 1.0)).pow(gamma) * -log_p
    terms_C = rest.scatter(-1, best[..., None], 0.0)
    peak = focal_of_class(logits_C, best, gamma)
    if weights_C is not None:
        terms_C, peak = terms_C * weights_C, peak * weights_C[best]
    return (1.0 - smoothing) * own + smoothing / logits_C.shape[-1] * (terms_C.sum(dim=-1) + peak)


def _power(base: Tensor, gamma: float) -> Tensor:
    """base^gamma for base in 0..1, with gradient 0 instead of infinity at base 0, where its factor is 0 too."""
    if gamma == 0:
        return torch.ones_like(base)
    smallest = torch.finfo(base.dtype).tiny
    return torch.where(base > 0, base.clamp(min=smallest).pow(gamma), 0.0)


def _expected(
    positive: Tensor,
    negative: Tensor,
    target: Tensor,
    weights: tuple[Tensor | float | None, Tensor | float | None],
    reduction: Reduction,
    ignore_index: int | None,
) -> Tensor:
    """The losses of label 1 and of label 0, weighted by alpha and the probability of each label, reduced.

    weights: alpha and weight, which broadcast to the losses.
    """
    alpha, weight = weights
    y = target.to(positive.dtype)
    ignored = None if ignore_index is None else y == ignore_index
    y = within_unit(y if ignored is None else y.masked_fill(ignored, 0.0))
    if alpha is not None:
        positive, negative = alpha * positive, (1.0 - alpha) * negative
    loss = y * positive + (1.0 - y) * negative
    loss = loss if weight is None else weight * loss
    loss = loss if ignored is None else loss.masked_fill(ignored, 0.0)
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "sum":
        return total
    if reduction == "mean_positives":
        return total / y.sum().clamp(min=1.0)
    return total / (max(loss.numel(), 1) if ignored is None else (~ignored).sum().clamp(min=1))

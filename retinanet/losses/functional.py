"""Focal losses as a library: softmax, sigmoid and from probabilities, for any classification or segmentation.

All are computed in float32 whatever the autocast type (float64 stays float64) and can be differentiated twice.
Invalid arguments raise LossInputError, a ValueError. Logits must be finite. The values in `target` are not validated
under torch.compile, where that would break the graph.

Legend: N samples, C classes, (...) any further shape; t the target's class, p_t its probability.
"""

import difflib
import math
import numbers
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.errors import UserError, list_errors

Reduction = Literal["none", "mean", "sum", "mean_positives"]
Weights = float | Sequence[float] | Tensor


class LossInputError(UserError):
    """Invalid arguments of a loss (exit code 2)."""


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
    matter. `mean_positives`: the sum divided by the number of elements that are neither ignored nor of class
    `background`, at least 1.
    label_smoothing: epsilon in 0..1. The loss is the expected focal loss under the smoothed label, each class
    modulated by its own probability: sum over c of q_c alpha_c (1 - p_c)^gamma (-log p_c), with
    q = (1 - epsilon) onehot(t) + epsilon / C.

    Gamma 0 equals F.cross_entropy(weight=alpha) to the last bit, in value and gradient, with one exception: if
    everything is ignored, `mean` is 0 with zero gradient instead of NaN.
    Raises LossInputError, listing all errors: shapes, types, C < 2, values out of range.
    """
    weights = _checked_softmax(logits, target, gamma, alpha, reduction, ignore_index, label_smoothing, background)
    logits, target = _full_precision(logits), target.long()
    ignored = target == ignore_index
    if gamma == 0:
        native = "sum" if reduction == "mean_positives" else reduction
        loss = F.cross_entropy(logits, target, weights, None, ignore_index, None, native, label_smoothing)
    else:
        known = target.masked_fill(ignored, 0)
        loss = _smoothed_focal(logits.movedim(1, -1), known, gamma, weights, label_smoothing).masked_fill(ignored, 0.0)
        loss = loss if reduction == "none" else loss.sum()
    if reduction == "mean_positives":
        return loss / (~ignored & (target != background)).sum().clamp(min=1)
    if reduction != "mean":
        return loss
    kept = (~ignored).to(logits.dtype)
    total = (kept if weights is None else kept * weights[target.masked_fill(ignored, 0)]).sum()
    mean = loss if gamma == 0 else loss / torch.where(total > 0, total, 1.0)
    return torch.where(total > 0, mean, 0.0)


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, *, alpha: float | Tensor | None, gamma: float, reduction: Reduction = "mean"
) -> Tensor:
    """Focal loss of independent binary labels (paper section 3.2), p = sigmoid(logits).

    logits: any shape, float. target: the same shape, bool, integer or float in 0..1.
    alpha: weight of a label 1, 1 - alpha of a label 0; None weights neither.
    A target y strictly between 0 and 1 is the probability of label 1, and the loss is its expectation:
    y alpha (1 - p)^gamma (-log p) + (1 - y) (1 - alpha) p^gamma (-log(1 - p)). Torchvision's differs there (and
    only there): it modulates by p_t = p y + (1 - p)(1 - y). Gamma 0 without alpha is binary cross entropy.
    reduction: `none`: the logits' shape. `mean`: over all elements (0 if there are none). `sum`. `mean_positives`:
    the sum divided by the sum of the targets (for hard targets: the number of ones), at least 1.
    Raises LossInputError, listing all errors: shapes, types, values out of range.
    """
    raise_errors("sigmoid_focal_loss", _binary_errors("logits", logits, target, alpha, gamma, reduction))
    logits = _full_precision(logits)
    return _expected(
        _focal_of_margin(-logits, gamma), _focal_of_margin(logits, gamma), target.to(logits.dtype), alpha, reduction
    )


def binary_focal_loss(
    probabilities: Tensor, target: Tensor, *, alpha: float | Tensor | None, gamma: float, reduction: Reduction = "mean"
) -> Tensor:
    """sigmoid_focal_loss for code that has probabilities only; with logits, use sigmoid_focal_loss.

    probabilities: any shape, float in 0..1, both ends included. target, alpha, reduction: as in sigmoid_focal_loss.
    -log p is exact down to p = 2^-24, the spacing of float32 just below 1 (2^-53 in float64), and continues from
    there to 0 along its tangent: at exactly 0 the value is finite (17.6 in float32), and the gradient is the finite
    slope -2^24, not zero as with a clamp. The same holds for -log(1 - p) towards 1.
    Raises LossInputError, listing all errors: shapes, types, values out of range.
    """
    errors = _binary_errors("probabilities", probabilities, target, alpha, gamma, reduction)
    if not errors and _violated(_outside_unit(probabilities)):
        errors.append("probabilities must lie in 0..1; for logits use sigmoid_focal_loss")
    raise_errors("binary_focal_loss", errors)
    p = _full_precision(probabilities)
    floor = torch.finfo(p.dtype).eps / 2
    top = 1.0 - math.log(floor)
    missed = torch.where(p <= floor, top - p / floor, -p.clamp(min=floor).log())
    alarm = torch.where(p >= 1 - floor, top - (1 - p) / floor, -torch.log1p(-p.clamp(max=1 - floor)))
    positive, negative = _power(1 - p, gamma) * missed, _power(p, gamma) * alarm
    return _expected(positive, negative, target.to(p.dtype), alpha, reduction)


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
    positive: Tensor, negative: Tensor, target: Tensor, alpha: float | Tensor | None, reduction: Reduction
) -> Tensor:
    """The losses of label 1 and of label 0, weighted by alpha and the probability of each label, reduced."""
    if alpha is not None:
        positive, negative = alpha * positive, (1.0 - alpha) * negative
    loss = target * positive + (1.0 - target) * negative
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "mean":
        return total / max(loss.numel(), 1)
    return total if reduction == "sum" else total / target.sum().clamp(min=1.0)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _violated(condition: Tensor) -> bool:
    """Whether any is true; False while compiling, where reading values would break the graph."""
    return not torch.compiler.is_compiling() and bool(condition.any())


def _outside_unit(values: Tensor) -> Tensor:
    return ~((values >= 0) & (values <= 1))


def raise_errors(name: str, errors: list[str]) -> None:
    """Raise one LossInputError that lists `errors`, if there are any."""
    if errors:
        raise LossInputError(list_errors(name, errors))


def common_errors(gamma: float, reduction: str) -> list[str]:
    """Errors in the two arguments that all losses share."""
    errors = []
    if not isinstance(gamma, numbers.Real) or not 0 <= gamma < math.inf:
        errors.append(f"gamma must be a finite number >= 0, not {gamma!r}; 0 is cross entropy, the paper uses 2")
    if reduction not in get_args(Reduction):
        close = difflib.get_close_matches(str(reduction).lower().replace(" ", "_"), get_args(Reduction), 1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        errors.append(f"reduction `{reduction}` is not one of {', '.join(get_args(Reduction))}{hint}")
    return errors


def _float_errors(name: str, values: Tensor) -> list[str]:
    return [] if values.is_floating_point() else [f"{name} must be floating point, not {values.dtype}"]


def _binary_errors(
    name: str, values: Tensor, target: Tensor, alpha: float | Tensor | None, gamma: float, reduction: str
) -> list[str]:
    """Errors in the arguments of the two binary losses; `name`: of their first argument."""
    errors = common_errors(gamma, reduction) + _float_errors(name, values)
    if target.shape != values.shape:
        hint = ": for class indices use softmax_focal_loss, or F.one_hot" if target.ndim == values.ndim - 1 else ""
        errors.append(f"target has shape {tuple(target.shape)} and {name} {tuple(values.shape)}; both must agree{hint}")
    if target.is_complex() or _violated(_outside_unit(target)):
        errors.append("target must lie in 0..1: 1 if the label applies, 0 if not, in between for soft labels")
    if isinstance(alpha, Tensor):
        off = alpha.ndim != 0 or (alpha.device.type == "cpu" and _violated(_outside_unit(alpha)))
    else:
        off = alpha is not None and not (isinstance(alpha, numbers.Real) and 0 <= alpha <= 1)
    if off:
        errors.append(f"alpha must be one number in 0..1 (label 1 gets it, label 0 gets 1 - alpha) or None: {alpha!r}")
    return errors


def _checked_softmax(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    alpha: Weights | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    background: int,
) -> Tensor | None:
    """The C class weights (None without alpha) in the type of the loss; raises LossInputError for invalid arguments."""
    errors = common_errors(gamma, reduction) + _float_errors("logits", logits)
    if not isinstance(label_smoothing, numbers.Real) or not 0 <= label_smoothing <= 1:
        errors.append(f"label_smoothing must lie in 0..1, not {label_smoothing!r}")
    if logits.ndim < 2 or logits.shape[1] < 2:
        errors.append(
            f"logits have shape {tuple(logits.shape)}, not (N, C) or (N, C, d1, ...) with C >= 2; "
            "for one output per label use sigmoid_focal_loss, for a single sample add an axis: logits[None]"
        )
        raise LossInputError(list_errors("softmax_focal_loss", errors))
    classes = logits.shape[1]
    if not isinstance(background, numbers.Integral) or not 0 <= background < classes:
        errors.append(f"background must be a class, 0..{classes - 1}, not {background!r}")
    errors += _index_errors(logits, target, ignore_index)
    weights = None
    if alpha is not None:
        try:
            weights = torch.as_tensor(alpha, dtype=_full_precision(logits[:0]).dtype, device=logits.device)
        except (TypeError, ValueError, RuntimeError) as error:
            errors.append(f"alpha must be None, a number or {classes} numbers, not {alpha!r}")
            raise LossInputError(list_errors("softmax_focal_loss", errors)) from error
        host = not isinstance(alpha, Tensor) or alpha.device.type == "cpu"
        errors += _weight_errors(weights, classes, host)
        if weights.ndim == 0:
            weights = torch.stack([1.0 - weights, weights])
    raise_errors("softmax_focal_loss", errors)
    return weights


def _index_errors(logits: Tensor, target: Tensor, ignore_index: int) -> list[str]:
    """Errors in class indices (N, d1, ...) for logits (N, C, d1, ...)."""
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return [
            f"target must hold class indices of an integer type, not {target.dtype}: use argmax(dim=1) for class "
            "probabilities, .long() for bool; for multi-label targets use sigmoid_focal_loss"
        ]
    expected = (logits.shape[0], *logits.shape[2:])
    if target.shape != expected:
        return [f"target has shape {tuple(target.shape)}; logits {tuple(logits.shape)} require {expected}"]
    target = target.long()
    outside = ((target < 0) | (target >= logits.shape[1])) & (target != ignore_index)
    if _violated(outside):
        found = ", ".join(str(value) for value in target[outside].unique()[:5].tolist())
        return [
            f"target holds {found}: not a class (0..{logits.shape[1] - 1}, from logits {tuple(logits.shape)}) "
            f"and not ignore_index ({ignore_index}); correct the labels, or pass the ignore_index that they use"
        ]
    return []


def _weight_errors(weights: Tensor, classes: int, host: bool) -> list[str]:
    """Errors in alpha; its values are validated only if they are on the CPU (`host`), to avoid a device sync."""
    if weights.ndim == 0 and classes != 2:
        return [f"alpha is one number, which needs 2 classes; logits have {classes}: give {classes} weights or None"]
    if weights.ndim == 0 and host and _violated(_outside_unit(weights)):
        return [f"alpha must lie in 0..1, not {weights.item():g}: class 1 gets alpha, class 0 gets 1 - alpha"]
    if weights.ndim and weights.shape != (classes,):
        return [f"alpha has shape {tuple(weights.shape)}; logits have {classes} classes: give {classes} weights"]
    if host and _violated(~((weights >= 0) & (weights < math.inf))):
        return [f"alpha must be finite and >= 0, not {weights.tolist()}"]
    return []

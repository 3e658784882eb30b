"""The arguments of the library's focal losses: what each must be, and the messages where it is not.

Values of tensors are validated only where they can be read: not under torch.compile, torch.func.vmap or a capture of a
CUDA graph, and not of meta tensors. Types and shapes are always validated.

Legend: N samples, C classes, (...) any further shape.
"""

import difflib
import math
import numbers
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from retinanet.errors import UserError, list_errors

Reduction = Literal["none", "mean", "sum", "mean_elements", "mean_positives"]
Weights = float | Sequence[float] | Tensor

ROUNDING = 1e-6
"""How far a computed probability may lie outside 0..1; where 8 roundings of its type are more, as far as these."""


class LossInputError(UserError):
    """Invalid arguments of a loss (exit code 2)."""


def raise_errors(name: str, errors: list[str]) -> None:
    """Raise one LossInputError that lists `errors`, if there are any."""
    if errors:
        raise LossInputError(list_errors(name, errors))


def full_precision(values: Tensor) -> Tensor:
    """In float32, or float64 if it is that already."""
    return values if values.dtype == torch.float64 else values.float()


def within_unit(values: Tensor) -> Tensor:
    """Values that a rounding puts outside 0..1 as 0 or 1; each passes on its gradient, unlike with a clamp."""
    return values + (values.clamp(0.0, 1.0) - values).detach()


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


def check_binary(
    loss: str,
    values: Tensor,
    target: Tensor,
    alpha: Weights | None,
    gamma: float,
    reduction: str,
    weight: Weights | None,
    ignore_index: int | None,
) -> tuple[Tensor | float | None, Tensor | float | None]:
    """The alpha and weight in a form that broadcasts to `values`; raises LossInputError for invalid arguments."""
    name = "probabilities" if loss == "binary_focal_loss" else "logits"
    errors = common_errors(gamma, reduction) + _float_errors(name, values)
    if target.shape != values.shape:
        hint = ": for class indices use softmax_focal_loss, or F.one_hot" if target.ndim == values.ndim - 1 else ""
        errors.append(f"target has shape {tuple(target.shape)} and {name} {tuple(values.shape)}; both must agree{hint}")
    errors += _target_errors(target, ignore_index)
    if name == "probabilities" and not errors:
        found = _outside_unit(values)
        errors += [f"probabilities must lie in 0..1{found}; for logits use sigmoid_focal_loss"] if found else []
    meaning = "label 1 gets it, label 0 gets 1 - alpha; for weights of any size use weight"
    alphas, wrong = _along_classes("alpha", alpha, values, 1.0, f"in 0..1 ({meaning})")
    weights, off = _along_classes("weight", weight, values, math.inf, "finite and >= 0")
    raise_errors(loss, errors + wrong + off)
    return alphas, weights


def check_softmax(
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
            weights = torch.as_tensor(alpha, dtype=_loss_type(logits), device=logits.device)
        except (TypeError, ValueError, RuntimeError) as error:
            errors.append(f"alpha must be None, a number or {classes} numbers, not {alpha!r}")
            raise LossInputError(list_errors("softmax_focal_loss", errors)) from error
        host = not isinstance(alpha, Tensor) or alpha.device.type == "cpu"
        errors += _weight_errors(weights, classes, host)
        if weights.ndim == 0:
            weights = torch.stack([1.0 - weights, weights])
    raise_errors("softmax_focal_loss", errors)
    return weights


def _loss_type(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _violated(condition: Tensor) -> bool:
    """Whether any is true; False where values cannot be read."""
    if torch.compiler.is_compiling() or condition.is_meta:
        return False
    if condition.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    try:
        return bool(condition.any())
    except RuntimeError as error:
        # torch has no public question for this.
        if "vmap" in str(error):
            return False
        raise


def _outside_unit(values: Tensor) -> str:
    """Words on the values outside 0..1 beyond rounding; empty if there are none."""
    slack = max(ROUNDING, 8 * torch.finfo(values.dtype).eps) if values.is_floating_point() else 0
    # In this form NaN is outside.
    if not _violated(~((values >= -slack) & (values <= 1 + slack))):
        return ""
    least, largest = (bound.item() for bound in values.aminmax())
    return f", not {least:.7g} to {largest:.7g}" if least != largest else f", not {least:.7g}"


def _float_errors(name: str, values: Tensor) -> list[str]:
    return [] if values.is_floating_point() else [f"{name} must be floating point, not {values.dtype}"]


def _target_errors(target: Tensor, ignore_index: int | None) -> list[str]:
    """Errors in the labels 0..1 of a binary loss."""
    if target.is_complex():
        return [f"target must lie in 0..1, not be {target.dtype}"]
    if ignore_index is not None and not isinstance(ignore_index, numbers.Integral):
        return [f"ignore_index must be a whole number or None, not {ignore_index!r}"]
    known = target.to(torch.int64) if target.dtype in (torch.bool, torch.uint8) else target
    found = _outside_unit(known if ignore_index is None else known.masked_fill(known == ignore_index, 0))
    if not found:
        return []
    rest = "other labels" if ignore_index is not None else "labels that mean `unknown`"
    return [
        f"target must lie in 0..1{found}: 1 if the label applies, 0 if not, in between for soft labels; leave out "
        f"{rest} by ignore_index, or by a mask of your own on reduction=`none`"
    ]


def _along_classes(
    name: str, given: Weights | None, values: Tensor, most: float, meaning: str
) -> tuple[Tensor | float | None, list[str]]:
    """The alpha or weight of a binary loss in a form that broadcasts to `values`, with its errors."""
    if given is None:
        return None, []
    if isinstance(given, numbers.Real):
        number = float(given)
        wrong = not 0 <= number <= most or math.isinf(number)
        return number, [f"{name} must be {meaning}, or None: {given!r}"] if wrong else []
    try:
        weights = torch.as_tensor(given, dtype=_loss_type(values), device=values.device)
    except (TypeError, ValueError, RuntimeError):
        return None, [f"{name} must be None, a number or a number for each class, not {given!r}"]
    classes = values.shape[1] if values.ndim > 1 else 0
    shaped = weights
    if weights.ndim == 1 and values.ndim > 1:
        shaped = weights.reshape(1, -1, *[1] * (values.ndim - 2))
    fits = weights.ndim in (0, 1, values.ndim) and all(
        a in (1, b) for a, b in zip(shaped.shape[::-1], values.shape[::-1])
    )
    if not fits or (weights.ndim == 1 and classes and len(weights) != classes):
        each = f"{classes} numbers (one for each class along dimension 1), " if classes else ""
        return None, [
            f"{name} has shape {tuple(weights.shape)}: give one number, {each}or a tensor that broadcasts to "
            f"{tuple(values.shape)}"
        ]
    host = not isinstance(given, Tensor) or given.device.type == "cpu"
    if host and _violated(~((weights >= 0) & (weights <= most) & (weights < math.inf))):
        return None, [f"{name} must be {meaning}, or None: {weights.tolist()}"]
    return shaped, []


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
    if weights.ndim == 0 and host and _violated(~((weights >= 0) & (weights <= 1))):
        return [f"alpha must lie in 0..1, not {weights.item():g}: class 1 gets alpha, class 0 gets 1 - alpha"]
    if weights.ndim and weights.shape != (classes,):
        return [f"alpha has shape {tuple(weights.shape)}; logits have {classes} classes: give {classes} weights"]
    if host and _violated(~((weights >= 0) & (weights < math.inf))):
        return [f"alpha must be finite and >= 0, not {weights.tolist()}"]
    return []

"""Whether a function can be a class loss: its value, its gradient, and both in the cases in which losses fail.

Legend: N anchors, K classes.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.errors import ConfigError, list_errors
from retinanet.losses.own import OwnFunction, one_hot_targets

ANCHORS = 64
LARGEST_LOGIT = 80.0
"""Logits of this size occur when a training goes wrong; exp of a larger one overflows in float32."""
STEP = 1e-4
"""Of the finite differences, in float64."""
CLOSE = 1e-3
"""Relative difference from which a gradient is noted as another than the value's."""


class CheckedLoss(NamedTuple):
    """What a loss that can train has shown."""

    value: float
    """Mean over anchors of random logits, a quarter of them positive."""
    gradient_error: float
    """Largest difference of its gradient to finite differences, relative to the largest derivative; NaN if the function
    does not compute in float64."""
    bfloat16_error: float
    """Largest relative difference of an anchor's loss at bfloat16 logits to the same in float32."""
    notes: tuple[str, ...]
    """What may be meant so, but is unusual."""


class _Case(NamedTuple):
    """Logits and labels on which the function is tried."""

    name: str
    logits_NK: Tensor
    targets_NK: Tensor


def check_function(name: str, function: OwnFunction, classes: int, options: Mapping[str, Any]) -> CheckedLoss:
    """Try a class loss on random anchors. Raises ConfigError that lists all that is wrong; name: of the loss in it."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        cases = _cases(classes)
        # What is wrong with random logits is wrong everywhere.
        first = _error(function, cases[0], options)
        errors = [first] if first else [error for case in cases[1:] if (error := _error(function, case, options))]
        if errors:
            raise ConfigError(list_errors(f"{name}: cannot be used as a class loss", list(dict.fromkeys(errors))))
        main, half = cases[0], cases[3]
        loss_N, gradient_NK = _tried(function, main, options)
        in_half_N, _ = _tried(function, half, options)
        in_full_N, _ = _tried(function, half._replace(logits_NK=half.logits_NK.float()), options)
        exact = _gradient_error(function, main, options)
        return CheckedLoss(
            value=loss_N.mean().item(),
            gradient_error=exact,
            bfloat16_error=((in_half_N - in_full_N).abs() / in_full_N.abs().clamp(min=1e-3)).max().item(),
            notes=_notes(main, gradient_NK, exact),
        )


def _cases(classes: int) -> list[_Case]:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(ANCHORS) % (4 * classes)
    labels_N = torch.where(labels_N < classes, labels_N, -1)
    random_NK = 3 * torch.randn(ANCHORS, classes, generator=generator)
    extreme_NK = torch.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, ANCHORS)[torch.randperm(ANCHORS, generator=generator)]
    extreme_NK = extreme_NK[:, None].repeat(1, classes)
    targets_NK = one_hot_targets(labels_N, random_NK)
    half_NK = (4 * random_NK).bfloat16()
    return [
        _Case("random logits", random_NK, targets_NK),
        _Case(f"logits up to {LARGEST_LOGIT:g}", extreme_NK, targets_NK),
        _Case("no positive anchor", random_NK, torch.zeros_like(targets_NK)),
        _Case("bfloat16 logits", half_NK, targets_NK),
        _Case("all anchors ignored (N = 0)", random_NK[:0], targets_NK[:0]),
    ]


def _tried(function: OwnFunction, case: _Case, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Loss of each anchor and the gradient of their sum, detached."""
    logits_NK = case.logits_NK.clone().requires_grad_()
    loss = function(logits_NK, case.targets_NK.clone(), **options)
    loss_N = loss.sum(dim=1) if loss.ndim > 1 else loss
    (gradient_NK,) = torch.autograd.grad(loss_N.sum(), logits_NK)
    return loss_N.detach(), gradient_NK


def _error(function: OwnFunction, case: _Case, options: Mapping[str, Any]) -> str:
    """What is wrong in a case; empty if nothing is."""
    logits_NK, targets_NK = case.logits_NK.clone().requires_grad_(), case.targets_NK.clone()
    count, classes = logits_NK.shape
    try:
        loss = function(logits_NK, targets_NK, **options)
    except Exception as error:  # whatever the user's code raises
        return f"{case.name}: raises {type(error).__name__}: {error}"
    if not isinstance(loss, Tensor):
        return f"returns a {type(loss).__name__}, not a tensor"
    if loss.shape not in ((count, classes), (count,)):
        return (
            f"{case.name}: returns the shape {tuple(loss.shape)} for logits {(count, classes)}, not (N, K) or (N,): "
            "the loss of each output or each anchor, without a mean or sum over anchors"
        )
    if not torch.equal(targets_NK, case.targets_NK) or not torch.equal(logits_NK.detach(), case.logits_NK):
        return "changes its arguments in place; copy them first"
    if not loss.isfinite().all():
        return f"{case.name}: {_worst(loss.detach(), case)}{_remedy(case)}"
    if not loss.requires_grad:
        return "has no gradient: it must be computed from logits by torch, without .detach(), .item(), NumPy or argmax"
    (gradient_NK,) = torch.autograd.grad(loss.sum(), logits_NK, allow_unused=True)
    if gradient_NK is None or (count and not gradient_NK.any()):
        return f"{case.name}: its gradient by the logits is zero everywhere"
    if not gradient_NK.isfinite().all():
        return f"{case.name}: its gradient is not finite: {_worst(gradient_NK, case)}{_remedy(case)}"
    return ""


def _worst(values: Tensor, case: _Case) -> str:
    """Where the first value that is not finite is."""
    values = values.reshape(len(values), -1)
    row, column = map(int, (~values.isfinite()).nonzero()[0])
    value, logit, target = (tensor[row, column].item() for tensor in (values, case.logits_NK, case.targets_NK))
    return f"{value} at a logit of {logit:.4g} with target {target:g}"


def _remedy(case: _Case) -> str:
    if case.logits_NK.dtype == torch.bfloat16:
        return "; compute in float32 (logits = logits.float()), with F.logsigmoid and F.softplus in place of log"
    return "; F.logsigmoid(x) and F.softplus(x) are exact where log(sigmoid(x)) is not"


def _gradient_error(function: OwnFunction, case: _Case, options: Mapping[str, Any]) -> float:
    logits_NK, targets_NK = case.logits_NK.double(), case.targets_NK.double()
    double = case._replace(logits_NK=logits_NK, targets_NK=targets_NK)
    try:
        _, gradient_NK = _tried(function, double, options)
        shift_NK = torch.zeros_like(logits_NK)
        slopes = []
        for column in range(logits_NK.shape[1]):
            # One output of every anchor at a time: an anchor's loss does not depend on the others'.
            shift_NK.zero_()[:, column] = STEP
            up, _ = _tried(function, double._replace(logits_NK=logits_NK + shift_NK), options)
            down, _ = _tried(function, double._replace(logits_NK=logits_NK - shift_NK), options)
            slopes.append((up - down) / (2 * STEP))
    except (RuntimeError, ValueError, TypeError):
        return math.nan
    return ((torch.stack(slopes, dim=1) - gradient_NK).abs().max() / gradient_NK.abs().max()).item()


def _notes(case: _Case, gradient_NK: Tensor, gradient_error: float) -> tuple[str, ...]:
    positive_NK = case.targets_NK == 1
    notes = []
    if gradient_error > CLOSE:
        notes.append(
            f"its gradient differs from the slope of its value by {gradient_error:.0%}: a part of it is detached, or "
            "an anchor's loss depends on other anchors"
        )
    if gradient_NK[positive_NK].mean() > 0 or gradient_NK[~positive_NK].mean() < 0:
        notes.append("it falls where scores become worse: is its sign right?")
    return tuple(notes)

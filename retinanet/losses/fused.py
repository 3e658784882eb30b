"""Dense sigmoid losses in one compiled pass: value and analytic gradient together, from logits and integer labels.

The plain losses keep a dozen tensors as large as the logits for their backward pass; here only the gradient is kept.
Small batches use the plain loss, for which compiling would not pay off.

Legend: N anchors of a batch, K classes.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from retinanet.compile import can_compile, prepare_compiler
from retinanet.structures import IGNORE

DenseLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (..., K), labels (...)) -> loss (...), summed over the K outputs."""

NegativeMargin = Callable[[Tensor], tuple[Tensor, Tensor]]
"""s = -y x -> loss of an output and its derivative by s; y is 1 for the label's class, else -1, and x the logit."""

OnePass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits_NK, labels_N int32) -> loss_N, gradient_NK: loss of each anchor and its derivative by the logits."""


class Kernel(NamedTuple):
    """The compiled parts of a dense loss."""

    one_pass: OnePass
    value_alone: Callable[[Tensor, Tensor], Tensor]
    """(logits_NK, labels_N int32) -> loss_N, if no gradient is needed."""
    scale_rows: Callable[[Tensor, Tensor], Tensor]
    """(gradient_NK, scale_N) -> gradient_NK, modified in place."""


FUSED_FROM = 1 << 21
"""Outputs in a batch from which the compiled loss is used; the plain one takes 50 ms for two million on two cores."""


def value_and_gradient(
    logits_NK: Tensor, labels_N: Tensor, margin: NegativeMargin, positive_weight: float, negative_weight: float
) -> tuple[Tensor, Tensor]:
    """Loss of each anchor and its gradient by each logit; both are exactly 0 where the label is IGNORE.

    logits_NK: any float type, computed in float32 (float64 stays float64); labels_N: int32. Returns (N,) and (N, K),
    the latter in the logits' type, but float32 for float16, where a gradient could underflow before loss scaling.
    """
    x_NK = logits_NK if logits_NK.dtype == torch.float64 else logits_NK.float()
    is_class = labels_N[:, None] == torch.arange(logits_NK.shape[1], dtype=torch.int32, device=labels_N.device)
    valid_N1 = (labels_N != IGNORE)[:, None]
    value_NK, slope_NK = margin(torch.where(is_class, -x_NK, x_NK))
    weight_NK = torch.where(is_class, positive_weight, negative_weight).to(x_NK.dtype)
    loss_N = torch.where(valid_N1, weight_NK * value_NK, 0.0).sum(dim=1)
    gradient_NK = torch.where(is_class, -weight_NK, weight_NK) * slope_NK
    kept = torch.float32 if logits_NK.dtype == torch.float16 else logits_NK.dtype
    return loss_N, torch.where(valid_N1, gradient_NK, 0.0).to(kept)


def sigmoid_pass(margin: NegativeMargin, positive_weight: float, negative_weight: float) -> OnePass:
    """`value_and_gradient` as a function of logits and labels."""
    return partial(value_and_gradient, margin=margin, positive_weight=positive_weight, negative_weight=negative_weight)


def scale_rows(gradient_NK: Tensor, scale_N: Tensor) -> Tensor:
    """The chain rule, in place; compiled, because mixed types are slow otherwise."""
    return gradient_NK.mul_(scale_N[:, None])


class _Dense(torch.autograd.Function):
    """Keeps the gradient instead of the tensors to compute it from; can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, logits_NK: Tensor, labels_N: Tensor, kernel: Kernel) -> Tensor:
        """Compute the loss, and the gradient for the backward pass."""
        # Detached: the compiler reads .grad of its inputs, about which torch warns for tensors of a graph.
        loss_N, gradient_NK = kernel.one_pass(logits_NK.detach(), labels_N)
        ctx.save_for_backward(gradient_NK)
        ctx.scale_rows = kernel.scale_rows
        return loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale_N: Tensor) -> tuple[Tensor, None, None]:
        """Scale the kept gradient."""
        (gradient_NK,) = ctx.saved_tensors
        # In place: autograd refuses a second backward pass through a saved tensor that has been modified.
        return ctx.scale_rows(gradient_NK, scale_N), None, None


class FusedLoss:
    """A dense loss that compiles itself for the first large batch; small ones, and other machines, use the plain loss.

    The choice depends on shape and machine only, so a resumed run makes the same one.
    """

    def __init__(self, plain: DenseLoss, one_pass: OnePass) -> None:
        self.plain = plain
        self.one_pass = one_pass
        self.kernel: Kernel | None = None
        self.refused = False

    def __call__(self, logits_K: Tensor, labels: Tensor) -> Tensor:
        """Logits (..., K) and labels (...) -> loss (...), summed over the K outputs."""
        small = logits_K.numel() < FUSED_FROM
        if small or self.refused or not can_compile(logits_K.device.type):
            return self.plain(logits_K, labels)
        from torch._dynamo.exc import BackendCompilerFailed  # takes a second, so only if needed

        if self.kernel is None:
            prepare_compiler()
            self.kernel = Kernel(
                one_pass=torch.compile(self.one_pass, dynamic=True),
                value_alone=torch.compile(lambda logits, labels: self.one_pass(logits, labels)[0], dynamic=True),
                scale_rows=torch.compile(scale_rows, dynamic=True),
            )
        flat = (logits_K.flatten(0, -2), labels.flatten().to(torch.int32))
        trains = torch.is_grad_enabled() and logits_K.requires_grad
        try:
            loss_N: Tensor = (
                _Dense.apply(*flat, self.kernel) if trains else self.kernel.value_alone(flat[0].detach(), flat[1])
            )
        except BackendCompilerFailed as error:
            self.refused = True
            reason = str(error).splitlines()[0]
            warnings.warn(f"the class loss runs uncompiled: slower, with the same results: {reason}", stacklevel=2)
            return self.plain(logits_K, labels)
        return loss_N.view(labels.shape)


def softplus_and_sigmoid(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log(1 + e^s), sigmoid(s) and log sigmoid(s), from one exponential that cannot overflow.

    log(1 + e) for e = exp(-|s|) in 0..1 is 2 artanh(z), z = e / (2 + e) <= 1/3, computed by its series up to z^13: the
    relative error is below 3e-8, and compilers vectorise this but not log1p.
    """
    e = torch.exp(-s.abs())
    z = e / (2.0 + e)
    q = z * z
    log_term = 2.0 * z * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q / 13))))))
    larger = 1.0 / (1.0 + e)
    sigmoid = torch.where(s >= 0, larger, e * larger)
    return s.clamp(min=0) + log_term, sigmoid, s.clamp(max=0) - log_term


def cross_entropy_negative_margin(s: Tensor) -> tuple[Tensor, Tensor]:
    """-log p_t (equation 1) and its slope."""
    softplus, sigmoid, _ = softplus_and_sigmoid(s)
    return softplus, sigmoid


def focal_negative_margin(s: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """-(1 - p_t)^gamma log p_t (equation 4) and its slope (appendix B)."""
    softplus, sigmoid, log_sigmoid = softplus_and_sigmoid(s)
    modulation = sigmoid * sigmoid if gamma == 2.0 else torch.exp(gamma * log_sigmoid)
    return modulation * softplus, modulation * (gamma * (1.0 - sigmoid) * softplus + sigmoid)


def focal_star_negative_margin(s: Tensor, gamma: float, beta: float) -> tuple[Tensor, Tensor]:
    """-log(sigmoid(gamma x_t + beta)) / gamma (appendix A) and its slope."""
    softplus, sigmoid, _ = softplus_and_sigmoid(gamma * s - beta)
    return softplus / gamma, sigmoid

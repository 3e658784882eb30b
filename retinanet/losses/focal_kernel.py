"""The sigmoid focal loss as one Triton kernel for CUDA: value and gradient in one pass, both divided by the normaliser.

Imported only where Triton is used. With TRITON_INTERPRET=1 the kernel runs on the CPU, in NumPy.

Legend: N anchors of a batch, K classes.
"""

# Triton gives the arguments of a kernel types of its own.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from retinanet.structures import IGNORE

CHUNK = 16
"""Classes that a program computes at once: divides the 80 of COCO, so that no lane is idle."""
TILE = 1024
"""Logits that a program computes at once."""

_IGNORE = tl.constexpr(IGNORE)


@triton.jit
def softplus_and_sigmoids(s):
    """log(1 + e^s), sigmoid(s), sigmoid(-s) and log sigmoid(s), as `fused.softplus_and_sigmoid`, with one division."""
    e = tl.exp(-tl.abs(s))
    larger = 1.0 / (1.0 + e)
    smaller = e * larger
    # log(1 + e) / e for e in 0..1, to a relative 3e-8: a minimax polynomial.
    series = 0.0052318359 * e - 0.0295016170
    series = series * e + 0.0782196596
    series = series * e - 0.1366266608
    series = series * e + 0.1910570264
    series = series * e - 0.2484289110
    series = series * e + 0.3331908286
    series = series * e - 0.4999949336
    log_term = (series * e + 0.9999999404) * e
    sigmoid = tl.where(s >= 0.0, larger, smaller)
    other = tl.where(s >= 0.0, smaller, larger)
    return tl.maximum(s, 0.0) + log_term, sigmoid, other, tl.minimum(s, 0.0) - log_term


@triton.jit
def focal_kernel(
    logits,
    labels,
    divisors,
    losses,
    gradients,
    rows,
    anchors,
    positive_weight,
    negative_weight,
    classes: tl.constexpr,
    gamma: tl.constexpr,
    trains: tl.constexpr,
    block: tl.constexpr,
    chunk: tl.constexpr,
):
    """Loss and gradient of `block` rows of logits (rows, classes); see `focal_pass`."""
    row = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    label = tl.load(labels + row, mask=row < rows, other=_IGNORE).to(tl.int32)
    counts = label != _IGNORE
    divisor = tl.load(divisors + row // anchors, mask=counts, other=1.0)
    positive, negative = positive_weight / divisor, negative_weight / divisor
    total = tl.zeros([block, chunk], dtype=tl.float32)
    for start in tl.static_range(0, classes, chunk):
        column = start + tl.arange(0, chunk)
        place = row[:, None] * classes + column[None, :]
        exists = (row < rows)[:, None]
        known = counts[:, None]
        if start + chunk > classes:
            exists = exists & (column < classes)[None, :]
            known = known & (column < classes)[None, :]
        # Logits of ignored anchors may be anything, so they are not read.
        x = tl.load(logits + place, mask=known, other=0.0).to(tl.float32)
        is_class = label[:, None] == column[None, :]
        s = tl.where(is_class, -x, x)
        softplus, sigmoid, other, log_sigmoid = softplus_and_sigmoids(s)
        weight = tl.where(is_class, positive[:, None], negative[:, None])
        if gamma == 2.0:
            weight = weight * (sigmoid * sigmoid)
        elif gamma != 0.0:
            weight = weight * tl.exp(gamma * log_sigmoid)
        value = weight * softplus
        total += value if start + chunk <= classes else tl.where(known, value, 0.0)
        if trains:
            slope = weight * (gamma * other * softplus + sigmoid)
            slope = tl.where(known, tl.where(is_class, -slope, slope), 0.0)
            tl.store(gradients + place, slope.to(gradients.dtype.element_ty), mask=exists)
    tl.store(losses + row, tl.where(counts, tl.sum(total, axis=1), 0.0), mask=row < rows)


@triton.jit
def scale_kernel(gradients, scales, rows, classes: tl.constexpr, block: tl.constexpr, chunk: tl.constexpr):
    """Multiply each row of gradients (rows, classes) by its scale; blocks whose scales are all 1 are not touched."""
    row = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    scale = tl.load(scales + row, mask=row < rows, other=1.0)
    if tl.sum((scale != 1.0).to(tl.int32), axis=0) > 0:
        for start in tl.static_range(0, classes, chunk):
            column = start + tl.arange(0, chunk)
            place = gradients + row[:, None] * classes + column[None, :]
            exists = (row < rows)[:, None] & (column < classes)[None, :]
            scaled = tl.load(place, mask=exists, other=0.0).to(tl.float32) * scale[:, None]
            tl.store(place, scaled.to(gradients.dtype.element_ty), mask=exists)


def tile(classes: int) -> dict[str, int]:
    """Rows and columns of logits that a program computes at once, powers of two."""
    chunk = min(CHUNK, triton.next_power_of_2(classes))
    return {"block": TILE // chunk, "chunk": chunk}


def focal_pass(
    logits_BAK: Tensor,
    labels_BA: Tensor,
    normaliser_B: Tensor,
    gamma: float,
    positive_weight: float,
    negative_weight: float,
    *,
    trains: bool,
) -> tuple[Tensor, Tensor]:
    """Focal loss (B, A) float32 of each anchor, divided by its image's normaliser, and its gradient by each logit.

    Both are 0 where the label is IGNORE. The gradient has the logits' type, but float32 for float16, where it could
    underflow before loss scaling; without `trains` it is empty. gamma 0 is cross entropy.
    """
    logits_BAK = logits_BAK.contiguous()
    images, anchors, classes = logits_BAK.shape
    loss_BA = torch.empty((images, anchors), dtype=torch.float32, device=logits_BAK.device)
    kept = torch.float32 if logits_BAK.dtype == torch.float16 else logits_BAK.dtype
    gradient_BAK = torch.empty(logits_BAK.shape if trains else (0,), dtype=kept, device=logits_BAK.device)
    shape = tile(classes)
    focal_kernel[(triton.cdiv(images * anchors, shape["block"]),)](
        logits_BAK,
        labels_BA.contiguous(),
        normaliser_B.float(),
        loss_BA,
        gradient_BAK,
        images * anchors,
        anchors,
        positive_weight,
        negative_weight,
        classes=classes,
        gamma=gamma,
        trains=trains,
        **shape,
    )
    return loss_BA, gradient_BAK


class DividedFocal(torch.autograd.Function):
    """`focal_pass` with its gradient; can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, logits_BAK: Tensor, labels_BA: Tensor, normaliser_B: Tensor, *rule: float) -> Tensor:
        """Compute the loss and keep its gradient. rule: gamma, positive and negative weight."""
        trains = ctx.needs_input_grad[0]
        loss_BA, gradient_BAK = focal_pass(logits_BAK.detach(), labels_BA, normaliser_B, *rule, trains=trains)
        ctx.save_for_backward(gradient_BAK)
        return loss_BA

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale_BA: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradient, in place; nothing is read where the scale is 1, as without weights and ranks."""
        (gradient_BAK,) = ctx.saved_tensors
        classes = gradient_BAK.shape[-1]
        shape = tile(classes)
        scale_kernel[(triton.cdiv(scale_BA.numel(), shape["block"]),)](
            gradient_BAK, scale_BA.contiguous(), scale_BA.numel(), classes=classes, **shape
        )
        return gradient_BAK, None, None, None, None, None

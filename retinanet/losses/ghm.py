"""GHM-C, the gradient harmonising class loss (Li, Liu, Wang: arXiv 1811.05181).

Legend: B images, A anchors, N anchors of a batch, K classes, M bins ("unit regions") of the gradient norm.

The paper and its authors' code differ in one factor. With R the number of outputs in an output's bin, the paper's
gradient density is R M, where all bins count; the code divides by R n, n the number of bins that are not empty, so that
the loss does not shrink when empty bins are added (libuyu/GHM_Detection issue 13, where an author calls the second more
reasonable; mmdetection does the same). This implementation follows the code.

Scale: all bins that are not empty have the same weight, so the whole loss is the mean over bins of a bin's mean cross
entropy, independent of the numbers of anchors, classes and positives: about 2.3 at the prior of 0.01, below log 2 for
outputs on the right side of 0.5. The derivative by a single output is g / (R n), not g / positives.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from retinanet.losses.cross_entropy import drop_ignored, signed_logits
from retinanet.losses.fused import DenseLoss, softplus_and_sigmoid
from retinanet.structures import IGNORE, ClassTargets


def harmonising_weights(norms_BAK: Tensor, valid_BA: Tensor, bins: int) -> Tensor:
    """1 / (R n) of each output: beta_i / N of the paper, with n bins in use instead of all M.

    norms_BAK: (..., K) float32 gradient norms g = |p - p*| in 0..1; bin t holds t / bins <= g < (t + 1) / bins, the
    last one also g = 1. valid_BA: (...) bool, anchors that count. Returns (..., K) of the norms' type, without
    gradient, with sum 1 over the valid outputs and 0 elsewhere.
    """
    # int32 halves the memory of the default index type; clamped as integers, because the cast of NaN is undefined.
    bins_BAK = (norms_BAK.detach() * bins).to(torch.int32).clamp(min=0, max=bins - 1)
    bins_BAK = torch.where(valid_BA[..., None], bins_BAK, bins)
    counts = torch.bincount(bins_BAK.flatten(), minlength=bins + 1)[:bins]
    in_use = counts > 0
    weights = in_use.to(norms_BAK.dtype) / (counts.clamp(min=1) * in_use.sum().clamp(min=1))
    return F.pad(weights, (0, 1)).index_select(0, bins_BAK.flatten()).view_as(norms_BAK)


def harmonised(logits_BAK: Tensor, labels_BA: Tensor, bins: int) -> Tensor:
    """Cross entropy of each output divided by its gradient density, summed over the K outputs: (B, A) float32.

    The sum over the batch is a mean. logits_BAK: (B, A, K), any float type. One output, (anchor, class), is what the
    paper calls an example. The density is a constant to the gradient, as in the paper.
    """
    _, s = signed_logits(logits_BAK, labels_BA)
    weights_BAK = harmonising_weights(torch.sigmoid(s), labels_BA != IGNORE, bins)
    return drop_ignored((weights_BAK * F.softplus(s)).sum(dim=-1), labels_BA)


def harmonised_in_one_pass(logits_NK: Tensor, labels_N: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """`harmonised` and its derivative by each logit, to be compiled; counting the bins is the one graph break.

    See `fused.value_and_gradient`. labels_N: int32.
    """
    x_NK = logits_NK if logits_NK.dtype == torch.float64 else logits_NK.float()
    is_class = labels_N[:, None] == torch.arange(logits_NK.shape[1], dtype=torch.int32, device=labels_N.device)
    softplus_NK, norms_NK, _ = softplus_and_sigmoid(torch.where(is_class, -x_NK, x_NK))
    valid_N = labels_N != IGNORE
    weights_NK = harmonising_weights(norms_NK, valid_N, bins)
    loss_N = torch.where(valid_N[:, None], weights_NK * softplus_NK, 0.0).sum(dim=1)
    gradient_NK = torch.where(is_class, -weights_NK, weights_NK) * norms_NK
    kept = torch.float32 if logits_NK.dtype == torch.float16 else logits_NK.dtype
    return loss_N, torch.where(valid_N[:, None], gradient_NK, 0.0).to(kept)


def ghm(logits_BAK: Tensor, targets: ClassTargets, loss: DenseLoss) -> Tensor:
    """`harmonised` for the targets of a step: (B, A) float32, normalised. loss: `harmonised` or a faster equivalent.

    The loss has its own normaliser: the weights of a micro-batch sum to 1. Each micro-batch is weighted by its fraction
    of targets.images, so that micro-batches and ranks are averaged; since each has its own histogram, their average
    differs slightly from the loss of one large batch. The paper's optional moving average of the histogram is not used:
    it is state, and losses here are pure functions, so that resumed and accumulated runs equal uninterrupted ones.
    Without it a single output in its bin carries 1 / n of the loss, so use no more bins than a micro-batch can fill.
    """
    return loss(logits_BAK, targets.labels_BA) * (len(logits_BAK) / targets.images)

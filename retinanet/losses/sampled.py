"""Cross entropy of a random minibatch of anchors, as in two-stage detectors (Faster R-CNN, arXiv 1506.01497, 3.1.3).

Legend: B images, A anchors, K classes; M anchors of a minibatch, over all images or in each one; P positives of an
image that may be drawn.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retinanet.losses.cross_entropy import cross_entropy
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

Normaliser = Literal["positives", "kept"]
"""Divisor of the sum over a minibatch: the targets' normaliser, or the size of the minibatch itself."""

RANKS = 1 << 62
"""Number of ranks that an anchor may get at random."""

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIXING = (30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64))
"""SplitMix64's constants, as signed integers of 64 bits."""


class SampleRule(NamedTuple):
    """How a minibatch is drawn and normalised; the fields are the keys of `SampledKeys`."""

    batch: int
    positive_fraction: float
    normaliser: Normaliser


def minibatch_cross_entropy(
    logits_BAK: Tensor, rows: tuple[Tensor, Tensor], labels_M: Tensor, targets: ClassTargets, normaliser: Normaliser
) -> Tensor:
    """Sigmoid cross entropy of a minibatch, normalised, and 0 (with zero gradient) elsewhere: (B, A) float32.

    rows: image_M and anchor_M, int64, distinct pairs. labels_M: their labels; IGNORE is not part of the minibatch.
    `positives` divides by targets.normaliser_B, `kept` by each image's anchors in the minibatch and targets.images.
    Only these rows of the logits enter the graph.
    """
    image_M, anchor_M = rows
    if normaliser == "positives":
        divisor_B = targets.normaliser_B
    else:
        kept_M = (labels_M != IGNORE).float()
        kept_B = torch.zeros(len(logits_BAK), device=kept_M.device).index_add(0, image_M, kept_M)
        divisor_B = kept_B.clamp(min=1) * targets.images
    loss_M = cross_entropy(logits_BAK[image_M, anchor_M], labels_M) / divisor_B[image_M]
    nothing_BA = torch.zeros(logits_BAK.shape[:2], dtype=loss_M.dtype, device=loss_M.device)
    return nothing_BA.index_put((image_M, anchor_M), loss_M)


def random_ranks(seeds_B: Tensor, anchors: int) -> Tensor:
    """(B, A) int64 in 0..RANKS - 1, random numbers of each anchor: SplitMix64 (Steele et al., 2014) from the seeds.

    seeds_B: int64. Integer arithmetic, so that every device computes the same numbers.
    """
    z = seeds_B[:, None] + torch.arange(1, anchors + 1, device=seeds_B.device) * _GOLDEN
    for shift, factor in _MIXING:
        z = (z ^ _shifted(z, shift)) * factor
    return (z ^ _shifted(z, 31)) & (RANKS - 1)


def _shifted(z: Tensor, shift: int) -> Tensor:
    """The logical shift to the right: zeros come in at the left, where torch repeats the sign."""
    return (z >> shift) & ((1 << (64 - shift)) - 1)


def draw(labels_BA: Tensor, seeds_B: Tensor, rule: SampleRule) -> tuple[Tensor, Tensor]:
    """The anchors drawn from each image: (B, M) int64 indices, distinct, and (B, M) bool, whether each is drawn.

    At most floor(positive_fraction * batch) positives, each set of that size equally likely; then negatives up to
    `batch`. Fewer if the image has fewer; ignored anchors are never drawn. M is at most `batch`. A function of labels
    and seeds only, without a host-device sync.
    """
    anchors = labels_BA.shape[1]
    positives = min(int(rule.positive_fraction * rule.batch), anchors)
    random_BA = random_ranks(seeds_B, anchors)
    rank_BA = torch.where(labels_BA == BACKGROUND, random_BA, -1)
    if positives:
        # The positives that are drawn come before all negatives, the others nowhere.
        best_BP = torch.where(labels_BA >= 0, random_BA, -1).topk(positives, dim=1)
        before_BP = torch.where(best_BP.values >= 0, best_BP.values + RANKS, rank_BA.gather(1, best_BP.indices))
        rank_BA = rank_BA.scatter(1, best_BP.indices, before_BP)
    drawn_BM = rank_BA.topk(min(rule.batch, anchors), dim=1)
    return drawn_BM.indices, drawn_BM.values >= 0


def sampled(logits_BAK: Tensor, targets: ClassTargets, rule: SampleRule) -> Tensor:
    """Cross entropy of `batch` anchors of each image drawn by its seed, normalised, 0 elsewhere: (B, A) float32.

    The box loss is that of all positives, whichever are drawn here. If there are more positives than the minibatch can
    hold, `positives` therefore gives the class loss less weight relative to it than a two-stage detector does.
    """
    labels_BA = targets.labels_BA
    anchor_BM, is_drawn_BM = draw(labels_BA, targets.seeds_B.to(labels_BA.device, non_blocking=True), rule)
    labels_M = torch.where(is_drawn_BM, labels_BA.gather(1, anchor_BM), IGNORE).flatten()
    image_BM = torch.arange(len(labels_BA), device=labels_BA.device)[:, None].expand_as(anchor_BM)
    rows = image_BM.flatten(), anchor_BM.flatten()
    return minibatch_cross_entropy(logits_BAK, rows, labels_M, targets, rule.normaliser)

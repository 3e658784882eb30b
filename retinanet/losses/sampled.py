"""Cross entropy of a random minibatch of anchors, as in two-stage detectors (Faster R-CNN, arXiv 1506.01497, 3.1.3).

Legend: B images, A anchors, K classes, M anchors of a minibatch over all images; of one image: P positives and
N negatives.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retinanet.losses.cross_entropy import cross_entropy
from retinanet.structures import BACKGROUND, ClassTargets

Normaliser = Literal["positives", "kept"]
"""Divisor of the sum over a minibatch: the targets' normaliser, or the size of the minibatch itself."""


class SampleRule(NamedTuple):
    """How a minibatch is drawn and normalised; the fields are the keys of `SampledKeys`."""

    batch: int
    positive_fraction: float
    normaliser: Normaliser


def minibatch_cross_entropy(
    logits_BAK: Tensor, labels_BA: Tensor, kept: tuple[Tensor, Tensor], targets: ClassTargets, normaliser: Normaliser
) -> Tensor:
    """Sigmoid cross entropy of the kept anchors, normalised, and 0 (with zero gradient) elsewhere: (B, A) float32.

    labels_BA: (B, A) int64, the labels to train on; kept: image_M and anchor_M, int64, on the device. `positives`
    divides by targets.normaliser_B, `kept` by each image's count of kept anchors and targets.images.
    Only the kept rows of the logits enter the graph.
    """
    image_M, anchor_M = kept
    if normaliser == "positives":
        divisor_B = targets.normaliser_B
    else:
        one_M = torch.ones_like(image_M, dtype=torch.float32)
        divisor_B = torch.zeros(len(labels_BA), device=one_M.device).index_add(0, image_M, one_M) * targets.images
    loss_M = cross_entropy(logits_BAK[image_M, anchor_M], labels_BA[image_M, anchor_M]) / divisor_B[image_M]
    nothing_BA = torch.zeros(labels_BA.shape, dtype=loss_M.dtype, device=loss_M.device)
    return nothing_BA.index_put((image_M, anchor_M), loss_M)


def draw(labels_A: Tensor, seed: int, rule: SampleRule) -> Tensor:
    """Indices of the anchors drawn from one image, positives first: int64; everything is on the CPU.

    At most floor(positive_fraction * batch) positives, each set of that size equally likely; then negatives up to
    `batch`. Fewer if the image has fewer; ignored anchors are never drawn. A function of labels and seed only.
    """
    generator = torch.Generator().manual_seed(seed)
    positive_P = (labels_A >= 0).nonzero().flatten()
    negative_N = (labels_A == BACKGROUND).nonzero().flatten()
    positives = min(len(positive_P), int(rule.positive_fraction * rule.batch))
    drawn_P = torch.randperm(len(positive_P), generator=generator)[:positives]
    drawn_N = torch.randperm(len(negative_N), generator=generator)[: rule.batch - positives]
    return torch.cat([positive_P[drawn_P], negative_N[drawn_N]])


def sampled(logits_BAK: Tensor, targets: ClassTargets, rule: SampleRule) -> Tensor:
    """Cross entropy of `batch` anchors of each image drawn by its seed, normalised, 0 elsewhere: (B, A) float32.

    The box loss is that of all positives, whichever are drawn here. If there are more positives than the minibatch can
    hold, `positives` therefore gives the class loss less weight relative to it than a two-stage detector does.
    """
    # One sync for all images, to which a minibatch's few indices go back.
    labels = targets.labels_BA.cpu()
    drawn = [draw(labels_A, seed, rule).sort().values for labels_A, seed in zip(labels, targets.seeds_B.tolist())]
    image_M = torch.arange(len(drawn)).repeat_interleave(torch.tensor([len(drawn_D) for drawn_D in drawn]))
    image_M, anchor_M = torch.stack([image_M, torch.cat(drawn)]).to(targets.labels_BA.device, non_blocking=True)
    return minibatch_cross_entropy(logits_BAK, targets.labels_BA, (image_M, anchor_M), targets, rule.normaliser)

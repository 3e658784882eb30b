"""Raw outputs and an assignment -> named losses. The normaliser is an argument, never found out here.

Legend: B images, A anchors, K head outputs, P positive anchors.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.detection.assign import BatchAssignment
from retinanet.losses.box import BoxRegressionLoss
from retinanet.losses.classification import ClassificationLoss
from retinanet.structures import ClassTargets, HeadOutputs

Normaliser = Literal["batch_positives", "image_positives", "rank_positives", "running_positives"]
RUNNING_START, RUNNING_MOMENTUM = 100.0, 0.9
"""Of detectron2's running mean of positives."""


class Losses(NamedTuple):
    """Losses of one batch, normalised and weighted; all float32, all but the last with gradient."""

    class_B: Tensor
    """(B,) each image's share of the class loss."""
    box_B: Tensor
    """(B,) each image's share of the box loss."""
    foreground: Tensor
    """Scalar: the part of class_B.sum() that positive anchors carry, detached."""

    def total(self) -> Tensor:
        """Scalar to differentiate."""
        return self.class_B.sum() + self.box_B.sum()

    def sums(self) -> Tensor:
        """(3,) class loss, box loss and the foreground's part of the class loss, detached."""
        return torch.stack([self.class_B.detach().sum(), self.box_B.detach().sum(), self.foreground])

    def finite(self) -> Tensor:
        """(B,) bool: images whose losses are numbers."""
        return torch.isfinite(self.class_B.detach() + self.box_B.detach())


class Criterion(NamedTuple):
    """The two losses with their weights in the total."""

    class_loss: ClassificationLoss
    class_weight: float
    box_loss: BoxRegressionLoss
    box_weight: float


class Divisor(NamedTuple):
    """By what the losses of a micro-batch are divided."""

    normaliser_B: Tensor
    """(B,) float32 > 0. For the paper's rule each entry is the number of positives of the whole effective batch: all
    ranks, all accumulated micro-batches."""
    images: int
    """Images of the whole effective batch."""


def criterion(
    outputs: HeadOutputs,
    assignment: BatchAssignment,
    anchors_A4: Tensor,
    parts: Criterion,
    divisor: Divisor,
    seeds_B: Tensor,
) -> Losses:
    """Sum the class loss over all anchors and the box loss over the positives, each divided as it asks (paper 4.1).

    seeds_B: (B,) int64 on the CPU, for class losses that draw anchors at random.
    """
    image_P, anchor_P = assignment.image_P, assignment.anchor_P
    box_P = parts.box_loss(outputs.deltas_BA4[image_P, anchor_P], assignment.boxes_P4, anchors_A4[anchor_P])
    box_P = box_P * parts.box_weight
    box_B = torch.zeros_like(divisor.normaliser_B).index_add(0, image_P, box_P / divisor.normaliser_B[image_P])

    targets = ClassTargets(
        assignment.labels_BA,
        divisor.normaliser_B,
        divisor.images,
        seeds_B,
        anchors_A4,
        outputs.deltas_BA4.detach(),
        assignment.boxes_P4,
        box_P.detach(),
    )
    loss_BA = parts.class_loss.value(outputs.logits_BAK, targets) * parts.class_weight
    return Losses(loss_BA.sum(dim=1), box_B, loss_BA.detach()[image_P, anchor_P].sum())


class StepPositives(NamedTuple):
    """Positive anchors of one step, counted for every normaliser."""

    ranks_R: Tensor
    """(R,) int64, positives of each rank over all its accumulated micro-batches."""
    running_R: Tensor | None
    """(R,) float32, `move_running`'s means with this step in them; None where no normaliser wants them."""
    rank: int
    images: int
    """Images of the whole effective batch."""


def normaliser(kind: Normaliser, positives_B: Tensor, step: StepPositives) -> Tensor:
    """The (B,) float32 divisors of a micro-batch, at least 1 each; positives_B: (B,) positives of its images.

    The losses of all ranks are summed, so where each rank (Detectron, mmdetection, detectron2) or each image
    (torchvision) divides by positives of its own, and the results are averaged, the divisor holds their number too.
    """
    match kind:
        case "image_positives":
            return positives_B.clamp(min=1).float() * step.images
        case "batch_positives":
            shared = step.ranks_R.sum().clamp(min=1).float()
        case "rank_positives":
            shared = step.ranks_R[step.rank].clamp(min=1).float() * len(step.ranks_R)
        case "running_positives":
            assert step.running_R is not None
            shared = step.running_R[step.rank] * len(step.ranks_R)
    return shared.expand(len(positives_B))


def move_running(running_R: Tensor, positives_R: Tensor) -> Tensor:
    """The running means of each rank's positives after a step with `positives_R` (detectron2's loss_normalizer)."""
    return RUNNING_MOMENTUM * running_R + (1.0 - RUNNING_MOMENTUM) * positives_R.clamp(min=1)


def image_seeds(seed: int, step: int, image_ids: list[int]) -> Tensor:
    """(B,) int64 on the CPU, one for each image, the same on whatever rank or in whatever micro-batch it falls."""
    states = [
        np.random.SeedSequence([seed, step, image_id % 2**64]).generate_state(1, np.uint64)[0] for image_id in image_ids
    ]
    return torch.tensor([int(state >> np.uint64(1)) for state in states], dtype=torch.int64)

"""Raw outputs and an assignment -> named losses. The normaliser is an argument, not computed from the batch.

Legend: B images, A anchors, K head outputs, P positive anchors.
"""

from typing import Literal, NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor

from retinanet.detection.assign import BatchAssignment
from retinanet.losses.box import BoxRegressionLoss
from retinanet.losses.class_weights import weights_of_labels
from retinanet.losses.classification import ClassificationLoss
from retinanet.structures import ClassTargets, HeadOutputs

Normaliser = Literal["batch_positives", "image_positives", "rank_positives", "running_positives"]
RUNNING_START, RUNNING_MOMENTUM = 100.0, 0.9
"""Initial value and momentum of detectron2's running mean of positives."""


class Losses(NamedTuple):
    """Losses of one batch, normalised and weighted; all float32, all but the last with gradient."""

    class_B: Tensor
    """(B,) contribution of each image to the class loss."""
    box_B: Tensor
    """(B,) contribution of each image to the box loss."""
    foreground: Tensor
    """Scalar: the part of class_B.sum() from positive anchors, detached."""

    def total(self) -> Tensor:
        """Scalar to differentiate."""
        return self.class_B.sum() + self.box_B.sum()

    def sums(self) -> Tensor:
        """(3,) class loss, box loss and the foreground part of the class loss, detached."""
        return torch.stack([self.class_B.detach().sum(), self.box_B.detach().sum(), self.foreground])

    def finite(self) -> Tensor:
        """(B,) bool: images whose losses are finite."""
        return torch.isfinite(self.class_B.detach() + self.box_B.detach())


class Criterion(NamedTuple):
    """The two losses with their weights in the total."""

    class_loss: ClassificationLoss
    class_weight: float
    box_loss: BoxRegressionLoss
    box_weight: float
    class_weights_K: tuple[float, ...] | None = None
    """See `class_weights.weights_of_labels`; None: all 1."""


class Divisor(NamedTuple):
    """Divisor of the losses of a micro-batch."""

    normaliser_B: Tensor
    """(B,) float32 > 0. For the paper's rule each entry is the number of positives of the whole effective batch: all
    ranks, all accumulated micro-batches."""
    images: int
    """Number of images in the whole effective batch."""


def criterion(
    outputs: HeadOutputs,
    assignment: BatchAssignment,
    anchors_A4: Tensor,
    parts: Criterion,
    divisor: Divisor,
    seeds_B: Tensor,
) -> Losses:
    """Class loss summed over all anchors, box loss over the positives, both divided by `divisor` (paper section 4.1).

    seeds_B: (B,) int64 on the CPU, for class losses that draw anchors at random.
    """
    image_P, anchor_P = assignment.image_P, assignment.anchor_P
    box_P = parts.box_loss(outputs.deltas_BA4[image_P, anchor_P], assignment.boxes_P4, anchors_A4[anchor_P])
    box_P = box_P * parts.box_weight
    box_B = torch.zeros_like(divisor.normaliser_B).index_add(0, image_P, box_P / divisor.normaliser_B[image_P])

    targets = ClassTargets(
        labels_BA=assignment.labels_BA,
        normaliser_B=divisor.normaliser_B,
        images=divisor.images,
        seeds_B=seeds_B,
        anchors_A4=anchors_A4,
        deltas_BA4=outputs.deltas_BA4.detach(),
        boxes_P4=assignment.boxes_P4,
        box_loss_P=box_P.detach(),
    )
    loss_BA = parts.class_loss.value(outputs.logits_BAK, targets) * parts.class_weight
    if parts.class_weights_K is not None:
        loss_BA = loss_BA * weights_of_labels(assignment.labels_BA, parts.class_weights_K)
    return Losses(loss_BA.sum(dim=1), box_B, loss_BA.detach()[image_P, anchor_P].sum())


class StepPositives(NamedTuple):
    """Positive anchors of one step, as the normalisers need them."""

    ranks_R: Tensor
    """(R,) int64, positives of each rank over all its accumulated micro-batches."""
    running_R: Tensor | None
    """(R,) float32, running means that include this step, see `move_running`; None if the normaliser has none."""
    rank: int
    images: int
    """Number of images in the whole effective batch."""


def normaliser(kind: Normaliser, positives_B: Tensor, step: StepPositives) -> Tensor:
    """(B,) float32 divisors of a micro-batch, each at least 1; positives_B: (B,) positives of its images.

    The losses of all ranks are summed here. Where the original divides by the positives of each rank (Detectron,
    mmdetection, detectron2) or image (torchvision) and then averages, the divisor includes the number of ranks or
    images.
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
        case _:
            assert_never(kind)
    return shared.expand(len(positives_B))


def move_running(running_R: Tensor, positives_R: Tensor) -> Tensor:
    """Running means of each rank's positives after a step with `positives_R` (detectron2's loss_normalizer)."""
    return RUNNING_MOMENTUM * running_R + (1.0 - RUNNING_MOMENTUM) * positives_R.clamp(min=1)


def image_seeds(seed: int, step: int, image_ids: list[int]) -> Tensor:
    """(B,) int64 on the CPU: one seed per image, independent of its rank and micro-batch."""
    states = [
        np.random.SeedSequence([seed, step, image_id % 2**64]).generate_state(1, np.uint64)[0] for image_id in image_ids
    ]
    return torch.tensor([int(state >> np.uint64(1)) for state in states], dtype=torch.int64)

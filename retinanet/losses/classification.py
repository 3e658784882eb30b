"""The ablation's axis: what a classification loss is, and the one place where a kind is chosen.

A new kind is one file with its keys and its function, its line and its case here, and a test.

Legend: B images, A anchors, K classes, O outputs of the class head for an anchor.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Tag
from torch import Tensor

from retinanet.losses.cross_entropy import BalancedCrossEntropy, CrossEntropy, balanced_cross_entropy, cross_entropy
from retinanet.losses.focal import Focal, focal
from retinanet.losses.focal_star import FocalStar, focal_star
from retinanet.losses.fused import DenseLoss, FusedLoss, Margin, OnePass, sigmoid_pass
from retinanet.losses.ghm import Ghm, ghm, harmonised, harmonised_in_one_pass
from retinanet.losses.hard_mining import Ohem, Ohem13, ohem
from retinanet.losses.margins import cross_entropy_margin, focal_margin, focal_star_margin
from retinanet.losses.quality import QualityFocal, Varifocal, quality_focal, varifocal
from retinanet.losses.sampled import Sampled, sampled
from retinanet.losses.scores import SIGMOID, SOFTMAX
from retinanet.losses.softmax import (
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    softmax_cross_entropy,
    softmax_focal,
    softmax_prior_bias,
)
from retinanet.section import ClassLossSection
from retinanet.structures import ClassTargets, Scoring


def kind_of(options: Any) -> str | None:
    """Which kind a `loss.classification` means: focal unless it says another; None for what is no section."""
    if isinstance(options, dict):
        return str(options.get("kind", "focal"))
    return options.kind if isinstance(options, ClassLossSection) else None


ClassLoss = Annotated[
    Annotated[Focal, Tag("focal")]
    | Annotated[CrossEntropy, Tag("cross_entropy")]
    | Annotated[BalancedCrossEntropy, Tag("balanced_cross_entropy")]
    | Annotated[FocalStar, Tag("focal_star")]
    | Annotated[Ohem, Tag("ohem")]
    | Annotated[Ohem13, Tag("ohem_1_3")]
    | Annotated[Sampled, Tag("sampled")]
    | Annotated[Ghm, Tag("ghm")]
    | Annotated[QualityFocal, Tag("quality_focal")]
    | Annotated[Varifocal, Tag("varifocal")]
    | Annotated[SoftmaxCrossEntropy, Tag("softmax_cross_entropy")]
    | Annotated[SoftmaxFocal, Tag("softmax_focal")],
    Discriminator(kind_of),
]
"""Config `loss.classification`: the keys of one kind."""


def sigmoid_prior_bias(prior: float, classes: int) -> list[float]:
    """b with sigmoid(b) = prior for every class: -log((1 - pi) / pi)."""
    return [-math.log((1.0 - prior) / prior)] * classes


class ClassificationLoss(NamedTuple):
    """All that the rest of the project may know of a classification loss."""

    value: Callable[[Tensor, ClassTargets], Tensor]
    """Head outputs (B, A, O) and targets -> (B, A) float32: what each anchor adds to the loss, normalised."""
    prior_bias: Callable[[float, int], list[float]] = sigmoid_prior_bias
    """(pi, K) -> bias of each of the O outputs of an anchor at the start (paper section 4.1); their number is O.

    The first K outputs are the classes' own."""
    scoring: Scoring = SIGMOID


def over_positives(loss: DenseLoss) -> Callable[[Tensor, ClassTargets], Tensor]:
    """A loss of (outputs, labels) over all anchors, divided by the normaliser (paper section 4.1)."""

    def value(logits_BAO: Tensor, targets: ClassTargets) -> Tensor:
        return loss(logits_BAO, targets.labels_BA) / targets.normaliser_B[:, None]

    return value


def build_class_loss(options: ClassLoss, kernels: Literal["auto", "plain"] = "auto") -> ClassificationLoss:
    """The loss that config `loss.classification` describes; `auto` kernels compile dense losses of large batches."""

    def fast(plain: DenseLoss, one_pass: OnePass) -> DenseLoss:
        return FusedLoss(plain, one_pass) if kernels == "auto" else plain

    def dense(plain: DenseLoss, margin: Margin, positive_weight: float, negative_weight: float) -> ClassificationLoss:
        return ClassificationLoss(over_positives(fast(plain, sigmoid_pass(margin, positive_weight, negative_weight))))

    match options:
        case Focal(alpha=alpha, gamma=gamma):
            plain = partial(focal, alpha=alpha, gamma=gamma)
            return dense(plain, partial(focal_margin, gamma=gamma), alpha, 1.0 - alpha)
        case CrossEntropy():
            return dense(cross_entropy, cross_entropy_margin, 1.0, 1.0)
        case BalancedCrossEntropy(alpha=alpha):
            return dense(partial(balanced_cross_entropy, alpha=alpha), cross_entropy_margin, alpha, 1.0 - alpha)
        case FocalStar(gamma=gamma, beta=beta, alpha=alpha):
            plain = partial(focal_star, gamma=gamma, beta=beta, alpha=alpha)
            return dense(plain, partial(focal_star_margin, gamma=gamma, beta=beta), alpha, 1.0 - alpha)
        case Ohem() | Ohem13():
            one_pass = sigmoid_pass(cross_entropy_margin, 1.0, 1.0)
            return ClassificationLoss(partial(ohem, rule=options.rule(), hardness=fast(cross_entropy, one_pass)))
        case Sampled():
            return ClassificationLoss(partial(sampled, rule=options.rule()))
        case Ghm(bins=bins):
            plain = partial(harmonised, bins=bins)
            return ClassificationLoss(partial(ghm, loss=fast(plain, partial(harmonised_in_one_pass, bins=bins))))
        case QualityFocal(beta=beta):
            return ClassificationLoss(partial(quality_focal, beta=beta))
        case Varifocal(alpha=alpha, gamma=gamma):
            return ClassificationLoss(partial(varifocal, alpha=alpha, gamma=gamma))
        case SoftmaxCrossEntropy(alpha=alpha):
            value = over_positives(partial(softmax_cross_entropy, alpha=alpha))
            return ClassificationLoss(value, softmax_prior_bias, SOFTMAX)
        case SoftmaxFocal(alpha=alpha, gamma=gamma):
            value = over_positives(partial(softmax_focal, alpha=alpha, gamma=gamma))
            return ClassificationLoss(value, softmax_prior_bias, SOFTMAX)

"""Wiring of the losses: from config `loss` to the criterion and the functions in it."""

from functools import partial
from pathlib import Path
from typing import Literal, assert_never

from retinanet.config.class_losses import (
    NEGATIVES_PER_POSITIVE,
    AnyClassLossKeys,
    BalancedCrossEntropyKeys,
    BoxLossKeys,
    CrossEntropyKeys,
    FocalKeys,
    FocalStarKeys,
    GhmKeys,
    HardMiningKeys,
    Ohem13Keys,
    OhemKeys,
    OwnLossKeys,
    QualityFocalKeys,
    SampledKeys,
    SoftmaxCrossEntropyKeys,
    SoftmaxFocalKeys,
    VarifocalKeys,
)
from retinanet.config.schema import Config
from retinanet.config.user_code import load_function
from retinanet.detection.scores import SOFTMAX
from retinanet.losses.box import BoxRegressionLoss, ciou, diou, giou, l1, smooth_l1
from retinanet.losses.check_own import check_function
from retinanet.losses.classification import ClassificationLoss, over_positives
from retinanet.losses.criterion import Criterion
from retinanet.losses.cross_entropy import balanced_cross_entropy, cross_entropy
from retinanet.losses.divided import KernelFocal
from retinanet.losses.focal import focal, focal_star
from retinanet.losses.fused import (
    DenseLoss,
    FusedLoss,
    NegativeMargin,
    OnePass,
    cross_entropy_negative_margin,
    focal_negative_margin,
    focal_star_negative_margin,
    sigmoid_pass,
)
from retinanet.losses.ghm import ghm, harmonised, harmonised_in_one_pass
from retinanet.losses.hard_mining import OhemRule, ohem
from retinanet.losses.own import OwnLoss
from retinanet.losses.quality import quality_focal, varifocal
from retinanet.losses.sampled import SampleRule, sampled
from retinanet.losses.softmax import softmax_cross_entropy, softmax_focal, softmax_prior_bias


def build_criterion(config: Config) -> Criterion:
    """Both losses with their weights. ValueError for class weights that have not been resolved to numbers."""
    loss = config.loss
    if isinstance(loss.class_weights, str):
        raise ValueError(f"loss.class_weights is {loss.class_weights}, which depends on the data: resolve it first")
    return Criterion(
        class_loss=build_class_loss(loss.classification, loss.kernels),
        class_weight=loss.classification.weight,
        box_loss=build_box_loss(loss.box),
        box_weight=loss.box.weight,
        class_weights_K=loss.class_weights,
    )


def build_box_loss(config: BoxLossKeys) -> BoxRegressionLoss:
    """The loss of config `loss.box`."""
    match config.kind:
        case "l1":
            return l1
        case "smooth_l1":
            return partial(smooth_l1, beta=config.beta)
        case "giou":
            return giou
        case "diou":
            return diou
        case "ciou":
            return ciou
        case _:
            assert_never(config.kind)


def build_ohem_rule(keys: HardMiningKeys) -> OhemRule:
    """The rule of `ohem` or, with at most three negatives per positive, of `ohem_1_3`."""
    return OhemRule(
        batch=keys.batch,
        nms_iou=keys.nms_iou,
        ranking=keys.ranking,
        nms_scope=keys.nms_scope,
        normaliser=keys.normaliser,
        ignored=keys.ignored,
        negatives_per_positive=NEGATIVES_PER_POSITIVE if isinstance(keys, Ohem13Keys) else None,
    )


def build_sample_rule(keys: SampledKeys) -> SampleRule:
    """The rule of `sampled`."""
    return SampleRule(batch=keys.batch, positive_fraction=keys.positive_fraction, normaliser=keys.normaliser)


def dense_loss(
    fast: bool,
    plain: DenseLoss,
    margin: NegativeMargin,
    positive_weight: float,
    negative_weight: float,
    gamma: float | None = None,
) -> ClassificationLoss:
    """A sigmoid loss over all anchors and outputs, if `fast` compiled for large batches.

    gamma: that of a focal loss, which then has a kernel for GPUs by NVIDIA; None for other losses.
    """
    if not fast:
        return ClassificationLoss(over_positives(plain))
    kernel = KernelFocal(gamma, positive_weight, negative_weight) if gamma is not None else None
    one_pass = sigmoid_pass(margin, positive_weight, negative_weight)
    return ClassificationLoss(over_positives(FusedLoss(plain, one_pass), kernel))


def build_class_loss(options: AnyClassLossKeys, kernels: Literal["auto", "plain"] = "auto") -> ClassificationLoss:
    """The loss of config `loss.classification`; `auto` kernels compile dense losses of large batches."""

    def fast(plain: DenseLoss, one_pass: OnePass) -> DenseLoss:
        return FusedLoss(plain, one_pass) if kernels == "auto" else plain

    dense = partial(dense_loss, kernels == "auto")
    match options:
        case FocalKeys(alpha=alpha, gamma=gamma):
            plain = partial(focal, alpha=alpha, gamma=gamma)
            return dense(plain, partial(focal_negative_margin, gamma=gamma), alpha, 1.0 - alpha, gamma)
        case CrossEntropyKeys():
            return dense(cross_entropy, cross_entropy_negative_margin, 1.0, 1.0, 0.0)
        case BalancedCrossEntropyKeys(alpha=alpha):
            plain = partial(balanced_cross_entropy, alpha=alpha)
            return dense(plain, cross_entropy_negative_margin, alpha, 1.0 - alpha, 0.0)
        case FocalStarKeys(gamma=gamma, beta=beta, alpha=alpha):
            plain = partial(focal_star, gamma=gamma, beta=beta, alpha=alpha)
            return dense(plain, partial(focal_star_negative_margin, gamma=gamma, beta=beta), alpha, 1.0 - alpha)
        case OhemKeys() | Ohem13Keys():
            one_pass = sigmoid_pass(cross_entropy_negative_margin, 1.0, 1.0)
            return ClassificationLoss(
                partial(ohem, rule=build_ohem_rule(options), hardness=fast(cross_entropy, one_pass))
            )
        case SampledKeys():
            return ClassificationLoss(partial(sampled, rule=build_sample_rule(options)))
        case GhmKeys(bins=bins):
            plain = partial(harmonised, bins=bins)
            return ClassificationLoss(partial(ghm, loss=fast(plain, partial(harmonised_in_one_pass, bins=bins))))
        case QualityFocalKeys(beta=beta):
            return ClassificationLoss(partial(quality_focal, beta=beta))
        case VarifocalKeys(alpha=alpha, gamma=gamma):
            return ClassificationLoss(partial(varifocal, alpha=alpha, gamma=gamma))
        case SoftmaxCrossEntropyKeys(alpha=alpha):
            value = over_positives(partial(softmax_cross_entropy, alpha=alpha))
            return ClassificationLoss(value, prior_bias=softmax_prior_bias, scoring=SOFTMAX)
        case SoftmaxFocalKeys(alpha=alpha, gamma=gamma):
            value = over_positives(partial(softmax_focal, alpha=alpha, gamma=gamma))
            return ClassificationLoss(value, prior_bias=softmax_prior_bias, scoring=SOFTMAX)
        case OwnLossKeys():
            return ClassificationLoss(build_own_loss(options))
        case _:
            assert_never(options)


def build_own_loss(keys: OwnLossKeys) -> OwnLoss:
    """The function of the user that `loss.classification` names; its file is not run yet."""
    load = None
    if keys.file is not None and keys.source_sha256 is not None:
        load = partial(load_function, Path(keys.file), keys.kind.partition(":")[2], keys.source_sha256)
    return OwnLoss(keys.kind, load, keys.options())


def check_own_loss(keys: AnyClassLossKeys, classes: int) -> tuple[str, ...]:
    """Run the user's class loss, if it is one, on random anchors; returns notes on what is unusual in it.

    Raises ConfigError that lists all that is wrong.
    """
    if not isinstance(keys, OwnLossKeys):
        return ()
    own, name = build_own_loss(keys), f"loss.classification: {keys.kind} in {keys.file}"
    return tuple(f"{name}: {note}" for note in check_function(name, own.function, classes, own.options).notes)

"""All wiring from config sections to the values and objects that the packages below work with."""

import os
from functools import partial
from typing import Literal, TypeVar, assert_never

import torch
import torch.utils.deterministic
from torch import nn

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
    QualityFocalKeys,
    SampledKeys,
    SoftmaxCrossEntropyKeys,
    SoftmaxFocalKeys,
    VarifocalKeys,
)
from retinanet.config.data_keys import DataKeys
from retinanet.config.model_keys import ModelKeys
from retinanet.config.schema import Config
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.transforms import Augment, PixelRule, ResizeRule
from retinanet.detection.anchors import AnchorSpec
from retinanet.detection.assign import AnyAssignRule, AssignRule
from retinanet.detection.atss import AtssRule
from retinanet.detection.postprocess import DetectRule
from retinanet.detection.scores import SOFTMAX
from retinanet.losses.box import BoxRegressionLoss, ciou, diou, giou, l1, smooth_l1
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
from retinanet.losses.quality import quality_focal, varifocal
from retinanet.losses.sampled import SampleRule, sampled
from retinanet.losses.softmax import softmax_cross_entropy, softmax_focal, softmax_prior_bias
from retinanet.model.backbone import InitialWeights, build_backbone
from retinanet.model.fpn import Fpn
from retinanet.model.heads import Head
from retinanet.model.processor import gains_by_bfloat16, trains_faster_in_nchw
from retinanet.model.retinanet import RetinaNet

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def prepare_torch(config: Config) -> None:
    """Set torch's process-wide state: seed, deterministic kernels, GPU arithmetic and the number of CPU threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not config.deterministic
    # By torch's defaults cuDNN's convolutions of float32 are computed in TF32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)


def build_loss_and_model(
    config: Config, classes: int, weights: InitialWeights | None = None
) -> tuple[ClassificationLoss, RetinaNet]:
    """The class loss and the network with the head that it asks for. weights: see `build_model`."""
    loss = build_class_loss(config.loss.classification)
    biases = loss.prior_bias(config.model.head.prior, classes)
    return loss, build_model(config.model, classes, biases, weights)


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


def build_assign_rule(config: Config) -> AnyAssignRule:
    """The rule of config `assign`."""
    rule = config.assign
    match rule.kind:
        case "iou":
            return AssignRule(
                positive_iou=rule.positive_iou,
                negative_iou=rule.negative_iou,
                low_quality=rule.low_quality,
                low_quality_min_iou=rule.low_quality_min_iou,
                low_quality_takes=rule.low_quality_takes,
                crowd_overlap=rule.crowd_overlap,
            )
        case "atss":
            candidates = rule.atss_cells * build_anchor_spec(config.model).per_cell
            return AtssRule(candidates=candidates, crowd_overlap=rule.crowd_overlap)
        case _:
            assert_never(rule.kind)


def build_resize_rule(config: Config) -> ResizeRule:
    """How images are resized and padded, from config `data`."""
    data = config.data
    return ResizeRule(
        shorter_side=data.shorter_side,
        longer_side=data.longer_side,
        canvas=(data.canvas[0], data.canvas[1]) if data.canvas else None,
        resize=data.resize,
        canvases=data.canvases,
    )


def build_depth_range(data: DataKeys) -> DepthRange | None:
    """The range of config `data.depth_range`."""
    return DepthRange(low=data.depth_range[0], high=data.depth_range[1]) if data.depth_range else None


def build_augment(config: Config) -> Augment:
    """The random augmentation of config `data`."""
    data = config.data
    return Augment(
        scale_jitter=(data.scale_jitter[0], data.scale_jitter[1]),
        color_jitter=data.color_jitter,
        flip=data.flip,
        vertical_flip=data.vertical_flip,
    )


def build_pixel_rule(config: Config) -> PixelRule:
    """The normalisation of config `model.pixels`."""
    pixels = config.model.pixels
    return PixelRule(order=pixels.order, mean=pixels.mean, std=pixels.std)


def choose_channels_last(keys: ModelKeys, device: torch.device) -> ModelKeys:
    """The keys with the memory order for `device` in place of `auto`."""
    if keys.channels_last != "auto":
        return keys
    return keys.model_copy(update={"channels_last": "inference" if trains_faster_in_nchw(device) else True})


def build_channels_last(keys: ModelKeys, device: torch.device, *, training: bool) -> bool:
    """Whether a network on `device` is in NHWC memory order, by config `model.channels_last`."""
    match choose_channels_last(keys, device).channels_last:
        case bool(always):
            return always
        case "inference":
            return not training
        case other:
            raise ValueError(f"model.channels_last is still {other}")


def in_memory_order(network: AnyNetwork, *, channels_last: bool) -> AnyNetwork:
    """The network itself, with its weights in NHWC or NCHW memory order."""
    return network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def build_precision(config: Config, device: torch.device) -> torch.dtype:
    """The autocast type of config `precision` on `device`."""
    match config.precision:
        case "auto":
            return torch.bfloat16 if gains_by_bfloat16(config.model.backbone.name, device) else torch.float32
        case "float32" | "tf32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16
        case _:
            assert_never(config.precision)


def build_detect_rule(config: Config) -> DetectRule:
    """The thresholds of config `eval`."""
    rule = config.eval
    return DetectRule(
        score_threshold=rule.score_threshold,
        topk=rule.topk,
        nms_iou=rule.nms_iou,
        detections=rule.detections,
        class_agnostic=rule.class_agnostic,
        empty_boxes=rule.empty_boxes,
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


def build_class_loss(options: AnyClassLossKeys, kernels: Literal["auto", "plain"] = "auto") -> ClassificationLoss:
    """The loss of config `loss.classification`; `auto` kernels compile dense losses of large batches."""

    def fast(plain: DenseLoss, one_pass: OnePass) -> DenseLoss:
        return FusedLoss(plain, one_pass) if kernels == "auto" else plain

    def dense(
        plain: DenseLoss,
        margin: NegativeMargin,
        positive_weight: float,
        negative_weight: float,
        gamma: float | None = None,
    ) -> ClassificationLoss:
        own = gamma is not None and kernels == "auto"
        kernel = KernelFocal(gamma or 0.0, positive_weight, negative_weight) if own else None
        compiled = fast(plain, sigmoid_pass(margin, positive_weight, negative_weight))
        return ClassificationLoss(over_positives(compiled, kernel))

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
        case _:
            assert_never(options)


def build_model(
    config: ModelKeys, classes: int, class_biases: list[float], weights: InitialWeights | None = None
) -> RetinaNet:
    """Compose the network of config `model`.

    class_biases: what the class loss asks for, one for each output of an anchor. weights: content of config
    `model.backbone.weights`, as `interop.weights_file.read_backbone_weights` reads it; None for a network from scratch
    or one whose weights a checkpoint will replace.
    """
    backbone_config, channels = config.backbone, config.fpn.channels
    per_cell = build_anchor_spec(config).per_cell
    head = config.head
    backbone = build_backbone(
        name=backbone_config.name,
        weights=weights,
        norm=backbone_config.norm,
        frozen_stages=backbone_config.frozen_stages,
        stride_in_1x1=backbone_config.stride_in_1x1,
        fold=backbone_config.fold,
        zero_init_residual=backbone_config.zero_init_residual,
        returns_c2=config.fpn.finest == "p2",
    )
    width = head.channels or channels
    fpn = Fpn(backbone.channels[-3:], channels, config.fpn.p6_source, config.fpn.p7_relu)
    # The box head is drawn first, so that class losses with other outputs share every other initial weight.
    box_head = Head(channels, width, head.depth, head.norm, per_cell, [0.0] * 4, 4)
    class_head = Head(channels, width, head.depth, head.norm, per_cell, class_biases, classes)
    if config.fpn.finest == "p2":
        # Drawn last for the same reason.
        fpn.add_p2(backbone.channels[0])
    return RetinaNet(backbone, fpn, class_head, box_head, frozen=config.frozen)


def build_anchor_spec(config: ModelKeys) -> AnchorSpec:
    """The anchors of config `model.anchors`."""
    anchors = config.anchors
    return AnchorSpec(
        sizes=anchors.sizes,
        scales=anchors.scales,
        aspect_ratios=anchors.aspect_ratios,
        offset=anchors.offset,
        rounding=anchors.rounding,
        spacing=anchors.spacing,
    )

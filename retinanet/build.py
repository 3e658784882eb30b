"""All wiring from config sections to the values and objects that the packages below work with."""

import math
import os
from typing import TypeVar, assert_never

import torch
import torch.utils.deterministic
from torch import nn

from retinanet.build_losses import build_class_loss
from retinanet.config.data_keys import DataKeys
from retinanet.config.model_keys import ModelKeys
from retinanet.config.schema import Config
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.transforms import Augment, PixelRule, ResizeRule
from retinanet.data.views import ViewRule
from retinanet.detection.anchors import AnchorSpec
from retinanet.detection.assign import AnyAssignRule, AssignRule
from retinanet.detection.atss import AtssRule
from retinanet.detection.postprocess import DetectRule
from retinanet.losses.classification import ClassificationLoss
from retinanet.model.backbone import InitialWeights, build_backbone
from retinanet.model.fpn import Fpn
from retinanet.model.heads import Head
from retinanet.model.processor import (
    SLOW_DEPTHWISE,
    computes_bfloat16,
    depthwise_slowdown,
    trains_faster_in_nchw,
)
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
    """How images, or with `data.tile` tiles, are resized and padded, from config `data`."""
    data = config.data
    canvas = (data.canvas[0], data.canvas[1]) if data.canvas else None
    return ResizeRule(
        shorter_side=data.shorter_side,
        longer_side=data.longer_side,
        canvas=canvas if data.tile is None else (data.tile, data.tile),
        resize=data.resize,
        canvases=data.canvases,
        max_factor=math.inf if data.tile is None else 1.0,
    )


def build_view_rule(config: Config) -> ViewRule:
    """Tiles and test-time augmentation, from config `data` and `eval`."""
    data, test = config.data, config.eval
    return ViewRule(tile=data.tile, overlap=data.tile_overlap, flip=test.tta_flip, scales=test.tta_scales)


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


def gains_by_bfloat16(backbone: str, device: torch.device) -> bool:
    """Whether a network of this backbone is computed faster in bfloat16 than in float32 on `device`."""
    if not computes_bfloat16(device):
        return False
    depthwise = backbone == "mobilenet_v2" and device.type == "cpu"
    return not depthwise or depthwise_slowdown(device) < SLOW_DEPTHWISE


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

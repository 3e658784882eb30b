"""Wiring of the network: from config `model`, `precision` and the device to the network and how it computes."""

import os
from typing import TypeVar, assert_never

import torch
import torch.utils.deterministic
from torch import nn

from retinanet.build.losses import build_class_loss
from retinanet.config.model_keys import ModelKeys
from retinanet.config.schema import Config
from retinanet.detection.anchors import AnchorSpec
from retinanet.losses.classification import ClassificationLoss
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

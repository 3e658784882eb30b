"""From config sections to the values and objects that the layers below work with."""

import os

import torch
import torch.utils.deterministic
from torch import nn

from retinanet.assign import AssignRule
from retinanet.config import Config
from retinanet.criterion import Criterion
from retinanet.data.transforms import Augment, PixelRule, Sizing
from retinanet.evaluate import Detector
from retinanet.losses.box import build_box_loss
from retinanet.losses.classification import ClassificationLoss, build_class_loss
from retinanet.model.folding import inference_copy
from retinanet.model.retinanet import RetinaNet, build_anchor_spec, build_model
from retinanet.postprocess import DetectRule


def seed_everything(seed: int, threads: int) -> None:
    """Fix what initial weights are drawn from, ask for deterministic kernels, set the CPU threads (0: leave)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def build_loss_and_model(
    config: Config, classes: int, load_weights: bool = True
) -> tuple[ClassificationLoss, RetinaNet]:
    """The class loss and the network with the head that it asks for."""
    loss = build_class_loss(config.loss.classification)
    biases = loss.prior_bias(config.model.head.prior, classes)
    return loss, build_model(config.model, classes, biases, load_weights)


def build_criterion(config: Config) -> Criterion:
    """Both losses with their weights."""
    loss = config.loss
    return Criterion(
        build_class_loss(loss.classification, loss.kernels),
        loss.classification.weight,
        build_box_loss(loss.box),
        loss.box.weight,
    )


def build_assign_rule(config: Config) -> AssignRule:
    rule = config.assign
    return AssignRule(
        rule.positive_iou,
        rule.negative_iou,
        rule.low_quality,
        rule.low_quality_min_iou,
        rule.low_quality_takes,
        rule.crowd_overlap,
    )


def build_sizing(config: Config) -> Sizing:
    data = config.data
    canvas = (data.canvas[0], data.canvas[1]) if data.canvas else None
    return Sizing(data.shorter_side, data.longer_side, canvas, data.resize, data.canvases)


def build_augment(config: Config) -> Augment:
    data = config.data
    return Augment((data.scale_jitter[0], data.scale_jitter[1]), data.color_jitter, data.flip, data.vertical_flip)


def build_pixel_rule(config: Config) -> PixelRule:
    pixels = config.model.pixels
    return PixelRule(pixels.order, pixels.mean, pixels.std)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` has bfloat16 arithmetic of its own, so that it is not slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def build_precision(config: Config, device: torch.device) -> torch.dtype:
    """The autocast type of config `precision` on `device`."""
    match config.precision:
        case "auto":
            return torch.bfloat16 if computes_bfloat16(device) else torch.float32
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16


def build_detect_rule(config: Config) -> DetectRule:
    rule = config.eval
    return DetectRule(rule.score_threshold, rule.topk, rule.nms_iou, rule.detections)


def build_detector(config: Config, model: nn.Module, device: torch.device) -> Detector:
    """A copy of `model`, made for inference, with the rules of `config`."""
    precision = build_precision(config, device)
    return Detector(
        model=inference_copy(model, precision),
        anchors=build_anchor_spec(config.model),
        scoring=build_class_loss(config.loss.classification).scoring,
        rule=build_detect_rule(config),
        device=device,
        precision=precision,
        channels_last=config.model.channels_last,
        pixels=build_pixel_rule(config),
    )

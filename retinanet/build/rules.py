"""Wiring of the rules: from config sections to what assignment, images and post-processing go by."""

import math
from typing import assert_never

from retinanet.build.network import build_anchor_spec
from retinanet.config.data_keys import DataKeys
from retinanet.config.schema import Config
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.transforms import Augment, PixelRule, ResizeRule
from retinanet.data.views import ViewRule
from retinanet.detection.assign import AnyAssignRule, AssignRule
from retinanet.detection.atss import AtssRule
from retinanet.detection.postprocess import DetectRule


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

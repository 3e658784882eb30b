"""Formats of foreign weights and the config of each: network, preprocessing, losses and inference.

The keys are those of configs/recipes/*.yaml, which also hold the schedules; a test compares the two. Sources:
torchvision models/detection/retinanet.py; detectron2 config/defaults.py and configs/Base-RetinaNet.yaml; mmdetection
configs/_base_/models/retinanet_r50_fpn.py.
"""

from collections.abc import Collection
from typing import Any, Literal, NamedTuple, assert_never

from retinanet.config.schema import Config
from retinanet.interop.layout import Layout
from retinanet.interop.naming import DETECTRON2, MMDETECTION, TORCHVISION, Naming

FormatName = Literal["torchvision_v1", "torchvision_v2", "detectron2", "mmdetection"]


class Format(NamedTuple):
    """How one project stores a RetinaNet."""

    name: FormatName
    naming: Naming
    scales_outermost: bool
    """Order of a cell's anchors: scales outermost (detectron2), or aspect ratios as in this project."""
    rows_are_ids: bool
    """Whether output k of the class head is category id k (torchvision) rather than the k-th class."""


FORMATS = {
    "torchvision_v1": Format(name="torchvision_v1", naming=TORCHVISION, scales_outermost=False, rows_are_ids=True),
    "torchvision_v2": Format(name="torchvision_v2", naming=TORCHVISION, scales_outermost=False, rows_are_ids=True),
    "detectron2": Format(name="detectron2", naming=DETECTRON2, scales_outermost=True, rows_are_ids=False),
    "mmdetection": Format(name="mmdetection", naming=MMDETECTION, scales_outermost=False, rows_are_ids=False),
}


def detect_format(names: Collection[str]) -> FormatName | None:
    """The format of a state dict with these names of tensors; None if it is not a RetinaNet of one of FORMATS."""
    if any(mark in name for name in names for mark in ("bbox_ctrness", "centerness")):
        return None  # FCOS and ATSS have the same class head
    if f"{TORCHVISION.class_predict}.weight" in names:
        norms = ("head.classification_head.conv.0.1.weight", "head.classification_head.conv.1.1.weight")
        return "torchvision_v2" if any(name in names for name in norms) else "torchvision_v1"
    if f"{DETECTRON2.class_predict}.weight" in names:
        return "detectron2"
    return "mmdetection" if f"{MMDETECTION.class_predict}.weight" in names else None


STRIDES_MAY_MOVE = ("resnet50", "resnet101", "resnet152")

CAFFE_PIXELS = {"order": "bgr", "mean": (103.53, 116.28, 123.675), "std": (1.0, 1.0, 1.0)}
"""Of Caffe's ResNets (MSRA) in detectron2 and mmdetection; their strides are in 1x1 convolutions."""


def recipe_keys(name: FormatName) -> dict[str, Any]:
    """Sections of a config that follow from the project alone and differ from the schema's defaults."""
    assign = {"low_quality": True, "crowd_overlap": 1.0}
    data: dict[str, Any] = {"shorter_side": (800,), "longer_side": 1333, "canvases": "tight"}
    match name:
        case "torchvision_v1" | "torchvision_v2":
            second = name == "torchvision_v2"
            return {
                "model": {
                    "backbone": {"norm": "sync_bn" if second else "frozen_bn"},
                    "anchors": {"offset": 0.0, "rounding": "truncate", "spacing": "canvas_over_cells"},
                },
                "assign": assign,
                "loss": {"box": {"kind": "giou" if second else "l1"}, "normaliser": "image_positives"},
                "data": {
                    **data,
                    "shorter_side": tuple(range(480, 801, 32)) if second else (800,),
                    "resize": "float_bilinear",
                },
                "eval": {"batch_size": 1, "detections": 300},
            }
        case "detectron2":
            return {
                "model": {
                    "backbone": {"stride_in_1x1": True},
                    "anchors": {"offset": 0.0},
                    "pixels": CAFFE_PIXELS,
                },
                "assign": assign,
                "loss": {"box": {"kind": "l1"}, "normaliser": "running_positives"},
                "data": {**data, "shorter_side": tuple(range(640, 801, 32))},
                "eval": {"batch_size": 1, "empty_boxes": "drop_last"},
            }
        case "mmdetection":
            return {
                "model": {
                    "backbone": {"norm": "eval_bn"},
                    "fpn": {"p7_relu": False},
                    "anchors": {"offset": 0.0},
                },
                "assign": {**assign, "low_quality_takes": "own_box"},
                "loss": {"box": {"kind": "l1"}, "normaliser": "rank_positives"},
                "data": {**data, "resize": "float_bilinear"},
                "eval": {"batch_size": 1, "empty_boxes": "drop_before_nms"},
            }
        case _:
            assert_never(name)


def build_config(name: FormatName, layout: Layout, pixels: dict[str, Any] | None, caffe: bool | None) -> Config:
    """The config of a foreign network: its project's recipe, completed from its tensors.

    pixels: config `model.pixels` if the file specifies it. caffe: whether the backbone is one of Caffe's (strides in
    its 1x1 convolutions, BGR pixels of standard deviation 1); None if the file does not specify it.
    """
    keys = recipe_keys(name)
    model = keys["model"]
    backbone = {**model["backbone"], "name": layout.backbone, "weights": "none"}
    if caffe is not None:
        backbone["stride_in_1x1"] = caffe
        model["pixels"] = CAFFE_PIXELS if caffe else {}
    if layout.backbone not in STRIDES_MAY_MOVE:
        backbone["stride_in_1x1"] = False
    model["backbone"] = backbone
    model["fpn"] = {**model.get("fpn", {}), "channels": layout.channels, "p6_source": layout.p6_source}
    model["head"] = {
        "depth": layout.shape.depth,
        "channels": layout.head_channels if layout.head_channels != layout.channels else None,
        "norm": "gn" if layout.shape.head_gn else "none",
    }
    if pixels is not None:
        model["pixels"] = pixels
    return Config.model_validate(keys)

"""Which of our networks torchvision's RetinaNet can hold, and how to build that there."""

from typing import Any, Literal

from retinanet.config.load import config_to_dict
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, list_errors
from retinanet.interop.formats import recipe_keys
from retinanet.interop.layout import shape_of
from retinanet.interop.naming import Shape

TorchvisionName = Literal["torchvision_v1", "torchvision_v2"]

FREE = ("backbone.weights", "backbone.norm", "backbone.frozen_stages", "backbone.fold", "head.prior", "channels_last")
"""Keys of config `model` that do not change what given weights compute (a norm must be a BatchNorm)."""


def torchvision_shape(config: Config, name: TorchvisionName) -> Shape:
    """The shape of a network that torchvision can hold. ConfigError lists every key that says it cannot."""
    keys = recipe_keys(name)["model"]
    second = name == "torchvision_v2"
    keys["fpn"] = {"p6_source": "c5" if second else "p5"}
    keys["head"] = {"norm": "gn" if second else "none", "channels": 256}
    wanted = _flat(config_to_dict(Config.model_validate({"model": keys}))["model"])
    ours = _flat(config_to_dict(config)["model"])
    ours["head.channels"] = ours["head.channels"] or ours["fpn.channels"]
    errors = [
        f"model.{key} is {ours[key]!r}, wanted {value!r}"
        for key, value in wanted.items()
        if key not in FREE and ours[key] != value
    ]
    if config.model.backbone.norm == "gn":
        errors.append("model.backbone.norm is 'gn', wanted a batch norm")
    kind = config.loss.classification.kind
    if kind.startswith("softmax"):
        errors.append(f"loss.classification.kind is {kind!r}, whose head has an output for the background")
    if errors:
        raise ConfigError(list_errors(f"this network cannot be written as {name}", errors))
    return shape_of(config.model.backbone.name, config.model.head.depth, second)


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def constructor_call(config: Config, classes: int, name: TorchvisionName) -> str:
    """The Python that builds torchvision's model for these weights, with our inference."""
    function = "retinanet_resnet50_fpn" + ("_v2" if name == "torchvision_v2" else "")
    data, rule = config.data, config.eval
    arguments = {
        "weights": None,
        "weights_backbone": None,
        "num_classes": classes,
        "min_size": data.shorter_side[-1],
        "max_size": data.longer_side,
        "score_thresh": rule.score_threshold,
        "topk_candidates": rule.topk,
        "nms_thresh": rule.nms_iou,
        "detections_per_img": rule.detections,
    }
    return f"{function}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def preprocessing_differences(config: Config) -> list[str]:
    """What torchvision's model will do to images otherwise than this config: detections differ by it."""
    data = config.data
    kinds = {"data.resize": (data.resize, "float_bilinear"), "data.canvases": (data.canvases, "tight")}
    lines = [
        f"{key} is {ours!r}; torchvision's model does {theirs!r}"
        for key, (ours, theirs) in kinds.items()
        if ours != theirs
    ]
    if data.canvas is not None:
        lines.append(f"data.canvas is {data.canvas}; torchvision's model fits images by min_size and max_size")
    return lines

"""Networks that torchvision's RetinaNet can represent, and the call that builds one."""

from typing import Literal

from retinanet.config.flat import flat
from retinanet.config.load import config_to_dict
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, list_errors
from retinanet.interop.formats import recipe_keys
from retinanet.interop.layout import shape_of
from retinanet.interop.naming import Shape

TorchvisionName = Literal["torchvision_v1", "torchvision_v2"]

FREE = (
    *("weights", "frozen", "backbone.weights", "backbone.norm", "backbone.frozen_stages", "backbone.fold"),
    "backbone.zero_init_residual",
    *("head.prior", "channels_last"),
)
"""Keys of config `model` that do not change what given weights compute (the norm must be a BatchNorm)."""


def torchvision_shape(config: Config, name: TorchvisionName) -> Shape:
    """The shape of a network that torchvision can represent.

    Raises ConfigError that lists every key with a value that it cannot represent.
    """
    keys = recipe_keys(name)["model"]
    second = name == "torchvision_v2"
    keys["fpn"] = {"p6_source": "c5" if second else "p5"}
    keys["head"] = {"norm": "gn" if second else "none", "channels": 256}
    wanted = flat(config_to_dict(Config.model_validate({"model": keys}))["model"])
    own = flat(config_to_dict(config)["model"])
    own["head.channels"] = own["head.channels"] or own["fpn.channels"]
    errors = [
        f"model.{key} is {own[key]!r}, wanted {value!r}"
        for key, value in wanted.items()
        if key not in FREE and own[key] != value
    ]
    if config.model.backbone.norm == "gn":
        errors.append("model.backbone.norm is 'gn', wanted a batch norm")
    kind = config.loss.classification.kind
    if kind.startswith("softmax"):
        errors.append(f"loss.classification.kind is {kind!r}, whose head has an output for the background")
    if errors:
        raise ConfigError(list_errors(f"this network cannot be written as {name}", errors))
    return shape_of(config.model.backbone.name, config.model.head.depth, second)


def constructor_call(config: Config, classes: int, name: TorchvisionName) -> str:
    """The Python call that builds torchvision's model for these weights, with this config's inference settings."""
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
    """Differences between torchvision's model and this config before and after the network: they change detections."""
    data = config.data
    kinds = {
        "data.resize": (data.resize, "float_bilinear"),
        "data.canvases": (data.canvases, "tight"),
        "eval.class_agnostic": (config.eval.class_agnostic, False),
    }
    lines = [
        f"{key} is {own!r}; torchvision's model works as with {expected!r}"
        for key, (own, expected) in kinds.items()
        if own != expected
    ]
    if data.canvas is not None:
        lines.append(f"data.canvas is {data.canvas}; torchvision's model resizes images by min_size and max_size")
    return lines

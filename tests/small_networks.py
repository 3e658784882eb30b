"""Backbones of a few layers, for tests in which the layers are not the point: half of a short run's time is in them."""

from typing import Any

from torch import nn

from retinanet.model.backbone import Backbone, NormKind, build_backbone, group_norm


def small_backbone(
    *, norm: NormKind = "gn", frozen_stages: int = 0, returns_c2: bool = False, **_of_layers: object
) -> Backbone:
    """Five convolutions in place of whatever `build_backbone` would build."""
    stages: list[nn.Module] = []
    channels = 3
    for width in (8, 8, 8, 16, 16):
        layer = nn.BatchNorm2d(width) if norm == "bn" else group_norm(width)
        stages.append(nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), layer, nn.ReLU()))
        channels = width
    return Backbone(stages, (8, 8, 16, 16) if returns_c2 else (8, 16, 16), frozen_stages=frozen_stages)


def small_if_tiny(**keywords: Any) -> Backbone:
    """`small_backbone` where the config names the backbone of conftest.TINY_YAML, MobileNetV2 of random weights."""
    is_tiny = keywords["name"] == "mobilenet_v2" and keywords["norm"] in ("gn", "bn") and keywords["weights"] is None
    return (small_backbone if is_tiny else build_backbone)(**keywords)

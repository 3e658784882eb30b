"""The whole network: images in, raw class and box outputs out (paper Figure 3)."""

import torch
from torch import Tensor, nn

from retinanet.anchors import AnchorSpec
from retinanet.config import Model
from retinanet.model.backbone import Backbone, build_backbone
from retinanet.model.fpn import Fpn
from retinanet.model.heads import Head
from retinanet.structures import HeadOutputs


class RetinaNet(nn.Module):
    """Backbone, pyramid and two heads. It knows nothing of anchors' boxes, losses or scores."""

    def __init__(self, backbone: Backbone, fpn: Fpn, class_head: Head, box_head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn
        self.class_head = class_head
        self.box_head = box_head

    def forward(self, images: Tensor) -> HeadOutputs:
        """(B, 3, H, W) normalised float images of one canvas -> raw outputs, in training and evaluation alike."""
        levels = self.fpn(self.backbone(images))
        return HeadOutputs(self.class_head(levels), self.box_head(levels))


def build_anchor_spec(config: Model) -> AnchorSpec:
    """The anchors that config `model.anchors` describes."""
    anchors = config.anchors
    return AnchorSpec(
        anchors.sizes, anchors.scales, anchors.aspect_ratios, anchors.offset, anchors.rounding, anchors.spacing
    )


def build_model(config: Model, classes: int, class_biases: list[float], load_weights: bool = True) -> RetinaNet:
    """Compose the network of config `model`.

    class_biases are what the class loss asks for, one for each output of an anchor. With load_weights False the
    backbone's weights are not fetched (a checkpoint will be loaded).
    """
    backbone_config, channels = config.backbone, config.fpn.channels
    per_cell = build_anchor_spec(config).per_cell
    head = config.head
    backbone = build_backbone(
        backbone_config.name,
        backbone_config.weights if load_weights else "none",
        backbone_config.norm,
        backbone_config.frozen_stages,
        backbone_config.stride_in_1x1,
        backbone_config.fold,
    )
    width = head.channels or channels
    fpn = Fpn(backbone.channels, channels, config.fpn.p6_source, config.fpn.p7_relu)
    # The box head is drawn first: class losses that ask for other outputs share every other initial weight.
    box_head = Head(channels, width, head.depth, head.norm, per_cell, [0.0] * 4, 4)
    class_head = Head(channels, width, head.depth, head.norm, per_cell, class_biases, classes)
    model = RetinaNet(backbone, fpn, class_head, box_head)
    return model.to(memory_format=torch.channels_last) if config.channels_last else model

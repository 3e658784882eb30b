"""Infer a network's architecture from the names and shapes of its tensors. Pure."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retinanet.errors import CheckpointError, ConfigError
from retinanet.interop.naming import Naming, Shape, block_name, tower_names

RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
RESNEXTS = {
    ("resnet50", 128, 4): "resnext50_32x4d",
    ("resnet101", 256, 8): "resnext101_32x8d",
    ("resnet101", 256, 4): "resnext101_64x4d",
}
"""By depth, channels of C2's 3x3 convolutions and channels of each of their groups."""

MOST_IN_A_ROW = 64
"""Upper bound of the blocks of a stage and of the convolutions of a subnet."""


class Layout(NamedTuple):
    """The architecture that a state dict describes."""

    shape: Shape
    backbone: str
    """Config `model.backbone.name`."""
    channels: int
    """Of the pyramid."""
    head_channels: int
    p6_source: Literal["c5", "p5"]
    anchors: int
    """Per cell."""
    outputs: int
    """Of the class head per anchor."""


def shape_of(backbone: str, depth: int, head_gn: bool) -> Shape:
    """The shape of a network with a ResNet or ResNeXt; `backbone` as config `model.backbone.name`."""
    plain = next((net for (net, _, _), name in RESNEXTS.items() if name == backbone), backbone)
    for (blocks, bottleneck), name in RESNETS.items():
        if name == plain:
            return Shape(blocks=blocks, bottleneck=bottleneck, depth=depth, head_gn=head_gn)
    raise ConfigError(f"model.backbone.name is {backbone!r}: other projects' files hold ResNets and ResNeXts only.")


def infer(state: dict[str, Tensor], naming: Naming, source: str) -> Layout:
    """The layout of `state`.

    Raises CheckpointError if its names are not those of `naming` or its backbone is not supported.
    """
    needed = (naming.class_predict, naming.box_predict, naming.lateral.format(level=0, p=3), naming.p6)
    lacking = [f"{module}.weight" for module in needed if f"{module}.weight" not in state]
    if lacking or f"{naming.stem}.weight" not in state:
        raise CheckpointError(
            f"{source}: not a RetinaNet of this format: no {', no '.join(lacking or [naming.stem + '.weight'])}. "
            f"It holds {len(state)} tensors: {', '.join(list(state)[:3])}, ... Is the format right?"
        )
    class_weight, box_weight, lateral, p6 = (state[f"{module}.weight"] for module in needed)
    channels = lateral.shape[0]
    anchors, remainder = divmod(box_weight.shape[0], 4)
    if remainder or not anchors or class_weight.shape[0] % anchors:
        raise CheckpointError(
            f"{source}: {class_weight.shape[0]} outputs of {naming.class_predict} and {box_weight.shape[0]} of "
            f"{naming.box_predict} do not belong to the same number of anchors."
        )
    shape = _shape(state, naming)
    return Layout(
        shape=shape,
        backbone=_backbone(state, naming, shape, source),
        channels=channels,
        head_channels=box_weight.shape[1],
        p6_source="p5" if p6.shape[1] == channels else "c5",
        anchors=anchors,
        outputs=class_weight.shape[0] // anchors,
    )


def _shape(state: dict[str, Tensor], naming: Naming) -> Shape:
    def block_is_there(stage: int, block: int) -> bool:
        return any(f"{block_name(naming, stage, block)}.{naming.conv.format(n=n)}.weight" in state for n in (1, 2))

    counts = [_count(partial(block_is_there, stage)) for stage in (1, 2, 3, 4)]
    third = [f"{block_name(naming, stage, 0)}.{naming.conv.format(n=3)}.weight" in state for stage in (1, 2, 3, 4)]
    norm = tower_names(naming.class_conv, naming.class_norm, 0, head_gn=True)[1]
    head_gn = f"{norm}.weight" in state or f"{norm}.bias" in state
    subnets = ((naming.class_conv, naming.class_norm), (naming.box_conv, naming.box_norm))

    def convolution_is_there(index: int) -> bool:
        return any(tower_names(conv, norm, index, head_gn)[0] + ".weight" in state for conv, norm in subnets)

    return Shape(
        blocks=(counts[0], counts[1], counts[2], counts[3]),
        bottleneck=any(third),
        depth=_count(convolution_is_there),
        head_gn=head_gn,
    )


def _count(is_there: Callable[[int], bool]) -> int:
    """The length of a row some of whose members may be missing: one more than the index of the last one present."""
    return max((index + 1 for index in range(MOST_IN_A_ROW) if is_there(index)), default=0)


def _backbone(state: dict[str, Tensor], naming: Naming, shape: Shape, source: str) -> str:
    name = RESNETS.get((shape.blocks, shape.bottleneck))
    kind = "bottleneck" if shape.bottleneck else "basic"
    described = f"{'-'.join(map(str, shape.blocks))} {kind} blocks"
    if name is not None and shape.bottleneck:
        grouped = state.get(f"{block_name(naming, 1, 0)}.{naming.conv.format(n=2)}.weight")
        if grouped is not None and grouped.dim() == 4 and tuple(grouped.shape[:2]) != (64, 64):
            width, group = grouped.shape[:2]
            name, described = RESNEXTS.get((name, width, group)), f"{described} of {width} channels in {group}s"
    if name is None:
        raise CheckpointError(
            f"{source}: its backbone of {described} is not supported; supported are "
            f"{', '.join([*RESNETS.values(), *RESNEXTS.values()])}."
        )
    return name


def order_from_scale_major(ratios: int, scales: int) -> list[int]:
    """Index of each of this project's anchors within a cell that counts scales outermost (detectron2).

    This project counts aspect ratios outermost and scales innermost, as torchvision and mmdetection do.
    """
    return torch.arange(scales * ratios).view(scales, ratios).T.flatten().tolist()


def reorder_anchors(channels: Tensor, order: list[int]) -> Tensor:
    """(C * O, ...) weights or biases with anchor c taken from anchor order[c]."""
    return channels.reshape(len(order), -1, *channels.shape[1:])[order].flatten(0, 1)


def select_outputs(channels: Tensor, anchors: int, rows: list[int]) -> Tensor:
    """(C * O, ...) weights or biases with only the outputs `rows` of every anchor, in that order."""
    return channels.reshape(anchors, -1, *channels.shape[1:])[:, rows].flatten(0, 1)

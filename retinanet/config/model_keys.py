"""Config keys of `model`: the network, its anchors, its input pixels and the weights that it starts from."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from retinanet.config.fields import Count, Fraction, Natural, Positive, Section


class BackboneKeys(Section):
    """The feature extractor."""

    name: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "mobilenet_v2",
    ] = Field("resnet50", description="Feature extractor, torchvision's definition.")  # fmt: skip
    weights: str = Field(
        "imagenet",
        description="`imagenet` (torchvision's download), `none`, or a file (.pth, .pt, .pkl, .safetensors).",
    )
    norm: Literal["frozen_bn", "eval_bn", "bn", "sync_bn", "gn"] = Field(
        "frozen_bn",
        description="Normalisation of the backbone. `eval_bn`: statistics fixed, scale and shift train (mmdetection); "
        "`sync_bn`: statistics over all ranks.",
    )
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = Field(
        2, description="Leading stages kept fixed: 0 none, 1 the stem, 2 the stem and C2, ... 5 everything."
    )
    stride_in_1x1: bool = Field(
        False, description="Bottlenecks stride in their first 1x1 convolution (Caffe's ResNets: Detectron, detectron2)."
    )
    zero_init_residual: bool = Field(
        True,
        description="A ResNet from scratch starts with residual branches at zero (arXiv 1706.02677): steadier in long "
        "trainings, slower in the first few hundred steps.",
    )
    fold: bool = Field(
        True,
        description="Fold frozen batch norms into the convolutions before them (faster); equal up to rounding.",
    )

    @model_validator(mode="after")
    def _has_bottlenecks(self) -> "BackboneKeys":
        if self.stride_in_1x1 and self.name not in ("resnet50", "resnet101", "resnet152"):
            raise ValueError("stride_in_1x1 is for resnet50, resnet101 and resnet152")
        return self


LEVELS = {"p3": 5, "p2": 6}
"""Levels of a pyramid by config `model.fpn.finest`."""


class FpnKeys(Section):
    """The feature pyramid, P3 to P7 or P2 to P7."""

    finest: Literal["p3", "p2"] = Field(
        "p3",
        description="Finest level: P3 (paper), or P2 of stride 4 for small objects, which has four times as many "
        "anchors; then anchors.sizes has six values.",
    )
    channels: Count = Field(256, description="Channels of every level.")
    p6_source: Literal["c5", "p5"] = Field("c5", description="Input of P6's stride-2 convolution.")
    p7_relu: bool = Field(True, description="ReLU between P6 and P7's convolution (mmdetection: without).")


class HeadKeys(Section):
    """The class and the box subnet."""

    depth: Natural = Field(4, description="3x3 convolutions before the output convolution of each subnet.")
    channels: Count | None = Field(None, description="Channels of the subnets; null takes fpn.channels.")
    norm: Literal["none", "gn"] = Field(
        "none", description="After each convolution of the subnets; `gn`: those have no bias."
    )
    prior: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="pi: the score every class starts with (paper section 4.1)."
    )


class AnchorKeys(Section):
    """Anchor boxes of every cell."""

    sizes: Annotated[tuple[Positive, ...], Field(min_length=5, max_length=6)] = Field(
        (32.0, 64.0, 128.0, 256.0, 512.0),
        description="Square root of the base area on each level, finest first, pixels.",
    )
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (1.0, 1.2599210498948732, 1.5874010519681994),
        description="Multipliers of the size at each cell: 2^(0, 1/3, 2/3).",
    )
    aspect_ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (0.5, 1.0, 2.0), description="Height over width."
    )
    offset: Fraction = Field(
        0.5, description="Where in its cell an anchor is centred, in strides: 0 corner, 0.5 middle."
    )
    rounding: Literal["none", "half_even", "truncate", "stride_box"] = Field(
        "none",
        description="`half_even`: of half extents; `truncate`: of sizes before that too (torchvision); `stride_box`: "
        "sides of each aspect ratio at the stride's own size (Detectron).",
    )
    spacing: Literal["stride", "canvas_over_cells"] = Field(
        "stride",
        description="Pixels between neighbours: the level's stride, or whole pixels of canvas / cells (torchvision).",
    )


class PixelKeys(Section):
    """What the network's input pixels are."""

    order: Literal["rgb", "bgr"] = Field("rgb", description="Order of the channels that the network sees.")
    mean: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)] = Field(
        (123.675, 116.28, 103.53), description="Subtracted from pixels in 0..255, in that order (ImageNet's mean)."
    )
    std: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3)] = Field(
        (58.395, 57.12, 57.375), description="Divides what is left (ImageNet's deviation; Caffe's networks: 1)."
    )


Part = Literal["backbone", "fpn", "class_head", "box_head"]
"""The parts of the network that can be frozen."""


class ModelKeys(Section):
    """The network, its anchors and its input."""

    weights: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Trained detector to start from, which brings the other keys of `model`: a file (this project's, "
        "torchvision's, detectron2's or mmdetection's), `torchvision_v1_coco` or `torchvision_v2_coco`; null starts "
        "from backbone.weights.",
    )
    frozen: tuple[Part, ...] = Field(
        (),
        description="Parts that do not train, nor do their batch norms' statistics; see also backbone.frozen_stages.",
    )
    backbone: BackboneKeys = Field(default_factory=BackboneKeys)
    fpn: FpnKeys = Field(default_factory=FpnKeys)
    head: HeadKeys = Field(default_factory=HeadKeys)
    anchors: AnchorKeys = Field(default_factory=AnchorKeys)
    pixels: PixelKeys = Field(default_factory=PixelKeys)
    channels_last: bool | Literal["inference", "auto"] = Field(
        "auto",
        description="Keep activations and weights in NHWC memory order: always, never, or at inference only; equal up "
        "to rounding. `auto`: always, but on an x86 CPU without AVX512 at inference only; a run keeps its choice.",
    )

    @model_validator(mode="after")
    def _a_size_for_each_level(self) -> "ModelKeys":
        sizes, levels = self.anchors.sizes, LEVELS[self.fpn.finest]
        if len(sizes) != levels:
            wanted = (sizes[0] / 2, *sizes) if len(sizes) < levels else sizes[1:]
            raise ValueError(
                f"anchors.sizes has {len(sizes)} values, and the pyramid has {levels} levels (fpn.finest is "
                f"{self.fpn.finest}): give one for each, such as [{', '.join(f'{size:g}' for size in wanted)}]"
            )
        return self

    @model_validator(mode="after")
    def _something_trains(self) -> "ModelKeys":
        if {"backbone", "fpn", "class_head", "box_head"} <= set(self.frozen):
            raise ValueError("frozen names every part, so nothing would train: leave out at least class_head")
        untrained = [part for part in self.frozen if part != "backbone"]
        if untrained and self.weights is None:
            raise ValueError(
                f"frozen: {', '.join(untrained)} would keep random weights, because model.weights is null: give the "
                "detector to start from"
            )
        return self


def complete_model(given: ModelKeys, detector: ModelKeys) -> ModelKeys:
    """`given` with the keys that are not set in it taken from a detector's own section; all keys are set.

    Raises pydantic's ValidationError for keys that contradict each other.
    """
    return ModelKeys.model_validate(_over(detector.model_dump(), given.model_dump(exclude_unset=True)))


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    sections = {key: _over(below[key], value) for key, value in above.items() if isinstance(value, dict)}
    return below | above | sections

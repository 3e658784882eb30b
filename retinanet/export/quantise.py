"""Quantise an ONNX file to 8-bit integers, calibrated on images (onnxruntime's static quantisation).

Activations are unsigned 8-bit integers and weights signed 7-bit ones. An x86-64 processor with AVX2 or AVX512 but no
VNNI adds two products of an activation and a weight in 16 bits, with saturation (VPMADDUBSW): 2 * 255 * 127 does not
fit, 2 * 255 * 64 does. With 7 bits every processor gives the same results, at the same speed; see `reduce_range` in
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from retinanet.build.rules import build_depth_range
from retinanet.data.loose_images import one_image
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.transforms import ResizeRule
from retinanet.export.info import INPUTS, ExportInfo, need
from retinanet.export.writers import quiet, save_checked
from retinanet.files import replacing

QUANTISED = ("Conv", "Relu", "MaxPool", "Add")
"""Together they keep a residual block in integers from end to end; with convolutions alone the file is half as fast."""


def calibration_sample(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spaced."""
    step = max(len(paths) / count, 1.0)
    return [paths[int(index * step)] for index in range(min(count, len(paths)))]


def calibration_inputs(
    paths: Sequence[Path], resize_rule: ResizeRule, depth_range: DepthRange | None, pixels: Any
) -> Iterator[dict[str, Any]]:
    """Each image as the file's inputs. Raises DataError for one that cannot be read."""
    for index, path in enumerate(paths):
        _, batch = one_image(path, index, resize_rule, depth_range)
        values: tuple[Tensor, Tensor] = (batch.images.to(pixels), batch.sizes_B2)
        yield {name: value.numpy() for name, value in zip(INPUTS, values, strict=True)}


def float_nodes(model: Any) -> list[str]:
    """Nodes of QUANTISED types that stay in float: the heads' last convolutions, and additions outside the backbone.

    Scores and box deltas are computed directly from the last convolutions; quantising these makes the largest error of
    a score three to four times as large. The other additions are of anchors and coordinates.
    """
    kept = []
    for node in model.graph.node:
        origin = next((entry.value for entry in node.metadata_props if entry.key == "namespace"), "")
        last = node.op_type == "Conv" and "_head.predict." in node.input[1]
        if last or (node.op_type == "Add" and "network.backbone" not in origin):
            kept.append(node.name)
    return kept


class CalibrationReader:
    """onnxruntime's CalibrationDataReader over an iterator."""

    def __init__(self, inputs: Iterator[dict[str, Any]]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict[str, Any] | None:
        """The next image's inputs; None after the last."""
        return next(self.inputs, None)


def write_int8(path: Path, source: Path, paths: Sequence[Path], resize_rule: ResizeRule, info: ExportInfo) -> None:
    """Quantise the float ONNX file `source`: weights per channel, activations per tensor by their ranges on `paths`."""
    need("onnx", "onnxruntime")
    import onnx
    import torch
    from onnxruntime import quantization

    pixels = torch.uint8 if info.pixels == "uint8" else torch.float32
    inputs = calibration_inputs(paths, resize_rule, build_depth_range(info.config.data), pixels)
    model = onnx.load(source)
    with replacing(path) as part, quiet():
        quantization.quantize_static(
            model,
            part,
            CalibrationReader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=float_nodes(model),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        save_checked(part, onnx.load(part), info)

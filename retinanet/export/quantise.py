"""An ONNX file in 8-bit integers, calibrated on images (onnxruntime's static quantisation)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from retinanet.data.loose_images import one_image
from retinanet.data.transforms import ResizeRule
from retinanet.export.info import INPUTS, ExportInfo, need
from retinanet.export.writers import quiet, write_checked

QUANTISED = ("Conv", "Relu", "MaxPool", "Add")
"""Together they keep a residual block in integers from end to end; convolutions alone are half as fast."""


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spread."""
    step = max(len(paths) / count, 1.0)
    return [paths[int(index * step)] for index in range(min(count, len(paths)))]


def calibration_inputs(paths: Sequence[Path], resize_rule: ResizeRule, pixels: Any) -> Iterator[dict[str, Any]]:
    """Each image as the file's inputs. DataError for one that cannot be read."""
    for index, path in enumerate(paths):
        _, batch = one_image(path, index, resize_rule)
        values: tuple[Tensor, Tensor] = (batch.images.to(pixels), batch.sizes_B2)
        yield {name: value.numpy() for name, value in zip(INPUTS, values, strict=True)}


def float_nodes(model: Any) -> list[str]:
    """Nodes of QUANTISED kinds that stay in float: the heads' last convolutions, and sums outside the backbone.

    Scores and box deltas come straight out of the last convolutions: with them in 8 bits the largest error of a score
    is three to four times as large. The other sums are of anchors and coordinates.
    """
    kept = []
    for node in model.graph.node:
        origin = next((entry.value for entry in node.metadata_props if entry.key == "namespace"), "")
        last = node.op_type == "Conv" and "_head.predict." in node.input[1]
        if last or (node.op_type == "Add" and "network.backbone" not in origin):
            kept.append(node.name)
    return kept


def write_int8(path: Path, source: Path, paths: Sequence[Path], resize_rule: ResizeRule, info: ExportInfo) -> None:
    """The float ONNX file `source` in 8 bits: weights by channel, activations by tensor, ranges seen on `paths`."""
    need("onnx", "onnxruntime")
    import onnx
    import torch
    from onnxruntime import quantization

    pixels = torch.uint8 if info.pixels == "uint8" else torch.float32
    inputs = calibration_inputs(paths, resize_rule, pixels)

    class Reader(quantization.CalibrationDataReader):
        """What onnxruntime asks for the next image."""

        def get_next(self) -> dict[str, Any] | None:
            return next(inputs, None)

    model = onnx.load(source)
    partial = path.with_suffix(".partial.onnx")
    with quiet():
        quantization.quantize_static(
            model,
            partial,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=float_nodes(model),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    quantised = onnx.load(partial)
    partial.unlink()
    write_checked(path, quantised, info)

"""Non-maximum suppression as one operator of fixed output shape, which torch.export can trace and ONNX can hold.

Legend: B images, K classes, N candidates of an image.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms


def survivors(boxes_BN4: Tensor, scores_BKN: Tensor, iou: float) -> Tensor:
    """(B, N) float32: 1 for each candidate that no better one of its class and image overlaps by more than `iou`.

    scores_BKN: a candidate's score at its class, below 0 at all others and where there is no candidate.
    """
    survived: Tensor = suppression_operator()(boxes_BN4, scores_BKN, iou)
    return survived


@lru_cache(maxsize=1)
def suppression_operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    """The operator retinanet::survivors, made known to torch at its first use."""

    def suppress(boxes_BN4: Tensor, scores_BKN: Tensor, iou: float) -> Tensor:
        survived_BN = torch.zeros_like(boxes_BN4[..., 0])
        for image, (boxes_N4, scores_KN) in enumerate(zip(boxes_BN4, scores_BKN, strict=True)):
            for scores_N in scores_KN:
                own = (scores_N >= 0).nonzero().squeeze(1)
                survived_BN[image, own[nms(boxes_N4[own], scores_N[own], iou)]] = 1.0
        return survived_BN

    operator = torch.library.custom_op("retinanet::survivors", suppress, mutates_args=())
    operator.register_fake(lambda boxes_BN4, scores_BKN, iou: torch.zeros_like(boxes_BN4[..., 0]))
    return operator


def onnx_translation() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How torch.onnx writes the operator: NonMaxSuppression, and its list of indices as a mask."""
    from onnxscript import opset18

    op: Any = opset18
    suppression_operator()

    def suppress(boxes: Any, scores: Any, iou: float) -> Any:
        everything = op.Constant(value_int=2**31 - 1)
        found_M3 = op.NonMaxSuppression(
            boxes, scores, everything, op.Constant(value_float=iou), op.Constant(value_float=-0.5)
        )
        image_and_place_M2 = op.Gather(found_M3, op.Constant(value_ints=[0, 2]), axis=1)
        shape = op.Slice(op.Shape(boxes), op.Constant(value_ints=[0]), op.Constant(value_ints=[2]))
        nothing = op.Expand(op.Constant(value_float=0.0), shape)
        ones = op.Expand(op.Constant(value_float=1.0), op.Slice(op.Shape(found_M3), [0], [1]))
        return op.ScatterND(nothing, image_and_place_M2, ones)

    return {torch.ops.retinanet.survivors.default: suppress}

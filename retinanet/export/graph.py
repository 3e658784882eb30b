"""The network as one graph from pixels to boxes and scores, or to detections, for any batch and canvas.

Legend: B images, A anchors, K classes, L levels, N = L * topk candidates per image, D detections per image.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from retinanet.data.transforms import normalise
from retinanet.detection import boxes
from retinanet.detection.anchors import AnchorSpec, canvas_anchors
from retinanet.detection.postprocess import DetectRule
from retinanet.evaluation.detector import Detector

EXAMPLE_CANVAS = (256, 320)
"""Height and width used for tracing: sides that differ, and more than one cell on every level."""

LEAST_TRACED_SIDE = 129
"""torch.export specialises on a P7 of one row or column, which a graph for any canvas cannot."""

EMPTY = -1.0
"""Score of an empty slot: below every threshold."""


class RawGraph(nn.Module):
    """Boxes and scores of every anchor."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.network = detector.model
        self.anchors = detector.anchors
        self.scores = detector.scoring.scores
        self.pixels = detector.pixels

    def forward(self, images: Tensor, sizes_B2: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) RGB and sizes -> (B, A, 4) xyxy in canvas pixels and (B, A, K) scores, both float32."""
        outputs = self.network(normalise(images, sizes_B2, self.pixels, channels_last=False))
        anchors_A4 = canvas_anchors((images.shape[2], images.shape[3]), self.anchors).boxes_A4
        return boxes.decode(outputs.deltas_BA4.float(), anchors_A4), self.scores(outputs.logits_BAK)


class NmsGraph(nn.Module):
    """Detections as of `postprocess.detect`, in canvas pixels and padded to a fixed number per image."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.raw = RawGraph(detector)
        self.rule = detector.rule

    def forward(self, images: Tensor, sizes_B2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, H, W) RGB and sizes -> boxes (B, D, 4), scores (B, D), classes (B, D) and counts (B,)."""
        boxes_BA4, scores_BAK = self.raw(images, sizes_B2)
        levels = level_sizes((images.shape[2], images.shape[3]), self.raw.anchors)
        score_BN, anchor_BN, class_BN = dense_candidates(scores_BAK, levels, self.rule)
        corners_BN4 = boxes_BA4.gather(1, anchor_BN[:, :, None].expand(-1, -1, 4))
        limits_B14 = sizes_B2.flip(1).repeat(1, 2)[:, None].to(corners_BN4)
        clipped_BN4 = torch.minimum(corners_BN4.clamp(min=0), limits_B14)
        has_area_BN = (clipped_BN4[..., 2:] > clipped_BN4[..., :2]).all(dim=2)
        if self.rule.empty_boxes == "drop_before_nms":
            score_BN = torch.where(has_area_BN, score_BN, EMPTY)
        score_BKN = score_BN[:, None]
        if not self.rule.class_agnostic:
            classes = torch.arange(scores_BAK.shape[2], device=images.device)
            score_BKN = torch.where(class_BN[:, None] == classes[None, :, None], score_BKN, EMPTY)
        kept_BN = torch.where(survivors(clipped_BN4, score_BKN, self.rule.nms_iou) > 0, score_BN, EMPTY)
        score_BD, order_BD = kept_BN.topk(min(self.rule.detections, kept_BN.shape[1]))
        if self.rule.empty_boxes == "drop_last":
            score_BD = torch.where(has_area_BN.gather(1, order_BD), score_BD, EMPTY)
            score_BD, place_BD = score_BD.topk(score_BD.shape[1])
            order_BD = order_BD.gather(1, place_BD)
        found_BD = score_BD > EMPTY
        corners_BD4 = clipped_BN4.gather(1, order_BD[:, :, None].expand(-1, -1, 4))
        return (
            torch.where(found_BD[:, :, None], corners_BD4, 0.0),
            torch.where(found_BD, score_BD, 0.0),
            torch.where(found_BD, class_BN.gather(1, order_BD), -1),
            found_BD.sum(1),
        )


def level_sizes(canvas: tuple[int, int], spec: AnchorSpec) -> tuple[int, ...]:
    """Anchors on each level of a canvas, whose sides may be symbolic."""
    return canvas_anchors(canvas, spec).level_sizes


def dense_candidates(scores_BAK: Tensor, levels: tuple[int, ...], rule: DetectRule) -> tuple[Tensor, Tensor, Tensor]:
    """`postprocess.best_candidates` of each image, `topk` slots per level: scores, anchors and classes, each (B, N).

    Empty slots have the score EMPTY, and anchor and class 0.
    """
    scores, anchors, classes = [], [], []
    start = 0
    for level_BAK in torch.split(scores_BAK, list(levels), dim=1):
        score, pair = F.pad(level_BAK.flatten(1), (0, rule.topk), value=EMPTY).topk(rule.topk)
        real = score > rule.score_threshold
        pair = torch.where(real, pair, 0)
        scores.append(torch.where(real, score, EMPTY))
        anchors.append(torch.div(pair, scores_BAK.shape[2], rounding_mode="floor") + start)
        classes.append(pair % scores_BAK.shape[2])
        start = start + level_BAK.shape[1]
    return torch.cat(scores, 1), torch.cat(anchors, 1), torch.cat(classes, 1)


def survivors(boxes_BN4: Tensor, scores_BKN: Tensor, iou: float) -> Tensor:
    """Non-maximum suppression per class: (B, N) float32, 1 for each candidate that is kept.

    A candidate is kept if no kept one of its image and class with a higher score overlaps it by an IoU above `iou`.
    scores_BKN: a candidate's score at its class, below 0 at all others and in empty slots; class-agnostic NMS has one
    class for all.
    """
    survived: Tensor = suppression_operator()(boxes_BN4, scores_BKN, iou)
    return survived


@lru_cache(maxsize=1)
def suppression_operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    """The operator retinanet::survivors, registered with torch at its first use."""

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
    """Translation of the operator for torch.onnx: NonMaxSuppression, its list of indices turned into a mask."""
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

"""Raw outputs -> detections in each image's own frame (paper section 4, "Inference").

Legend: B images, A anchors, K classes, D detections of an image.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet import boxes
from retinanet.anchors import Pyramid
from retinanet.structures import Detections


class DetectRule(NamedTuple):
    """Thresholds of inference; the fields are those of config `eval`."""

    score_threshold: float
    topk: int
    nms_iou: float
    detections: int


class Pairs(NamedTuple):
    """(anchor, class) pairs of one image that may become detections, level by level, each level's best first."""

    scores_D: Tensor
    anchors_D: Tensor
    """(D,) int64, index into all anchors of the canvas."""
    classes_D: Tensor


def best_pairs(scores_AK: Tensor, level_sizes: tuple[int, ...], rule: DetectRule) -> Pairs:
    """Each level's best `topk` (anchor, class) pairs that score above the threshold."""
    found_scores, found_anchors, found_classes = [], [], []
    classes = scores_AK.shape[1]
    start = 0
    for size in level_sizes:
        flat = scores_AK[start : start + size].flatten()
        above = (flat > rule.score_threshold).nonzero().squeeze(1)
        score, order = flat[above].topk(min(rule.topk, len(above)))
        pair = above[order]
        found_scores.append(score)
        found_anchors.append(torch.div(pair, classes, rounding_mode="floor") + start)
        found_classes.append(pair % classes)
        start += size
    return Pairs(torch.cat(found_scores), torch.cat(found_anchors), torch.cat(found_classes))


def candidates(scores_AK: Tensor, deltas_A4: Tensor, pyramid: Pyramid, rule: DetectRule) -> Detections:
    """The best pairs with their decoded boxes; canvas frame."""
    pairs = best_pairs(scores_AK, pyramid.level_sizes, rule)
    boxes_D4 = boxes.decode(deltas_A4[pairs.anchors_D].float(), pyramid.boxes_A4[pairs.anchors_D])
    return Detections(boxes_D4, pairs.scores_D, pairs.classes_D)


def best_detections(found: Detections, size_2: Tensor, original_size_2: Tensor, rule: DetectRule) -> Detections:
    """Detections of one image, best first, in its original frame, from candidates in the canvas frame.

    Candidates are clipped to the image, suppressed class by class (NMS), cut to the best `detections` and then
    scaled from the canvas to the stored image.
    """
    clipped = boxes.clip(found.boxes_D4, size_2[0], size_2[1])
    keep = batched_nms(clipped, found.scores_D, found.classes_D, rule.nms_iou)[: rule.detections]
    kept = Detections(clipped[keep], found.scores_D[keep], found.classes_D[keep])
    return to_original_frame(kept, size_2, original_size_2)


def to_original_frame(found: Detections, size_2: Tensor, original_size_2: Tensor) -> Detections:
    """Detections in the canvas frame, scaled to the stored image. Sizes are (height, width)."""
    scale_4 = (original_size_2 / size_2).flip(0).repeat(2).to(found.boxes_D4)
    return found._replace(boxes_D4=found.boxes_D4 * scale_4)


@torch.no_grad()
def detect(
    scores_BAK: Tensor,
    deltas_BA4: Tensor,
    pyramid: Pyramid,
    sizes_B2: Tensor,
    original_sizes_B2: Tensor,
    rule: DetectRule,
) -> list[Detections]:
    """Detections of each image, best first, in its original frame, from scores and deltas of every anchor."""
    return [
        best_detections(candidates(scores_AK, deltas_A4, pyramid, rule), size, original, rule)
        for scores_AK, deltas_A4, size, original in zip(
            scores_BAK, deltas_BA4, sizes_B2, original_sizes_B2, strict=True
        )
    ]


@torch.no_grad()
def detect_decoded(
    scores_BAK: Tensor,
    boxes_BA4: Tensor,
    level_sizes: tuple[int, ...],
    sizes_B2: Tensor,
    original_sizes_B2: Tensor,
    rule: DetectRule,
) -> list[Detections]:
    """As `detect`, where the boxes of every anchor are decoded already (canvas frame), as exported graphs do."""
    results = []
    for scores_AK, boxes_A4, size, original in zip(scores_BAK, boxes_BA4, sizes_B2, original_sizes_B2, strict=True):
        pairs = best_pairs(scores_AK, level_sizes, rule)
        found = Detections(boxes_A4[pairs.anchors_D], pairs.scores_D, pairs.classes_D)
        results.append(best_detections(found, size, original, rule))
    return results

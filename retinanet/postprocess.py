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


def candidates(scores_AK: Tensor, deltas_A4: Tensor, pyramid: Pyramid, rule: DetectRule) -> Detections:
    """Each level's best `topk` (anchor, class) pairs that score above the threshold, decoded; canvas frame."""
    found_boxes, found_scores, found_classes = [], [], []
    classes = scores_AK.shape[1]
    start = 0
    for size in pyramid.level_sizes:
        flat = scores_AK[start : start + size].flatten()
        above = (flat > rule.score_threshold).nonzero().squeeze(1)
        score, order = flat[above].topk(min(rule.topk, len(above)))
        pair = above[order]
        anchor = torch.div(pair, classes, rounding_mode="floor") + start
        found_boxes.append(boxes.decode(deltas_A4[anchor].float(), pyramid.boxes_A4[anchor]))
        found_scores.append(score)
        found_classes.append(pair % classes)
        start += size
    return Detections(torch.cat(found_boxes), torch.cat(found_scores), torch.cat(found_classes))


@torch.no_grad()
def detect(
    scores_BAK: Tensor,
    deltas_BA4: Tensor,
    pyramid: Pyramid,
    sizes_B2: Tensor,
    original_sizes_B2: Tensor,
    rule: DetectRule,
) -> list[Detections]:
    """Detections of each image, best first, in its original frame.

    Candidates are clipped to the image, suppressed class by class (NMS), cut to the best `detections` and then
    scaled from the canvas to the stored image.
    """
    results = []
    for scores_AK, deltas_A4, size, original in zip(scores_BAK, deltas_BA4, sizes_B2, original_sizes_B2, strict=True):
        found = candidates(scores_AK, deltas_A4, pyramid, rule)
        clipped = boxes.clip(found.boxes_D4, size[0], size[1])
        keep = batched_nms(clipped, found.scores_D, found.classes_D, rule.nms_iou)[: rule.detections]
        scale = (original / size).flip(0).repeat(2).to(clipped)
        results.append(Detections(clipped[keep] * scale, found.scores_D[keep], found.classes_D[keep]))
    return results
